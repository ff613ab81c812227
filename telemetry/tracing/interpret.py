"""From a record to a span, or to a log record of OTLP: the only place that interprets facts.

Pure: no clock, no file, no state but caches. The sender calls it for every record, a process for
those that are read early. Names are those of OpenTelemetry's semantic conventions, for
HTTP and for messaging, and of Celery under ``celery.``.

Facts may come from any producer or client, so a value without the type that it should have is left
out.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from opentelemetry.semconv._incubating.attributes.messaging_attributes import (
    MESSAGING_BATCH_MESSAGE_COUNT,
    MESSAGING_DESTINATION_NAME,
    MESSAGING_MESSAGE_ID,
    MESSAGING_RABBITMQ_DESTINATION_ROUTING_KEY,
)
from opentelemetry.semconv.attributes.client_attributes import CLIENT_ADDRESS
from opentelemetry.semconv.attributes.code_attributes import (
    CODE_FILE_PATH,
    CODE_FUNCTION_NAME,
    CODE_LINE_NUMBER,
    CODE_STACKTRACE,
)
from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE
from opentelemetry.semconv.attributes.exception_attributes import (
    EXCEPTION_MESSAGE,
    EXCEPTION_STACKTRACE,
    EXCEPTION_TYPE,
)
from opentelemetry.semconv.attributes.http_attributes import (
    HTTP_REQUEST_METHOD,
    HTTP_REQUEST_METHOD_ORIGINAL,
    HTTP_RESPONSE_STATUS_CODE,
    HTTP_ROUTE,
)
from opentelemetry.semconv.attributes.network_attributes import NETWORK_PROTOCOL_VERSION
from opentelemetry.semconv.attributes.server_attributes import SERVER_ADDRESS, SERVER_PORT
from opentelemetry.semconv.attributes.url_attributes import URL_FULL, URL_PATH, URL_SCHEME
from opentelemetry.semconv.attributes.user_agent_attributes import USER_AGENT_ORIGINAL

from .record import (
    ClientFacts,
    Record,
    RecordedLink,
    RecordedLog,
    RunFacts,
    SendFacts,
    ServerFacts,
    SpanTemplate,
)
from .waits import (
    CELERY_WAIT_PREFETCH,
    CELERY_WAIT_QUEUE,
    CELERY_WAIT_SCHEDULED,
    CELERY_WAIT_SKEWED,
    Waits,
    parse_eta,
    parse_time,
    waits,
)

CELERY_TASK_NAME = "celery.task.name"
CELERY_TASK_STATE = "celery.task.state"
CELERY_TASK_RETRIES = "celery.task.retries"
CELERY_TASK_ITEMS = "celery.task.items"
CELERY_TASK_ETA = "celery.task.eta"
CELERY_TASK_EXPIRES = "celery.task.expires"
CELERY_ROOT_ID = "celery.root_id"
CELERY_PARENT_ID = "celery.parent_id"
CELERY_GROUP_ID = "celery.group_id"
CELERY_REDELIVERED = "celery.redelivered"

Attributes = dict[str, Any]


class Interpretation(NamedTuple):
    """A record, interpreted: the span's name, its facts as attributes, and its links."""

    name: str
    facts: Attributes
    links: Sequence[RecordedLink]

    def attributes(self, template: SpanTemplate, record: Record) -> Attributes:
        """Return all attributes of the span; what the code added wins."""
        added = record.attributes or {}
        return added if record.limited else {**template.static_attributes, **self.facts, **added}


def interpret(template: SpanTemplate, record: Record) -> Interpretation:
    """Interpret *record*, whose hop has *template*."""
    facts = record.facts
    name, attributes = template.name, Attributes()
    links: Sequence[RecordedLink] = record.links or ()
    if facts is not None:
        name = _INTERPRETERS[type(facts)](record, facts, attributes) or name
        if facts.error:
            attributes[ERROR_TYPE] = facts.error
        if isinstance(facts, RunFacts) and facts.links_to_parent and not record.limited:
            link = RecordedLink(
                record.trace_id, record.parent_id, is_remote=True, flags=record.flags
            )
            links = [link, *links]
    return Interpretation(record.name or name, attributes, links)


def _send(record: Record, facts: SendFacts, attributes: Attributes) -> None:
    if facts.destination:
        attributes[MESSAGING_DESTINATION_NAME] = facts.destination
    if facts.routing_key is not None:
        attributes[MESSAGING_RABBITMQ_DESTINATION_ROUTING_KEY] = facts.routing_key
    if facts.message is not None:
        eta, expires = _add_message(attributes, facts.message)
        if parse_eta(eta) is not None:
            attributes[CELERY_TASK_ETA] = eta
        if parse_eta(expires) is not None:
            attributes[CELERY_TASK_EXPIRES] = expires


def _run(record: Record, facts: RunFacts, attributes: Attributes) -> None:
    if isinstance(facts.queue, str) and facts.queue:
        attributes[MESSAGING_DESTINATION_NAME] = facts.queue
    _add_message(attributes, facts.message)
    if not facts.eager:
        scheduled, queue, prefetch, skewed = waits_of(facts, record.start_time / 1e9)
        attributes[CELERY_WAIT_SCHEDULED] = scheduled
        if queue is not None:
            attributes[CELERY_WAIT_QUEUE] = queue
        attributes[CELERY_WAIT_PREFETCH] = prefetch
        if skewed:
            attributes[CELERY_WAIT_SKEWED] = True
    if facts.messages is not None:
        attributes[MESSAGING_BATCH_MESSAGE_COUNT] = facts.messages
    if facts.redelivered:
        attributes[CELERY_REDELIVERED] = True
    if facts.items is not None:
        attributes[CELERY_TASK_ITEMS] = facts.items
    if facts.state:
        attributes[CELERY_TASK_STATE] = facts.state


