"""The template of a task's messages, at both ends of the queue."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

from kombu.connection import Connection
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

# kombu's transports by the names of the conventions. Any other has its own name.
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


class Broker(NamedTuple):
    """A broker, as far as it is known. Never its user or password."""

    system: str | None = None
    address: str | None = None
    port: int | None = None
    #: None for the default one.
    virtual_host: str | None = None

    def attributes(self) -> dict[str, Any]:
        """Return the attributes that describe the broker."""
        found = {
            MESSAGING_SYSTEM: self.system,
            SERVER_ADDRESS: self.address,
            SERVER_PORT: self.port if self.address else None,
            CELERY_VIRTUAL_HOST: self.virtual_host,
        }
        return {name: value for name, value in found.items() if value is not None}


def broker_of(get_connection: Callable[[], Any]) -> Broker:
    """Return the broker of a kombu connection. It need not be open, and is not opened.

    A connection with failover URLs may use any of them. Its broker is what they share.
    """
    try:
        connection = get_connection()
        prefix, hostname = connection.uri_prefix, connection.hostname
        return _common_broker(
            tuple(connection.alt) or (f"{prefix}+{hostname}" if prefix else hostname,),
            connection.transport_cls,
            connection.port,
            connection.virtual_host,
            bool(connection.ssl),
        )
    except Exception:
        log_internal_error("describe a broker")
        return Broker()


@lru_cache(maxsize=256)
def _common_broker(hosts: tuple[Any, ...], *parameters: Any) -> Broker:
    brokers = [_broker(host, *parameters) for host in hosts]
    fields = zip(*brokers, strict=True)
    return Broker(*(values[0] if len(set(values)) == 1 else None for values in fields))


def _broker(host: Any, transport: Any, port: Any, virtual_host: Any, ssl: bool) -> Broker:
    """Return the broker at *host*, a name or a URL, with the defaults of its transport."""
    transport = None if "://" in (host or "") else transport
    options = {"port": port, "virtual_host": virtual_host, "transport": transport, "ssl": ssl}
    connection: Any = Connection(host, **options)  # type: ignore[no-untyped-call]
    info = connection.info()
    system = str(info["transport"])
    address, port = _server(str(info.get("hostname") or ""), info.get("port"))
    # Two databases of one server are two brokers. If the URL names none, it is the default.
    part = str(info.get("virtual_host") or "").strip("/")
    return Broker(
        _SYSTEMS.get(system, system),
        address or None,
        int(port) if port else None,
        part if part not in ("", "0") else None,
    )


def message_template(
    operation: str, task_name: str, kind: SpanKind, broker: Broker | None
) -> SpanTemplate:
    """Return the template of the messages of *task_name*. *operation* is ``send`` or ``process``.

    An eager run has no *broker*.
    """
    attributes: dict[str, Any] = {
        MESSAGING_OPERATION_NAME: operation,
        MESSAGING_OPERATION_TYPE: operation,
        CELERY_TASK_NAME: task_name,
    }
    if broker is not None:
        attributes |= broker.attributes()
    return SpanTemplate(f"{operation} {task_name}", kind.value, attributes, hop_scope())


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
