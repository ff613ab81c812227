"""A record with its origin, as it goes into a request: the same for the disk and for the memory."""

from functools import lru_cache
from typing import Any, NamedTuple

from msgspec import Struct, msgpack
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.sdk.resources import Resource
from opentelemetry.semconv.attributes.service_attributes import SERVICE_INSTANCE_ID

from ..otlp.encode import (
    encode_log,
    encode_readable,
    encode_resource_spans,
    encode_scope_spans,
    encode_span,
)
from ..tracing.interpret import Measurement, Series, interpret, measurement
from ..tracing.record import Record, RecordedLog, SpanTemplate
from ..tracing.scope import Scope
from ..tracing.span import clean, readable

__all__ = [
    "LOGS",
    "EncodedLog",
    "Origin",
    "Outgoing",
    "Stream",
    "origin_of",
    "outgoing",
    "outgoing_log",
    "outgoing_span",
]

#: The template in the origin of log records, which have the names of their loggers themselves.
LOGS = SpanTemplate("", 0, {}, Scope(""))

#: A measurement is less than this: seconds since 1970 are, and so many messages are in no batch.
LARGEST_VALUE = 1e11


class Origin(Struct, array_like=True, eq=False):
    """Where records come from: the resource of their process, and the template of their hop.

    Compared by identity. It is written once per segment.
    """

    resource: dict[str, Any]
    resource_schema_url: str
    #: Whether the user has set ``service.instance.id``. Else it tells one process from another.
    instance_is_set: bool
    template: SpanTemplate

    def resource_spans(self) -> bytes:
        """Return the ``ResourceSpans`` that the spans belong in, without spans."""
        return _resource_spans(self)

    def scope_spans(self) -> bytes:
        """Return the ``ScopeSpans`` that the spans belong in, without spans."""
        return _scope_spans(self)

    def stream(self) -> "Stream":
        """Return the stream of metrics that the measurements belong in."""
        return _stream(self)


class Stream(NamedTuple):
    """The metrics of one service on one machine: its *resource*, and a *key* that is equal."""

    key: bytes
    resource: dict[str, Any]


class EncodedLog(NamedTuple):
    """A ``LogRecord``, and the ``ScopeLogs`` that it belongs in, without log records."""

    scope: bytes
    log: bytes


class Outgoing(NamedTuple):
    """One record to be sent: a ``Span`` if it is sampled, a measurement if it has one.

    Or a log record.
    """

    origin: Origin
    span: bytes | None = None
    measurement: Measurement | None = None
    log: EncodedLog | None = None


def origin_of(resource: Resource, template: SpanTemplate, instance_is_set: bool) -> Origin:
    """Return the origin of the records of *template* in a process with *resource*."""
    attributes, _ = clean(resource.attributes, None, None)
    return Origin(attributes, resource.schema_url, instance_is_set, template)


def outgoing(origin: Origin, record: Record) -> Outgoing:
    """Interpret and encode *record*. Raises for one that is damaged.

    Everything that can be wrong with a record or its origin raises here, where it costs that record
    alone. What goes on from here is bytes and numbers, with the other records of a request.
    """
    _check(origin)
    interpretation = interpret(origin.template, record)
    span = None
    if record.flags & Record.SAMPLED:
        try:
            span = encode_span(origin.template, record, interpretation)
        except Exception:  # text that is no Unicode: the SDK leaves out what it cannot encode
            span = encode_readable(readable(origin.template, record, Resource.get_empty()))
    measured = measurement(origin.template, record, interpretation.facts)
    if measured is not None:
        _check_values(measured)
    return Outgoing(origin, span, measured)


def outgoing_span(origin: Origin, span: bytes) -> Outgoing:
    """Return *span*, an encoded ``Span``, as an outgoing one. Raises if it is damaged."""
    _check(origin)
    Span.FromString(span)
    return Outgoing(origin, span)


def outgoing_log(origin: Origin, log: RecordedLog) -> Outgoing:
    """Encode *log*. Raises for one that is damaged."""
    _check(origin)
    if len(log.trace_id) not in (0, 16):
        raise ValueError(f"a trace id of {len(log.trace_id)} bytes")
    return Outgoing(origin, log=EncodedLog(_scope_logs(log.logger), encode_log(log)))


@lru_cache(maxsize=1024)
def _check(origin: Origin) -> None:
    """Raise for an *origin* that cannot be sent."""
    _resource_spans(origin)
    _scope_spans(origin)
    Resource(_stream(origin).resource)


def _check_values(measured: Measurement) -> None:
    """Raise for values that would spoil the sums of all others."""
    _check_series(measured.series)
    for value in measured.values:
        if not 0 <= value < LARGEST_VALUE:
            raise ValueError(f"a measurement of {value}")


@lru_cache(maxsize=1024)
def _check_series(series: Series) -> None:
    hash(frozenset(series.attributes.items()))


@lru_cache(maxsize=1024)
def _resource_spans(origin: Origin) -> bytes:
    return encode_resource_spans(origin.resource, origin.resource_schema_url)


@lru_cache(maxsize=1024)
def _scope_spans(origin: Origin) -> bytes:
    return encode_scope_spans(origin.template.scope)


@lru_cache(maxsize=1024)
def _scope_logs(logger: str) -> bytes:
    return encode_scope_spans(Scope(logger))


@lru_cache(maxsize=1024)
def _stream(origin: Origin) -> Stream:
    resource = dict(origin.resource)
    if not origin.instance_is_set:
        resource.pop(SERVICE_INSTANCE_ID, None)
    return Stream(msgpack.encode(resource), resource)
