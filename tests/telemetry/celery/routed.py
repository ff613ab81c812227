"""A Celery app whose queues use every kind of RabbitMQ's routing."""

import os

from celery import Celery
from kombu import Exchange, Queue
from kombu.common import Broadcast

from telemetry.celery import instrument_celery

TO_ALL = Exchange("to-all", type="fanout")
DELAYED = Exchange("delayed-exchange", type="topic")

QUEUES = (
    Queue("delayed", DELAYED, routing_key="later", queue_arguments={"x-queue-type": "quorum"}),
    # Without a key of their own they would have the default one, and get what is delayed too.
    Queue("one", TO_ALL, routing_key="all"),
    Queue("two", TO_ALL, routing_key="all"),
    Broadcast("to_everybody", routing_key="everybody"),
    Queue(
        "by_headers",
        Exchange("kinds", type="headers"),
        routing_key="ignored",
        binding_arguments={"x-match": "all", "kind": "new"},
    ),
)


def make_app(broker: str) -> Celery:
    """Return an app of the queues at *broker*."""
    app = Celery("routed", broker=broker, set_as_default=False)
    app.conf.update(
        task_queues=QUEUES, task_default_queue="delayed", task_default_exchange=DELAYED.name,
        task_default_exchange_type="topic", task_default_routing_key="later",
        task_ignore_result=True, worker_detect_quorum_queues=True,
    )  # fmt: skip
    instrument_celery(app, service_name="routed")

    @app.task(name="work", shared=False)
    def work() -> None:
        pass

    return app


app = make_app(os.environ.get("CELERY_BROKER_URL", ""))
