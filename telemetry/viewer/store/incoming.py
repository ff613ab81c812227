"""What of an export is kept: each span by itself, as it came, beside its resource and scope."""

from dataclasses import dataclass

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

from ...otlp.decode import decode_span
from ..analysis.messaging import role_of

__all__ = ["LARGEST", "MAX_TIME", "MOST_SOURCES", "REFUSED", "Incoming", "incoming"]

#: A span that is larger is refused, in bytes.
LARGEST = 1024 * 1024

#: The bytes of all resources and scopes of an export, where each scope has a copy of its resource.
MOST_SOURCES = 64 * 1024 * 1024

#: The latest time that is taken, in Unix nanoseconds: what SQLite can hold, in the year 2262.
MAX_TIME = 2**63 - 1

#: Why a span is refused.
REFUSED = (
    "a span has a trace id of 16 bytes and a span id of 8 that are not zero, times before the "
    "year 2262, and 1 MiB at most; the resources of an export, one for each scope, 64 MiB"
)


@dataclass(frozen=True, slots=True)
class Incoming:
    """A span to be kept. *source* is its resource and scope, *foreign* its links to other traces.

    Both are protobuf: *body* a Span, *source* ResourceSpans without spans.
    """

    trace_id: bytes
    span_id: bytes
    source: bytes
    body: bytes
    foreign: tuple[tuple[bytes, bytes], ...]
    is_run: bool


def incoming(request: ExportTraceServiceRequest) -> tuple[list[Incoming], int]:
    """Return the spans of *request* that can be kept, and how many cannot."""
    spans, refused = [], 0
    room = MOST_SOURCES
    for resource_spans in request.resource_spans:
        for scope_spans in resource_spans.scope_spans:
            if room < 0:
                refused += len(scope_spans.spans)
                continue
            if not scope_spans.spans:
                continue
            source = ResourceSpans(
                resource=resource_spans.resource,
                schema_url=resource_spans.schema_url,
                scope_spans=[
                    ScopeSpans(scope=scope_spans.scope, schema_url=scope_spans.schema_url)
                ],
            ).SerializeToString(deterministic=True)
            room -= len(source)
            for span in scope_spans.spans:
                body = span.SerializeToString()
                if not _is_sound(span) or len(body) > LARGEST:
                    refused += 1
                    continue
                foreign = tuple(
                    (link.trace_id, link.span_id)
                    for link in span.links
                    if link.trace_id != span.trace_id
                    and len(link.trace_id) == 16
                    and len(link.span_id) == 8
                )
                is_run = bool(foreign) and role_of(decode_span(span, {}, "")) == "run"
                spans.append(Incoming(span.trace_id, span.span_id, source, body, foreign, is_run))
    return spans, refused


def _is_sound(span: Span) -> bool:
    return (
        len(span.trace_id) == 16
        and len(span.span_id) == 8
        and any(span.trace_id)
        and any(span.span_id)
        and span.start_time_unix_nano <= MAX_TIME
        and span.end_time_unix_nano <= MAX_TIME
    )
