"""From a record to its parts in OTLP requests: the same for the disk and for memory."""

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from msgspec import Struct, msgpack
from opentelemetry.sdk.resources import Resource
from opentelemetry.semconv.attributes.service_attributes import SERVICE_INSTANCE_ID

from ..config.exporter import Signal
from ..otlp.encode import encode_log, encode_resource_spans, encode_scope_spans, encode_span
from ..tracing.interpret import interpret
from ..tracing.limits import clean
from ..tracing.measurements import Measurement, measurement
from ..tracing.record import Record, RecordedLog, SpanTemplate
from ..tracing.scope import Scope

#: The template in the origin of log records. Each record has the name of its own logger.
LOGS = SpanTemplate("", 0, {}, Scope(""))

#: A larger value is an error: seconds since 1970 are smaller, and no batch has so many messages.
LARGEST_VALUE = 1e11


class Origin(Struct, array_like=True, eq=False):
    """Where records come from: the resource of their process, and the template of their hop.

    Origins are compared by identity. Each process writes each of them once per segment.
    """

    resource: dict[str, Any]
    resource_schema_url: str
    #: Whether the user has set ``service.instance.id``. If not, each process has a random one.
    instance_is_set: bool
    template: SpanTemplate


#: Returns the origin of the records of a template in this process.
OriginOf = Callable[[SpanTemplate], Origin]

#: The record of a span, or of a log line.
AnyRecord = Record | RecordedLog


class Stream(NamedTuple):
    """The metrics of one service on one machine: its *resource*, and a *key* to find it by."""

    key: bytes
    resource: dict[str, Any]


#: A ``ResourceSpans`` and a ``ScopeSpans`` without spans, and a ``Span``; or the same of logs.
Encoded = tuple[bytes, bytes, bytes]

#: A measurement, and the stream that it belongs to.
Measured = tuple[Stream, Measurement]


class Outgoing(Struct, gc=False):
    """The parts of one record in the requests of each signal."""

    span: Encoded | None = None
    measured: Measured | None = None
    log: Encoded | None = None


#: The field of ``Outgoing`` for each signal.
FIELDS: Mapping[Signal, str] = {"TRACES": "span", "METRICS": "measured", "LOGS": "log"}


def origin_of(resource: Resource, template: SpanTemplate, instance_is_set: bool) -> Origin:
    """Return the origin of the records of *template* in a process with *resource*."""
    attributes, _ = clean(resource.attributes, None, None)
    return Origin(attributes, resource.schema_url, instance_is_set, template)


def outgoing(origin: Origin, record: AnyRecord) -> Outgoing:
    """Interpret and encode *record*. Raises if it, or its *origin*, is damaged.

    After this call there are only bytes and numbers. So a damaged record raises here, where it does
    not affect the other records of a request.
    """
    resource, scope, stream = _parts(origin)
    if isinstance(record, RecordedLog):
        if len(record.trace_id) not in (0, 16):
            raise ValueError(f"a trace id of {len(record.trace_id)} bytes")
        return Outgoing(log=(resource, _scope_of(record.logger), encode_log(record)))
    template = origin.template
    interpretation = interpret(template, record)
    span = None
    if record.flags & Record.SAMPLED:
        span = resource, scope, encode_span(template, record, interpretation)
    measured = measurement(template, record, interpretation.facts)
    if measured is None:
        return Outgoing(span)
    for value in measured.values:
        if not 0 <= value < LARGEST_VALUE:  # it would spoil the sums of all others
            raise ValueError(f"a measurement of {value}")
    return Outgoing(span, (stream, measured))


@lru_cache(maxsize=1024)
def _parts(origin: Origin) -> tuple[bytes, bytes, Stream]:
    """Return the ``ResourceSpans``, the ``ScopeSpans`` and the stream of *origin*."""
    attributes = dict(origin.resource)
    if not origin.instance_is_set:
        attributes.pop(SERVICE_INSTANCE_ID, None)
    Resource(attributes)  # raises for attributes that metrics cannot have
    return (
        encode_resource_spans(origin.resource, origin.resource_schema_url),
        encode_scope_spans(origin.template.scope),
        Stream(msgpack.encode(attributes), attributes),
    )


@lru_cache(maxsize=1024)
def _scope_of(logger: str) -> bytes:
    return encode_scope_spans(Scope(logger))
