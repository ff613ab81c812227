"""Exports of traces, as on the wire."""

from collections.abc import Iterable, Mapping
from typing import Any

from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

from telemetry.otlp.decode import ReceivedSpan

KINDS = {"INTERNAL": 1, "SERVER": 2, "CLIENT": 3, "PRODUCER": 4, "CONSUMER": 5}
STATUSES = {"UNSET": 0, "OK": 1, "ERROR": 2}

#: The tests use short ids. On the wire, they have the length that OTLP requires.
SPAN_ID, TRACE_ID = 8, 16


def export(spans: Iterable[ReceivedSpan]) -> ExportTraceServiceRequest:
    """Return *spans* as one export, each with a resource of its own."""
    return ExportTraceServiceRequest(
        resource_spans=[
            ResourceSpans(
                resource={"attributes": pairs(span.resource)},
                scope_spans=[ScopeSpans(scope={"name": span.scope}, spans=[message(span)])],
            )
            for span in spans
        ]
    )


def span_id(name: str) -> bytes:
    """Return the id on the wire of the span *name*."""
    return name.encode().rjust(SPAN_ID, b"_") if name else b""


def shown(name: str) -> str:
    """Return the id in the API of the span *name*."""
    return span_id(name).hex()


def message(span: ReceivedSpan) -> Span:
    return Span(
        trace_id=bytes.fromhex(span.trace_id),
        span_id=span_id(span.span_id),
        parent_span_id=span_id(span.parent_id),
        name=span.name,
        kind=KINDS[span.kind],
        start_time_unix_nano=span.start_ns,
        end_time_unix_nano=span.end_ns,
        attributes=pairs(span.attributes),
        status=Status(code=STATUSES[span.status], message=span.status_message),
        flags=span.flags,
        trace_state=span.trace_state,
        events=[
            Span.Event(name=e.name, time_unix_nano=e.time_ns, attributes=pairs(e.attributes))
            for e in span.events
        ],
        links=[
            Span.Link(trace_id=bytes.fromhex(link.trace_id), span_id=span_id(link.span_id))
            for link in span.links
        ],
    )


def pairs(attributes: Mapping[str, Any]) -> list[KeyValue]:
    return [KeyValue(key=key, value=value_of(value)) for key, value in attributes.items()]


def value_of(value: Any) -> AnyValue:
    match value:
        case bool():
            return AnyValue(bool_value=value)
        case int():
            return AnyValue(int_value=value)
        case float():
            return AnyValue(double_value=value)
        case bytes():
            return AnyValue(bytes_value=value)
        case list():
            return AnyValue(array_value=ArrayValue(values=[value_of(item) for item in value]))
        case _:
            return AnyValue(string_value=value)


def as_json(request: ExportTraceServiceRequest) -> dict[str, Any]:
    """Return OTLP/JSON, without the viewer's own encoder."""
    document: dict[str, Any] = json_format.MessageToDict(request, use_integers_for_enums=True)
    found = (s for r in document["resourceSpans"] for c in r["scopeSpans"] for s in c["spans"])
    sent = (s for r in request.resource_spans for c in r.scope_spans for s in c.spans)
    for written, span in zip(found, sent, strict=True):
        written["traceId"], written["spanId"] = span.trace_id.hex(), span.span_id.hex()
        if span.parent_span_id:
            written["parentSpanId"] = span.parent_span_id.hex()
        for into, link in zip(written.get("links", ()), span.links, strict=True):
            into["traceId"], into["spanId"] = link.trace_id.hex(), link.span_id.hex()
    return document