_INT64 = 1 << 63
_MESSAGE_IDS = (MESSAGING_MESSAGE_ID, CELERY_ROOT_ID, CELERY_PARENT_ID, CELERY_GROUP_ID)


def _add_message(attributes: Attributes, message: Sequence[Any]) -> tuple[Any, Any]:
    """Add the facts of *message*, values of ``MESSAGE_FIELDS``. Return eta and expiry."""
    *ids, retries, eta, expires = message
    for name, value in zip(_MESSAGE_IDS, ids, strict=False):
        if value and isinstance(value, str):
            attributes[name] = value
    if type(retries) is int and 0 < retries < _INT64:
        attributes[CELERY_TASK_RETRIES] = retries
    return eta, expires


def waits_of(facts: RunFacts, started: float) -> Waits:
    """Return how long the message of a run waited that *started* at this Unix time in seconds."""
    return waits(
        parse_time(facts.sent_at),
        parse_eta(facts.eta) if facts.eta else None,
        parse_time(facts.received_at),
        started,
    )


# RFC 9110 and RFC 5789: what the conventions let a span name and a metric carry.
_METHODS = {"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"}


def _add_method(attributes: Attributes, method: Any) -> str:
    """Add a request's *method*; return the word for the span's name.

    An unknown method is ``HTTP`` and ``_OTHER``, so that a stranger cannot make up span names.
    """
    if method in _METHODS:
        attributes[HTTP_REQUEST_METHOD] = method
        return str(method)
    attributes[HTTP_REQUEST_METHOD] = "_OTHER"
    attributes[HTTP_REQUEST_METHOD_ORIGINAL] = str(method)[:64]
    return "HTTP"


def _client(record: Record, facts: ClientFacts, attributes: Attributes) -> str:
    name = _add_method(attributes, facts.method)
    attributes[SERVER_ADDRESS] = facts.host
    attributes[SERVER_PORT] = facts.port
    attributes[URL_FULL] = facts.url
    if facts.status:
        attributes[HTTP_RESPONSE_STATUS_CODE] = facts.status
    return name


def _server(record: Record, facts: ServerFacts, attributes: Attributes) -> str:
    environ = [value if isinstance(value, str) else "" for value in facts.environ]
    method, scheme, host, server, port, protocol, mount, path, peer, agent = environ
    scheme = scheme or "http"
    name = _add_method(attributes, method or "GET")
    attributes[URL_SCHEME] = scheme
    attributes[SERVER_ADDRESS], attributes[SERVER_PORT] = _address(scheme, host, server, port)
    if version := protocol.removeprefix("HTTP/"):
        attributes[NETWORK_PROTOCOL_VERSION] = version
    if facts.route is not None:
        attributes[HTTP_ROUTE] = facts.route
        name = f"{name} {facts.route}"
    path = mount + path
    # PEP 3333: bytes, decoded as Latin-1.
    attributes[URL_PATH] = (
        path if path.isascii() else path.encode("latin-1", "replace").decode("utf-8", "replace")
    )
    if peer:
        attributes[CLIENT_ADDRESS] = peer
    if agent:
        attributes[USER_AGENT_ORIGINAL] = agent
    if facts.status:
        attributes[HTTP_RESPONSE_STATUS_CODE] = facts.status
    return name


@lru_cache(maxsize=256)
def _address(scheme: str, host: str, server: str, port: str) -> tuple[str, int]:
    """Return the server's address and port: as the client named it, else as the server is bound."""
    if not host:
        name, number = server, port
    else:
        name, colon, number = host.rpartition(":")
        if not (colon and number.isdecimal()):
            name, number = host, ""
    default = 443 if scheme in ("https", "wss") else 80
    # A client may write anything there, and a number of many digits is not a port.
    is_port = number.isdecimal() and len(number) <= 5
    return name.strip("[]"), int(number) if is_port else default


#: Each adds the attributes of facts, and returns the span's name if the template does not have it.
_INTERPRETERS: Mapping[type, Callable[[Record, Any, Attributes], str | None]] = {
    SendFacts: _send,
    RunFacts: _run,
    ServerFacts: _server,
    ClientFacts: _client,
}


#: The first ``SeverityNumber`` of each range, by the tens of a level: TRACE, DEBUG, … FATAL.
_RANGES = (1, 5, 9, 13, 17, 21)

_TEXTS = {"WARNING": "WARN", "CRITICAL": "FATAL"}


def severity_number(level: int) -> int:
    """Return the ``SeverityNumber`` of a *level* of logging, 0 where it has none."""
    if level <= 0:
        return 0
    tens, ones = divmod(level, 10)
    if tens >= len(_RANGES):
        return 24
    return _RANGES[tens] + min(ones, 3)


def severity_text(level_name: str) -> str:
    """Return the name of a level as the specification has it."""
    return _TEXTS.get(level_name, level_name)


def log_attributes(log: RecordedLog) -> dict[str, Any]:
    """Return the attributes of *log*: those of ``extra``, and where it is from."""
    attributes: dict[str, Any] = dict(log.attributes or {})
    attributes[CODE_FILE_PATH] = log.path
    attributes[CODE_FUNCTION_NAME] = log.function
    attributes[CODE_LINE_NUMBER] = log.line
    if log.stack:
        attributes[CODE_STACKTRACE] = log.stack
    if log.exception is not None:
        attributes[EXCEPTION_TYPE] = log.exception.type
        attributes[EXCEPTION_MESSAGE] = log.exception.message
        attributes[EXCEPTION_STACKTRACE] = log.exception.stacktrace
    return attributes
