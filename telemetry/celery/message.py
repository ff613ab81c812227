"""What all messages of a task have in common, at both ends of the queue."""

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

from opentelemetry.semconv._incubating.attributes.messaging_attributes import (
    MESSAGING_OPERATION_NAME,
    MESSAGING_OPERATION_TYPE,
    MESSAGING_SYSTEM,
)
from opentelemetry.semconv.attributes.server_attributes import SERVER_ADDRESS, SERVER_PORT
from opentelemetry.trace import SpanKind

from ..tracing.faults import log_internal_error
from ..tracing.interpret import CELERY_TASK_NAME
from ..tracing.record import SpanTemplate
from ..tracing.scope import hop_scope

__all__ = ["Broker", "message_template"]

# kombu's transports by the names of the conventions. Any other goes by its own.
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

#: Which of Redis's databases, or of RabbitMQ's virtual hosts; absent for the default one.
CELERY_VIRTUAL_HOST = "celery.broker.virtual_host"


class Broker:
    """A broker: system, address and port. Never its user or password.

    *connection* returns a connection to it that need not be open.
    """

    def __init__(self, connection: Callable[[], Any]) -> None:
        self._connection = connection

    @cached_property
    def attributes(self) -> Mapping[str, Any]:
        """The attributes that describe the broker. Opens no connection."""
        info = self._connection().info()
        transport = str(info["transport"])
        attributes: dict[str, Any] = {MESSAGING_SYSTEM: _SYSTEMS.get(transport, transport)}
        host, port = _server(str(info.get("hostname") or ""), info.get("port"))
        if host:
            attributes[SERVER_ADDRESS] = host
        if port:
            attributes[SERVER_PORT] = int(port)
        # Two databases of one server are two brokers. Without one named it is the default.
        part = str(info.get("virtual_host") or "").strip("/")
        if part not in ("", "0"):
            attributes[CELERY_VIRTUAL_HOST] = part
        return attributes


def message_template(
    operation: str, task: str, kind: SpanKind, broker: Broker | None
) -> SpanTemplate:
    """Return the template of the messages of *task*. *operation* is ``send`` or ``process``.

    An eager run has no *broker*.
    """
    attributes: dict[str, Any] = {
        MESSAGING_OPERATION_NAME: operation,
        MESSAGING_OPERATION_TYPE: operation,
        CELERY_TASK_NAME: task,
    }
    try:
        attributes |= broker.attributes if broker is not None else {}
    except Exception:
        log_internal_error("describe a broker")
    return SpanTemplate(f"{operation} {task}", kind.value, attributes, hop_scope())


def _server(hostname: str, port: Any) -> tuple[str, Any]:
    """Return address and port. For some transports kombu's host name is a whole URL."""
    _, is_url, rest = hostname.partition("://")
    if not is_url:
        return hostname, port
    rest = rest.partition("?")[0].rpartition("@")[2]
    if rest.startswith("/"):
        return rest, None  # a socket, or a file
    first = rest.partition("/")[0].partition(",")[0]
    host, _, port = first.partition(":")
    return host, port if port.isdecimal() else None
