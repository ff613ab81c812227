"""Traces read back from the database."""

import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Iterator

from opentelemetry.proto.trace.v1 import trace_pb2

from ...otlp.decode import Attributes, ReceivedSpan, decode_attributes, decode_span
from ..analysis.hops import Elsewhere, Trace
from ..analysis.messaging import role_of
from ..analysis.wait import STUCK_AFTER

__all__ = [
    "MOST_SPANS",
    "count_spans",
    "linked_from",
    "matching",
    "number_of",
    "read_spans",
    "read_trace",
    "spans_with",
    "stored_spans",
]

#: More spans of one trace than this are kept but not looked at together.
MOST_SPANS = 50_000

#: Spans of other traces that are read for one.
MOST_ELSEWHERE = 500


def number_of(db: sqlite3.Connection, trace_id: str) -> int | None:
    """Return the number of a trace from its whole id, or None if it is not here."""
    try:
        raw = bytes.fromhex(trace_id)
    except ValueError:
        return None
    found = db.execute("SELECT id FROM traces WHERE trace_id = ?", (raw,)).fetchone()
    return int(found[0]) if found else None


def count_spans(db: sqlite3.Connection, number: int) -> int:
    """Return how many spans a trace has here."""
    query = "SELECT count(*) FROM spans WHERE trace = ?"
    return int(db.execute(query, (number,)).fetchone()[0])


def stored_spans(
    db: sqlite3.Connection, number: int, span_id: bytes | None = None, most: int = -1
) -> Iterator[tuple[bytes, trace_pb2.Span]]:
    """Yield the spans of a trace, or the one named, each with its source; *most* if not -1."""
    one = "" if span_id is None else "AND span_id = :span_id"
    rows = db.execute(
        f"SELECT sources.body, spans.body FROM spans JOIN sources ON sources.id = source "
        f"WHERE trace = :trace {one} LIMIT {most}",
        {"trace": number, "span_id": span_id},
    )
    for source, body in rows:
        yield source, trace_pb2.Span.FromString(body)


def read_spans(
    db: sqlite3.Connection, number: int, span_id: bytes | None = None
) -> Iterable[ReceivedSpan]:
    """Return the spans of a trace, or the one named, in plain Python."""
    return list(decoded(stored_spans(db, number, span_id, MOST_SPANS)))


def decoded(stored: Iterable[tuple[bytes, trace_pb2.Span]]) -> Iterator[ReceivedSpan]:
    """Yield spans in plain Python, from those stored and their sources."""
    sources: dict[bytes, tuple[Attributes, str]] = {}
    for body, span in stored:
        if body not in sources:
            source = trace_pb2.ResourceSpans.FromString(body)
            resource = decode_attributes(source.resource.attributes)
            sources[body] = resource, source.scope_spans[0].scope.name
        yield decode_span(span, *sources[body])


def spans_with(db: sqlite3.Connection, number: int, text: str) -> Iterator[ReceivedSpan]:
    """Yield the spans of a trace that have *text* somewhere, or whose resource has."""
    rows = db.execute(
        "SELECT sources.body, spans.body FROM spans JOIN sources ON sources.id = source "
        "WHERE trace = ? AND (instr(spans.body, ?) OR instr(sources.body, ?))",
        (number, text.encode(errors="replace"), text.encode(errors="replace")),
    )
    yield from decoded((source, trace_pb2.Span.FromString(body)) for source, body in rows)


def matching(db: sqlite3.Connection, number: int, text: str) -> list[str]:
    """Return the ids of the spans of a trace that have *text* in an attribute, in any case.

    Those of the span, of its events and of its resource count, each as ``key=value``.
    """
    wanted = text.lower()

    def holds(attributes: Attributes) -> bool:
        return any(wanted in f"{key}={value}".lower() for key, value in attributes.items())

    return [
        span.span_id
        for span in read_spans(db, number)
        if holds(span.attributes)
        or holds(span.resource)
        or any(holds(event.attributes) for event in span.events)
    ]


def read_trace(
    db: sqlite3.Connection, number: int, now_ns: int, stuck_after_ns: int = STUCK_AFTER
) -> Trace:
    """Return a trace as it is known at *now_ns*."""
    trace_id, seen = db.execute(
        "SELECT trace_id, seen_ns FROM traces WHERE id = ?", (number,)
    ).fetchone()
    spans = read_spans(db, number)
    sends = {
        link.span_id: send
        for span in spans
        for link in span.links
        if link.trace_id != span.trace_id and role_of(span) == "run"
        for send in _other(db, link.trace_id, link.span_id)
    }
    elsewhere = Elsewhere(_runs_elsewhere(db, trace_id), sends)
    return Trace(spans, now_ns, seen, elsewhere, stuck_after_ns)


def _runs_elsewhere(db: sqlite3.Connection, trace_id: bytes) -> dict[str, list[ReceivedSpan]]:
    """Return the runs in other traces that link to spans of this one, by the span's id."""
    found: dict[str, list[ReceivedSpan]] = defaultdict(list)
    rows = db.execute(
        "SELECT target_span, trace, span_id FROM links WHERE target_trace = ? AND is_run",
        (trace_id,),
    ).fetchall()
    for at, (target, trace, span_id) in enumerate(rows):
        # That a message was taken is always known; what took it, of so many.
        runs = read_spans(db, trace, span_id) if at < MOST_ELSEWHERE else ()
        found[target.hex()] += runs
    return found


def linked_from(db: sqlite3.Connection, trace_id: str, span_id: str) -> Iterator[ReceivedSpan]:
    """Yield the spans of other traces that link to this span."""
    rows = db.execute(
        "SELECT trace, span_id FROM links WHERE target_trace = ? AND target_span = ? LIMIT ?",
        (bytes.fromhex(trace_id), bytes.fromhex(span_id), MOST_ELSEWHERE),
    ).fetchall()
    for trace, other in rows:
        yield from read_spans(db, trace, other)


def _other(db: sqlite3.Connection, trace_id: str, span_id: str) -> Iterable[ReceivedSpan]:
    number = number_of(db, trace_id)
    return () if number is None else read_spans(db, number, bytes.fromhex(span_id))
