"""The Celery app. The web side publishes with it, and ``celery -A workers worker`` runs it."""

import os

from celery import Celery

from telemetry.celery import instrument_celery

_broker = os.environ.get("CELERY_BROKER_URL") or "redis://127.0.0.1:6379/0"
_stores_results = _broker.startswith(("redis://", "rediss://", "sentinel://"))
_log_prefix = "[%(asctime)s: %(levelname)s/%(processName)s] [trace=%(trace_id)s span=%(span_id)s] "

#: If a worker or its broker dies, Redis returns the messages that the worker had not started after
#: the visibility timeout. It must be longer than the longest task, or messages run twice.
_redelivery = {
    "visibility_timeout": 90,
    "unacked_restore_interval": 5,
    "unacked_restore_throttle": 1,
}

app = Celery(
    "workers",
    broker=_broker,
    backend=os.environ.get("CELERY_RESULT_BACKEND") or (_broker if _stores_results else "rpc://"),
    include=["workers.tasks"],
)
app.conf.update(
    accept_content=["json"],
    broker_transport_options=_redelivery if _broker.startswith(("redis://", "rediss://")) else {},
    broker_connection_retry_on_startup=True,
    # Seconds that a worker waits for a result backend that is down.
    result_backend_transport_options={"retry_policy": {"timeout": 5.0}},
    result_expires=3600,
    task_time_limit=60,
    worker_cancel_long_running_tasks_on_connection_loss=True,
    worker_log_format=_log_prefix + "%(message)s",
    worker_task_log_format=_log_prefix + "%(task_name)s[%(task_id)s]: %(message)s",
)
instrument_celery(app, service_name="queuehop-worker")
