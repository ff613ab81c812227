"""A queue of the doctor's own, for the answers of workers and for messages that no worker runs."""

import time
from collections.abc import Callable
from typing import Any

from celery import Celery, uuid
from kombu import entity
from opentelemetry import context as otel_context
from opentelemetry import trace

from ..propagation.doctor import DOCTOR_TASK, REPLY_TO
from .origin import context_of

#: kombu has no types for it.
_Queue: Any = entity.Queue

#: Seconds after which the broker deletes the queue of a doctor that was killed.
_EXPIRES = 120


class Mailbox:
    """Receives on a queue that the broker deletes afterwards.

    It has the name of a reply queue of remote control, so a user of the broker who is limited to
    the names that Celery needs can use it too.
    """

    def __init__(self, app: Celery) -> None:
        self.app = app
        self.name = f"{uuid()}.{app.control.mailbox.reply_exchange.name}"
        # Durable, since RabbitMQ deprecates queues that are neither durable nor exclusive. Not
        # exclusive, since a publisher declares it again on another connection.
        self.queue = _Queue(
            self.name, exchange="", routing_key=self.name,
            auto_delete=True, expires=_EXPIRES,
        )  # fmt: skip
        #: What arrived: the headers of each message and the body of each answer, by task id.
        self.messages: dict[str, Any] = {}
        self.answers: dict[str, dict[str, Any]] = {}

    def __enter__(self) -> "Mailbox":
        self._connection = self.app.connection_for_read()
        try:
            bound = self.queue(self._connection.default_channel)
            bound.queue_declare()
            self._consumer = self._connection.Consumer(
                [bound], on_message=self._on_message, no_ack=True, auto_declare=False
            )
            self._consumer.consume()
        except BaseException:
            self._connection.release()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._consumer.cancel()
            self.queue(self._connection.default_channel).delete()
        finally:
            self._connection.release()

    def _on_message(self, message: Any) -> None:
        task = message.headers.get("id")
        if task is not None or "task" in message.headers:
            self.messages[str(task)] = message.headers
            return
        try:
            message.accept = {"application/json"}
            body = message.decode()
        except Exception:
            return  # another sender's
        if isinstance(body, dict) and "task" in body:  # protocol 1 has the task in the body
            self.messages[str(body.get("id"))] = message.headers
        elif isinstance(body, dict):
            self.answers[message.properties.get("correlation_id")] = body

    def wait(self, seconds: float, until: Callable[[], bool]) -> bool:
        """Receive until *until* returns true, for at most *seconds*. Return whether it did."""
        deadline = time.monotonic() + seconds
        while not until():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            try:
                self._connection.drain_events(timeout=left)
            except TimeoutError:
                return until()
        return True

    def send(self, parent: trace.SpanContext, task_id: str, **options: Any) -> Any:
        """Publish a probe as a child of *parent*; its worker answers here. Return its result."""
        token = otel_context.attach(context_of(parent))
        try:
            return self.app.send_task(
                DOCTOR_TASK, task_id=task_id, headers={REPLY_TO: self.name}, **options
            )
        finally:
            otel_context.detach(token)
