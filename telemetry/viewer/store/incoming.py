"""Split an export into the rows to store: a span or log record, its resource and its scope."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from google.protobuf.message import Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from ...otlp.decode import decode_log, decode_span
from ...otlp.signals import SIGNALS
from ..analysis.messaging import is_taker

#: The largest span or log record that is stored, in bytes.
LARGEST = 1024 * 1024

#: The most bytes of resources and scopes in an export. Each scope has a copy of its resource.
MOST_SOURCES = 64 * 1024 * 1024

#: The latest time that is stored, in Unix nanoseconds: SQLite's largest integer, in the year 2262.
MAX_TIME = 2**63 - 1

#: The searched characters of a log record.
SEARCHED = 2_000

#: The limits for a span and for a log record, for the partial_success of an export.
REFUSED = (
    "a span needs a trace id of 16 bytes and a span id of 8 bytes that are not zero, times before "
    "the year 2262, and at most 1 MiB; the resources of an export, one for each scope, have at "
    "most 64 MiB"
)
REFUSED_LOGS = (
    "a log record needs a trace id of 16 bytes and a span id of 8 bytes, or neither, a time before "
    "the year 2262, and at most 1 MiB; the resources of an export, one for each scope, have at "
    "most 64 MiB"
)


@dataclass(frozen=True, slots=True)
class Incoming:
    """A span to store. *source* is its resource and scope, *foreign* its links to other traces.

    Both are protobuf: *body* a Span, *source* ResourceSpans without spans.
    """

    trace_id: bytes
    span_id: bytes
    source: bytes
    body: bytes
    foreign: tuple[tuple[bytes, bytes], ...]
    is_taker: bool


@dataclass(frozen=True, slots=True)
class IncomingLog:
    """A log record to store. *source* is its resource and scope, *body* a LogRecord.

    *time_ns* is 0 if it has no time. A search reads *text*.
    """

    trace_id: bytes
    span_id: bytes
    time_ns: int
    severity: int
    source: bytes
    body: bytes
    text: str


Item = TypeVar("Item", Span, LogRecord)
Stored = TypeVar("Stored")


def incoming(request: ExportTraceServiceRequest) -> tuple[list[Incoming], int]:
    """Return the spans of *request* to store, and the number of those refused."""
    return _walk(request, _is_sound, _span)


def incoming_logs(request: ExportLogsServiceRequest) -> tuple[list[IncomingLog], int]:
    """Return the log records of *request* to store, and the number of those refused."""
    return _walk(request, _is_sound_log, _log)


def _walk(
    request: Message,
    is_sound: Callable[[Item], bool],
    make: Callable[[Item, bytes, bytes], Stored],
) -> tuple[list[Stored], int]:
    """Return the result of *make* for each valid item, and the number of invalid ones.

    *make* gets the item, its source and its bytes.
    """
    signal = SIGNALS[type(request)]
    found: list[Stored] = []
    count = 0
    room = MOST_SOURCES
    for resource in getattr(request, signal.resources):
        for scope in getattr(resource, signal.scopes):
            items = getattr(scope, signal.items)
            count += len(items)
            if not items or room < 0:
                continue
            bare = type(scope)(scope=scope.scope, schema_url=scope.schema_url)
            source = type(resource)(
                resource=resource.resource,
                schema_url=resource.schema_url,
                **{signal.scopes: [bare]},
            ).SerializeToString(deterministic=True)
            room -= len(source)
            for item in items:
                body = item.SerializeToString()
                if is_sound(item) and len(body) <= LARGEST:
                    found.append(make(item, source, body))
    return found, count - len(found)


def _is_sound(span: Span) -> bool:
    return (
        len(span.trace_id) == 16
        and len(span.span_id) == 8
        and any(span.trace_id)
        and any(span.span_id)
        and span.start_time_unix_nano <= MAX_TIME
        and span.end_time_unix_nano <= MAX_TIME
    )


def _span(span: Span, source: bytes, body: bytes) -> Incoming:
    foreign = tuple(
        (link.trace_id, link.span_id)
        for link in span.links
        if link.trace_id != span.trace_id and len(link.trace_id) == 16 and len(link.span_id) == 8
    )
    takes = bool(foreign) and is_taker(decode_span(span, {}, ""))
    return Incoming(span.trace_id, span.span_id, source, body, foreign, takes)


def _is_sound_log(log: LogRecord) -> bool:
    return (
        len(log.trace_id) in (0, 16)
        and len(log.span_id) in (0, 8)
        and (log.time_unix_nano or log.observed_time_unix_nano) <= MAX_TIME
    )


def _log(log: LogRecord, source: bytes, body: bytes) -> IncomingLog:
    received = decode_log(log, {}, "")
    message = received.attributes.get("exception.message", "")
    return IncomingLog(
        log.trace_id,
        log.span_id,
        received.time_ns,
        max(0, min(log.severity_number, 24)),
        source,
        body,
        # SQLite ends a text at the first NUL.
        f"{received.text}\n{message}"[:SEARCHED].casefold().replace("\0", " "),
    )
