"""A Celery app with a task of celery-singleton, and a schedule that RedBeat has in Redis."""

import os
from typing import Any

from celery import Celery
from celery_singleton import Singleton

from telemetry.celery import instrument_celery

broker = os.environ["CELERY_BROKER_URL"]
app = Celery("extended", broker=broker, backend=broker)
app.conf.update(
    broker_connection_retry_on_startup=True,
    beat_schedule={"tick": {"task": "tick", "schedule": 0.2}},
    beat_max_loop_interval=0.2,
    redbeat_redis_url=broker,
    redbeat_lock_timeout=2,
)
instrument_celery(app, "extended")


@app.task(name="once", base=Singleton)
def once(number: int) -> int:
    return number


@app.task(name="tick")
def tick(*_: Any) -> None:
    """Do nothing."""
