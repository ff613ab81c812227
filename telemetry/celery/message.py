"""What is said of a message at both ends of the queue, in the messaging conventions' words."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar

from celery import Celery
from opentelemetry.semconv._incubating.attributes.messaging_attributes import (
    MESSAGING_DESTINATION_NAME,
    MESSAGING_MESSAGE_ID,
    MESSAGING_OPERATION_NAME,
    MESSAGING_OPERATION_TYPE,
    MESSAGING_SYSTEM,
)
from opentelemetry.semconv.attributes.server_attributes import SERVER_ADDRESS, SERVER_PORT
from opentelemetry.util.types import AttributeValue

from .. import otlp
from ..propagation import BAGGAGE, LINKS, RELATION, SENT_AT, TRACEPARENT, TRACESTATE

__all__ = ["Broker", "Facts", "measured", "of_task", "wire"]

_WIRE = (TRACEPARENT, TRACESTATE, BAGGAGE, SENT_AT, LINKS, RELATION)

CELERY_TASK_NAME = "celery.task.name"
CELERY_TASK_STATE = "celery.task.state"
CELERY_TASK_RETRIES = "celery.task.retries"
CELERY_ROOT_ID = "celery.root_id"
CELERY_PARENT_ID = "celery.parent_id"
CELERY_GROUP_ID = "celery.group_id"
CELERY_REDELIVERED = "celery.redelivered"
CELERY_TASK_ITEMS = "celery.task.items"

#: What a message says of itself by an id: its name there, that of the attribute, and what comes
#: before it in OTLP.
_IDS = [
    (key, name, otlp.before_string(name))
    for key, name in (
        ("id", MESSAGING_MESSAGE_ID),
        ("root_id", CELERY_ROOT_ID),
        ("parent_id", CELERY_PARENT_ID),
        ("group", CELERY_GROUP_ID),
    )
]

# kombu's transports by the conventions' names; any other goes by its own.
_SYSTEMS = {
    "amqp": "rabbitmq",
    "amqps": "rabbitmq",
    "pyamqp": "rabbitmq",
    "librabbitmq": "rabbitmq",
    "rediss": "redis",
    "sentinel": "redis",
    "valkey": "redis",
    "sqs": "aws_sqs",
    "azureservicebus": "servicebus",
    "gcpubsub": "gcp_pubsub",
    "confluentkafka": "kafka",
}


class Broker:
    """The broker of an app: system, address, port. Never its user or password."""

    def __init__(self, app: Celery) -> None:
        self._app = app

    def fixed(self, operation: str, task: str) -> dict[str, AttributeValue]:
        """Return what is said of each message of *task*; *operation* is ``send`` or ``process``."""
        return {**of_task(operation, task), **self._attributes}

    @cached_property
    def _attributes(self) -> Mapping[str, AttributeValue]:
        """What spans say of the broker. Opens no connection."""
        info = self._app.connection_for_write().info()
        transport = str(info["transport"])
        attributes: dict[str, AttributeValue] = {
            MESSAGING_SYSTEM: _SYSTEMS.get(transport, transport),
        }
        host, port = _server(str(info.get("hostname") or ""), info.get("port"))
        if host:
            attributes[SERVER_ADDRESS] = host
        if port:
            attributes[SERVER_PORT] = int(port)
        return attributes


def _server(hostname: str, port: Any) -> tuple[str, Any]:
    """Return address and port of what kombu calls a host name: of some transports the whole URL."""
    _, is_url, rest = hostname.partition("://")
    if not is_url:
        return hostname, port
    rest = rest.partition("?")[0].rpartition("@")[2]
    if rest.startswith("/"):
        return rest, None  # a socket, or a file
    first = rest.partition("/")[0].partition(",")[0]
    host, _, port = first.partition(":")
    return host, port if port.isdecimal() else None


_MEASURED = (
    MESSAGING_SYSTEM,
    MESSAGING_OPERATION_NAME,
    MESSAGING_DESTINATION_NAME,
    SERVER_ADDRESS,
    SERVER_PORT,
    CELERY_TASK_NAME,
)


def measured(attributes: Mapping[str, AttributeValue]) -> dict[str, AttributeValue]:
    """Return those *attributes* of a span that its metrics have too: few values each."""
    return {key: attributes[key] for key in _MEASURED if key in attributes}


def wire(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return the headers of *message* that are ours, wherever its protocol has put them.

    Protocol 2 has a message's headers at its top, protocol 1 in a table of their own.
    """
    own = {key: message[key] for key in _WIRE if key in message}
    table = message.get("headers")
    if not own and isinstance(table, Mapping):
        own = {key: table[key] for key in _WIRE if key in table}
    return own


def of_task(operation: str, task: str) -> dict[str, AttributeValue]:
    """Return what is said of a task where there is no broker, such as in an eager run."""
    return {
        MESSAGING_OPERATION_NAME: operation,
        MESSAGING_OPERATION_TYPE: operation,
        CELERY_TASK_NAME: task,
    }


class Facts:
    """What is said of one message alone, from its *headers* (protocol 2's names).

    Headers may come from any producer, so what has not the type that it should have is left out.
    """

    __slots__ = ("headers",)

    keys: ClassVar[frozenset[str]] = frozenset(
        {
            MESSAGING_MESSAGE_ID,
            CELERY_ROOT_ID,
            CELERY_PARENT_ID,
            CELERY_GROUP_ID,
            CELERY_TASK_RETRIES,
        }
    )

    def __init__(self, headers: Mapping[str, Any]) -> None:
        self.headers = headers

    def attributes(self) -> dict[str, AttributeValue]:
        """Return it as attributes of a span."""
        attributes: dict[str, AttributeValue] = {}
        headers = self.headers
        for key, name, _ in _IDS:
            value = headers.get(key)
            if value and isinstance(value, str):
                attributes[name] = value
        retries = headers.get("retries")
        if retries and isinstance(retries, int):
            attributes[CELERY_TASK_RETRIES] = retries
        return attributes

    def encoded(self) -> bytes:
        """Return the same as bytes: the fast path of every message."""
        get = self.headers.get
        encoded = b""
        for key, _, before in _IDS:
            value = get(key)
            if value and isinstance(value, str):
                data = value.encode()
                encoded += before[len(data)] + data
        retries = get("retries")
        if retries and isinstance(retries, int):
            encoded += otlp.encode_attributes({CELERY_TASK_RETRIES: retries})
        return encoded
