"""The routes of ``../more_routes.py``, traced by the library."""

from flask import Response
from kombu.exceptions import EncodeError
from server import app, queue, tracer


@app.get("/publish")
def publish():
    try:
        queue.send_task("publish", [object()])
    except EncodeError:
        with tracer.start_as_current_span("write to the outbox"):
            return "later\n"


@app.get("/stream")
def stream():
    return Response(rows())


def rows():
    with tracer.start_as_current_span("read the rows"):
        yield "one row\n"
