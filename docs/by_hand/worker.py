from celery import Celery
from celery.signals import task_postrun, task_prerun, worker_process_init
from opentelemetry import context, trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.propagate import extract
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind

app = Celery(broker="redis://127.0.0.1", backend="redis://127.0.0.1")
tracer = trace.get_tracer("worker")


@worker_process_init.connect
def set_up(**_):
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)


@task_prerun.connect
def start(task, **_):
    parent = extract(task.request.headers or {})
    span = tracer.start_span(f"run {task.name}", parent, SpanKind.CONSUMER)
    task.request.run = span, context.attach(trace.set_span_in_context(span, parent))


@task_postrun.connect
def end(task, **_):
    span, token = task.request.run
    context.detach(token)
    span.end()


@app.task(name="ping")
def ping():
    with tracer.start_as_current_span("work"):
        return "pong"
