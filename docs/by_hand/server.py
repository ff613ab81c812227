from flask import Flask, request
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.propagate import extract, inject
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind
from worker import app as queue

app = Flask(__name__)
provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
trace.set_tracer_provider(provider)
tracer = trace.get_tracer("server")


@app.get("/<task>")
def send(task):
    parent, name = extract(request.headers), f"GET {request.url_rule}"
    with tracer.start_as_current_span(name, parent, SpanKind.SERVER):
        headers = {}
        inject(headers)
        queue.send_task(task, headers=headers)
        return "sent\n"
