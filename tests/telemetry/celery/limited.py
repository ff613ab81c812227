"""Tasks that trace without a pause until their soft time limit: see test_soft_time_limit."""

import os
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any, NoReturn

from celery import Celery, signals
from opentelemetry import trace

from telemetry.celery import instrument_celery

BROKER = os.environ.get("CELERY_BROKER_URL", "redis://127.0.0.1:1/0")


def _look_for_a_leak(**_: object) -> None:
    if trace.get_current_span().get_span_context().is_valid:
        print("a span is current outside of tasks", flush=True)


signals.task_prerun.connect(_look_for_a_leak)  # before the run begins

app = Celery("limited", broker=BROKER, backend=BROKER, set_as_default=False)
app.conf.broker_connection_retry_on_startup = True
instrument_celery(app, "limited")

app.loader.on_process_cleanup = _look_for_a_leak  # after it has ended


def _send(producer: object, name: str, message: Any, **options: Any) -> None:
    """Send the signal that Celery sends, and no message.

    kombu and redis-py lose exceptions themselves, in __del__ and in callbacks of weak references.
    """
    signals.before_task_publish.send(
        sender=name,
        body=message.body,
        exchange="",
        routing_key="nowhere",
        declare=[],
        headers=message.headers,
        properties=message.properties,
        retry_policy=None,
    )


app.amqp.send_task_message = _send
NOWHERE = SimpleNamespace(connection=SimpleNamespace(_reraise_as_library_errors=nullcontext))


class Result:
    """A result without the ``__del__`` of Celery's, which would lose the exception too."""

    def __init__(self, task_id: str) -> None:
        self.id = task_id


@app.task
def publish() -> NoReturn:
    while True:
        app.send_task(
            "nothing", ignore_result=True, producer=NOWHERE, result_cls=Result,
            add_to_parent=False,
        )  # fmt: skip


@app.task
def make_spans() -> NoReturn:
    tracer: Any = trace.get_tracer("limited")
    while True:
        with tracer.start_as_current_span("outer") as span:
            span.set_attribute("key", "value")
            span.add_event("event")


@app.task
def fail_in_spans() -> NoReturn:
    tracer: Any = trace.get_tracer("limited")
    while True:
        try:
            with tracer.start_as_current_span("fails"):
                raise LookupError("nothing here")
        except LookupError:
            pass
