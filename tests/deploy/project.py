"""A Celery app on Redis Sentinel, configured as in docs/scale.md."""

import os

from celery import Celery
from opentelemetry import trace

import telemetry
from telemetry.celery import instrument_celery

#: Set twice, because the result backend does not read the broker's options.
SENTINEL = {"master_name": "queuehop"}

app = Celery(
    "project", broker=os.environ["CELERY_BROKER_URL"], backend=os.environ["CELERY_BROKER_URL"]
)
app.conf.update(
    broker_connection_retry_on_startup=True,
    broker_transport_options=SENTINEL,
    result_backend_transport_options=SENTINEL,
)
instrument_celery(app, service_name="worker")


@app.task(name="where")
def where() -> str:
    """Return the id of the trace that is current in the task."""
    return f"{trace.get_current_span().get_span_context().trace_id:032x}"


if __name__ == "__main__":
    telemetry.setup("producer")
    print("ran in", where.delay().get(timeout=60), flush=True)
