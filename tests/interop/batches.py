"""The Celery app with a task of celery-batches, for the worker of its tests."""

import os
from typing import Any

from celery import Celery
from celery_batches import Batches

from telemetry.celery import instrument_celery

broker = os.environ["CELERY_BROKER_URL"]
app = instrument_celery(Celery("batches", broker=broker, backend=broker), "batches")
app.conf.broker_connection_retry_on_startup = True


@app.task(name="single")
def single() -> None:
    """Take one message a run."""


@app.task(name="three", base=Batches, flush_every=3, flush_interval=60)
def three(requests: list[Any]) -> None:
    """Take three messages a run; fail if one of them says so; publish a task of one message."""
    for request in requests:
        app.backend.mark_as_done(request.id, len(requests), request=request)
    single.delay()
    if any(request.kwargs.get("fail") for request in requests):
        raise LookupError("nothing here")


@app.task(name="soon", base=Batches, flush_every=100, flush_interval=0.2)
def soon(requests: list[Any]) -> None:
    """Take the messages of a fifth of a second."""


@app.task(name="part")
def part() -> None:
    """Be a part of a chord."""


@app.task(name="body")
def body(results: list[None]) -> None:
    """Be the body of a chord."""
