"""Convert Jaeger's JSON, from its page or its API, to OTLP.

Jaeger converts a span of OTLP like this: attributes become tags, events become logs, a link becomes
a FOLLOWS_FROM reference, and kind, status and scope become tags with reserved names. This module
does the reverse.
"""

from collections.abc import Mapping
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status
from opentelemetry.semconv.attributes.service_attributes import SERVICE_NAME

from ..otlp.bounds import Malformed

JAEGER = "Jaeger's JSON"

KINDS = {"internal": 1, "server": 2, "client": 3, "producer": 4, "consumer": 5}
STATUSES = {"OK": 1, "ERROR": 2}

#: Tags that are fields of a span in OTLP.
KIND, ERROR = "span.kind", "error"
STATUS, DESCRIPTION = "otel.status_code", "otel.status_description"
SCOPES = ("otel.scope.name", "otel.library.name")
VERSIONS = ("otel.scope.version", "otel.library.version")
STATE = "w3c.tracestate"
FIELDS = frozenset({KIND, STATUS, DESCRIPTION, STATE, *SCOPES, *VERSIONS})

Tags = dict[str, Any]


def from_jaeger(traces: list[Any]) -> ExportTraceServiceRequest:
    """Return the spans of Jaeger's *traces*. Raises Malformed."""
    request = ExportTraceServiceRequest()
    try:
        for trace in traces:
            processes = trace.get("processes") or {}
            sources: dict[tuple[str, str], ScopeSpans] = {}
            for item in trace["spans"]:
                process_id = item.get("processID", "")
                tags = _tags(item.get("tags"))
                scope = _first(tags, SCOPES)
                place = sources.get((process_id, scope))
                if place is None or "process" in item:
                    process = item.get("process") or processes.get(process_id) or {}
                    resource = request.resource_spans.add()
                    _describe(resource, process)
                    place = resource.scope_spans.add()
                    place.scope.name, place.scope.version = scope, _first(tags, VERSIONS)
                    sources[process_id, scope] = place
                place.spans.append(_span(item, tags))
    except Malformed:
        raise
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as exc:
        said = f"{type(exc).__name__}: {exc}"[:200]
        raise Malformed(
            f"it looks like {JAEGER}, but one of its spans is malformed ({said})"
        ) from None
    return request


def _describe(resource: ResourceSpans, process: Mapping[str, Any]) -> None:
    named = {SERVICE_NAME: str(process.get("serviceName", "")), **_tags(process.get("tags"))}
    resource.resource.attributes.extend(_pairs(named))


def _span(item: Mapping[str, Any], tags: Tags) -> Span:
    trace_id, span_id = _id(item["traceID"], 16), _id(item["spanID"], 8)
    references = [
        (str(r.get("refType")), _id(r["traceID"], 16), _id(r["spanID"], 8))
        for r in item.get("references") or ()
    ]
    parent = _parent(item, trace_id, references)
    failed = tags.get(ERROR) in (True, "true")
    code = STATUSES.get(str(tags.get(STATUS)), 2 if failed else 0)
    if code == 2:
        tags.pop(ERROR, None)
    start = int(item["startTime"]) * 1000
    span = Span(
        trace_id=trace_id,
        span_id=span_id,
        parent_span_id=parent,
        name=str(item.get("operationName", "")),
        kind=KINDS.get(str(tags.get(KIND)), 0),  # type: ignore[arg-type]
        start_time_unix_nano=start,
        end_time_unix_nano=start + max(0, int(item.get("duration", 0))) * 1000,
        trace_state=str(tags.get(STATE, "")),
        flags=int(item.get("flags") or 0) & 0xFF,
        status=Status(code=code, message=str(tags.get(DESCRIPTION, ""))),  # type: ignore[arg-type]
        attributes=_pairs({key: value for key, value in tags.items() if key not in FIELDS}),
        links=[
            Span.Link(trace_id=trace, span_id=of)
            for _, trace, of in references
            if (trace, of) != (trace_id, parent)
        ],
    )
    for log in item.get("logs") or ():
        fields = _tags(log.get("fields"))
        name = str(fields.pop("event", "") or fields.pop("message", "") or "log")
        span.events.add(
            name=name, time_unix_nano=int(log["timestamp"]) * 1000, attributes=_pairs(fields)
        )
    return span


def _parent(
    item: Mapping[str, Any], trace_id: bytes, references: list[tuple[str, bytes, bytes]]
) -> bytes:
    """Return the parent: the first CHILD_OF in the trace, or else the first FOLLOWS_FROM."""
    for kind in ("CHILD_OF", "FOLLOWS_FROM"):
        for ref, trace, span_id in references:
            if ref == kind and trace == trace_id:
                return span_id
    old = item.get("parentSpanID")
    return _id(old, 8) if old else b""


def _id(value: Any, size: int) -> bytes:
    """Return an id of *size* bytes. Jaeger omits leading zeros."""
    if not isinstance(value, str) or not value or len(value) > 2 * size:
        raise Malformed(f"it looks like {JAEGER}, but {value!r:.60} is not an id of {size} bytes")
    return bytes.fromhex(value.rjust(2 * size, "0"))


def _tags(tags: Any) -> Tags:
    return {str(tag["key"]): _typed(tag.get("value"), tag.get("type")) for tag in tags or ()}


def _typed(value: Any, kind: Any) -> Any:
    """Return *value* in the type *kind*: some versions write numbers as strings."""
    if not isinstance(value, str):
        return value
    if kind == "bool":
        return value == "true"
    if kind == "int64":
        return int(value)
    return float(value) if kind == "float64" else value


def _first(tags: Tags, names: tuple[str, ...]) -> str:
    return next((str(tags[name]) for name in names if name in tags), "")


def _pairs(values: Mapping[str, Any]) -> list[KeyValue]:
    return [KeyValue(key=key, value=_value(value)) for key, value in values.items()]


def _value(value: Any) -> AnyValue:
    match value:
        case bool():
            return AnyValue(bool_value=value)
        case int() if -(2**63) <= value < 2**63:
            return AnyValue(int_value=value)
        case float():
            return AnyValue(double_value=value)
        case None:
            return AnyValue()
    return AnyValue(string_value=str(value))
