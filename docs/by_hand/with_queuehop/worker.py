from celery import Celery
from opentelemetry import trace

from telemetry.celery import instrument_celery

app = Celery(broker="redis://127.0.0.1", backend="redis://127.0.0.1")
instrument_celery(app, service_name="worker")
tracer = trace.get_tracer("worker")


@app.task(name="ping")
def ping():
    with tracer.start_as_current_span("work"):
        return "pong"
