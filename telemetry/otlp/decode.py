"""Decode OTLP exports: each span and log record as a plain Python object."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from google.protobuf.message import Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.semconv._incubating.attributes.service_attributes import SERVICE_INSTANCE_ID
from opentelemetry.semconv.attributes.service_attributes import SERVICE_NAME

from .signals import SIGNALS

Attributes = Mapping[str, Any]
Item = TypeVar("Item")

_KINDS = {2: "SERVER", 3: "CLIENT", 4: "PRODUCER", 5: "CONSUMER"}
_STATUSES = {1: "OK", 2: "ERROR"}


@dataclass(frozen=True, slots=True)
class Event:
    """An event of a span. Its time is Unix nanoseconds."""

    name: str
    time_ns: int
    attributes: Attributes


@dataclass(frozen=True, slots=True)
class Link:
    """A link to another span."""

    trace_id: str
    span_id: str
    attributes: Attributes


@dataclass(slots=True)
class ReceivedSpan:
    """A finished span. Ids are lower-case hex, times are Unix nanoseconds.

    The *parent_id* of a root is empty. A frozen dataclass would take four times as long to make.
    """

    trace_id: str
    span_id: str
    parent_id: str
    name: str
    kind: str
    start_ns: int
    end_ns: int
    status: str
    status_message: str
    attributes: Attributes
    events: tuple[Event, ...]
    links: tuple[Link, ...]
    trace_state: str
    flags: int
    scope: str
    resource: Attributes
    #: The number of attributes, of events and of links that its SDK dropped.
    dropped: tuple[int, int, int] = (0, 0, 0)

    @property
    def service(self) -> str:
        """The name of its service."""
        return str(self.resource.get(SERVICE_NAME, ""))

    @property
    def instance(self) -> str:
        """The id of its process."""
        return str(self.resource.get(SERVICE_INSTANCE_ID, ""))

    @property
    def duration(self) -> float:
        """Seconds from start to end."""
        return (self.end_ns - self.start_ns) / 1e9


@dataclass(frozen=True, slots=True)
class ReceivedLog:
    """A log record. Its time is Unix nanoseconds; ids are lower-case hex, empty outside a span.

    *severity* is the ``SeverityNumber``, 0 if there is none, and *level* is its text.
    """

    trace_id: str
    span_id: str
    time_ns: int
    severity: int
    level: str
    body: Any
    attributes: Attributes
    scope: str
    resource: Attributes
    flags: int = 0
    dropped: int = 0

    @property
    def service(self) -> str:
        """The name of its service."""
        return str(self.resource.get(SERVICE_NAME, ""))

    @property
    def text(self) -> str:
        """The body as text. A body that is not a string is converted to JSON."""
        if isinstance(self.body, str):
            return self.body
        return "" if self.body is None else json.dumps(self.body, default=repr)


def decode(export: ExportTraceServiceRequest) -> list[ReceivedSpan]:
    """Return the spans of an OTLP export, in its order."""
    return _decode_items(export, decode_span)


def _decode_items(
    export: Message, decode_item: Callable[[Any, Attributes, str], Item]
) -> list[Item]:
    """Return the spans or log records of *export*, each decoded by *decode_item*."""
    signal = SIGNALS[type(export)]
    items: list[Item] = []
    for outer in getattr(export, signal.resources):
        resource = decode_attributes(outer.resource.attributes)
        for inner in getattr(outer, signal.scopes):
            scope = inner.scope.name
            items += [decode_item(item, resource, scope) for item in getattr(inner, signal.items)]
    return items


def decode_span(
    span: Span,
    resource: Attributes,
    scope: str,
    attributes_of: Callable[[Any], Attributes] | None = None,
) -> ReceivedSpan:
    """Return one span of an export in plain Python. *attributes_of* decodes its attributes."""
    status = span.status
    # Without keywords, since they would take a third of the time.
    return ReceivedSpan(
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        span.name,
        _KINDS.get(span.kind, "INTERNAL"),
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        _STATUSES.get(status.code, "UNSET"),
        status.message,
        (attributes_of or decode_attributes)(span.attributes),
        # Most spans have no events, and protobuf takes long to iterate over nothing.
        tuple(map(_decode_event, span.events)) if span.events else (),
        tuple(map(_decode_link, span.links)) if span.links else (),
        span.trace_state,
        span.flags,
        scope,
        resource,
        (span.dropped_attributes_count, span.dropped_events_count, span.dropped_links_count),
    )


def _decode_event(event: Span.Event) -> Event:
    return Event(event.name, event.time_unix_nano, decode_attributes(event.attributes))


def _decode_link(link: Span.Link) -> Link:
    return Link(link.trace_id.hex(), link.span_id.hex(), decode_attributes(link.attributes))


def decode_logs(export: ExportLogsServiceRequest) -> list[ReceivedLog]:
    """Return the log records of an OTLP export, in its order."""
    return _decode_items(export, decode_log)


def decode_log(log: LogRecord, resource: Attributes, scope: str, time_ns: int = 0) -> ReceivedLog:
    """Return one log record of an export in plain Python.

    *time_ns* is the time of a log record that has none.
    """
    return ReceivedLog(
        # Outside a span, SDKs send ids of zeros.
        trace_id=log.trace_id.hex() if any(log.trace_id) else "",
        span_id=log.span_id.hex() if any(log.span_id) else "",
        time_ns=log.time_unix_nano or log.observed_time_unix_nano or time_ns,
        severity=log.severity_number,
        level=log.severity_text,
        body=decode_value(log.body),
        attributes=decode_attributes(log.attributes),
        scope=scope,
        resource=resource,
        flags=log.flags,
        dropped=log.dropped_attributes_count,
    )


def decode_attributes(pairs: Iterable[KeyValue]) -> dict[str, Any]:
    """Return OTLP's key-value pairs as a dict. The last of several with the same key counts."""
    # Most values are strings.
    return {pair.key: pair.value.string_value or decode_value(pair.value) for pair in pairs}


def decode_value(value: AnyValue) -> Any:
    """Return OTLP's *value* in plain Python."""
    match value.WhichOneof("value"):
        case None:
            return None
        case "array_value":
            return [decode_value(item) for item in value.array_value.values]
        case "kvlist_value":
            return decode_attributes(value.kvlist_value.values)
        case field:
            return getattr(value, field)
