"""Routes that break tracing by hand: ``flask --app more_routes run``."""

from celery.signals import after_task_publish, before_task_publish
from flask import Response, g, request
from kombu.exceptions import EncodeError
from opentelemetry import context, trace
from opentelemetry.propagate import extract, inject
from opentelemetry.trace import SpanKind
from server import app, queue, tracer


@before_task_publish.connect(sender="publish")
def start_send(headers, **_):
    span = tracer.start_span("send publish", kind=SpanKind.PRODUCER)
    g.send = span, context.attach(trace.set_span_in_context(span))
    inject(headers)


@after_task_publish.connect(sender="publish")
def end_send(**_):
    span, token = g.send
    context.detach(token)
    span.end()


@app.get("/publish")
def publish():
    with tracer.start_as_current_span("GET /publish", extract(request.headers), SpanKind.SERVER):
        try:
            queue.send_task("publish", [object()])  # JSON has no such type
        except EncodeError:
            with tracer.start_as_current_span("write to the outbox"):
                return "later\n"


@app.get("/stream")
def stream():
    with tracer.start_as_current_span("GET /stream", extract(request.headers), SpanKind.SERVER):
        return Response(rows())


def rows():
    with tracer.start_as_current_span("read the rows"):
        yield "one row\n"
