"""The messaging attributes of a span, from any instrumentation.

Supported are this library, OpenTelemetry's contrib for Celery, Sentry's queue spans, and every
instrumentation that follows the messaging conventions, current or old: Kafka, JMS, RabbitMQ.
"""

import math
from collections.abc import Mapping
from typing import Any, Literal

from opentelemetry.semconv._incubating.attributes.messaging_attributes import (
    MESSAGING_CONSUMER_GROUP_NAME,
    MESSAGING_DESTINATION_NAME,
    MESSAGING_MESSAGE_ID,
    MESSAGING_OPERATION,
    MESSAGING_OPERATION_TYPE,
    MESSAGING_SYSTEM,
)
from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE
from opentelemetry.semconv.attributes.exception_attributes import (
    EXCEPTION_MESSAGE,
    EXCEPTION_TYPE,
)
from opentelemetry.semconv.attributes.server_attributes import SERVER_ADDRESS, SERVER_PORT

from ...otlp.decode import ReceivedSpan
from ...propagation.doctor import DOCTOR_MEMBER, DOCTOR_TASK

Role = Literal["send", "run", "take", ""]

#: The role of each operation of the conventions, old and new. Settling a message has no role.
_OPERATIONS: dict[str, Role] = {
    **dict.fromkeys(("create", "send", "publish", "queue.publish", "queue.submit"), "send"),
    **dict.fromkeys(("process", "deliver", "queue.process", "queue.task"), "run"),
    **dict.fromkeys(("receive", "queue.receive"), "take"),
    **dict.fromkeys(("settle", "ack", "nack"), ""),
}
_KINDS: dict[str, Role] = {"PRODUCER": "send", "CONSUMER": "run"}


#: The database of Redis or the virtual host of RabbitMQ. Absent for the default one.
VIRTUAL_HOST = "celery.broker.virtual_host"

SENTRY_OP = "sentry.op"
#: Attribute names of other instrumentations and of old conventions.
_DESTINATIONS = (MESSAGING_DESTINATION_NAME, "messaging.destination")
_MESSAGE_IDS = (MESSAGING_MESSAGE_ID, "messaging.message_id", "celery.id")
_TASKS = ("celery.task.name", "celery.task_name")
_STATES = ("celery.task.state", "celery.state")
_RETRIES = ("celery.task.retries", "celery.retries", "messaging.message.retry.count")
_GROUPS = (
    MESSAGING_CONSUMER_GROUP_NAME,
    "messaging.kafka.consumer.group",
    "messaging.kafka.consumer_group",
)


def text(attributes: Mapping[str, Any], *keys: str) -> str:
    """Return the first non-empty string among the *keys*, or ``""``."""
    for key in keys:
        value = attributes.get(key)
        if value and isinstance(value, str):
            return value
    return ""


def number(attributes: Mapping[str, Any], *keys: str) -> float | None:
    """Return the first finite, non-negative number among the *keys*, or None."""
    for key in keys:
        value = attributes.get(key)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            continue
        if 0 <= value < math.inf:
            return float(value)
    return None


def role_of(span: ReceivedSpan) -> Role:
    """Return the role of *span*: it sends a message, runs its task, or only receives it.

    A span that only receives messages is their run if no other span processes them.
    """
    attributes = span.attributes
    for key in (MESSAGING_OPERATION_TYPE, MESSAGING_OPERATION, SENTRY_OP):
        value = attributes.get(key)
        if isinstance(value, str) and (role := _OPERATIONS.get(value.lower())) is not None:
            return role
    if span.kind in _KINDS:
        return _KINDS[span.kind]
    return _OPERATIONS.get(span.name, "") if span.name.startswith("queue.") else ""


def is_taker(span: ReceivedSpan) -> bool:
    """Return whether *span* receives or processes messages."""
    return role_of(span) in ("run", "take")


def task_of(span: ReceivedSpan) -> str:
    """Return the name of the Celery task, or ``""``."""
    if found := text(span.attributes, *_TASKS):
        return found
    for prefix in ("apply_async/", "run/"):
        if span.name.startswith(prefix):
            return span.name.removeprefix(prefix)
    return ""


def queue_of(span: ReceivedSpan) -> str:
    """Return the queue or topic, or ``""``."""
    return text(span.attributes, *_DESTINATIONS)


def message_id_of(span: ReceivedSpan) -> str:
    """Return the message's id, or ``""``."""
    return text(span.attributes, *_MESSAGE_IDS)


def state_of(span: ReceivedSpan) -> str:
    """Return Celery's state of the task, or ``""``."""
    return text(span.attributes, *_STATES)


def retries_of(span: ReceivedSpan) -> int:
    """Return the number of earlier attempts, or 0 if the span does not record it."""
    return int(number(span.attributes, *_RETRIES) or 0)


def broker_of(span: ReceivedSpan) -> str:
    """Return the broker of *span*, as ``redis://host:6379/1``. Unknown parts are left out."""
    attributes = span.attributes
    system, host = text(attributes, MESSAGING_SYSTEM), text(attributes, SERVER_ADDRESS)
    if not host:
        return system
    port = number(attributes, SERVER_PORT)
    part = text(attributes, VIRTUAL_HOST)
    return (
        f"{system}://{host}"
        + (f":{int(port)}" if port is not None else "")
        + (f"/{part}" if part else "")
    )


def consumer_of(span: ReceivedSpan) -> tuple[str, str]:
    """Return the service and the consumer group. Each group gets the message once."""
    return span.service, text(span.attributes, *_GROUPS)


def is_doctors(span: ReceivedSpan) -> bool:
    """Return whether *span* belongs to a test request or test task of the doctor.

    Its ``tracestate`` marks it if the propagators carry one.
    """
    member = "=".join(DOCTOR_MEMBER)
    return member in span.trace_state.split(",") or task_of(span) == DOCTOR_TASK


def error_of(span: ReceivedSpan) -> str | None:
    """Return the error of *span* as it recorded it, or None."""
    for event in reversed(span.events):
        if kind := event.attributes.get(EXCEPTION_TYPE):
            return f"{kind}: {event.attributes.get(EXCEPTION_MESSAGE, '')}".rstrip(": ")
    if span.status != "ERROR":
        return None
    return span.status_message or str(span.attributes.get(ERROR_TYPE) or "") or None
