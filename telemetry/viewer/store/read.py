"""Read traces from the database."""

import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import islice

from opentelemetry.proto.trace.v1.trace_pb2 import Span

from ...otlp.decode import ReceivedSpan
from ..analysis.counts import cut
from ..analysis.hops import Elsewhere, Trace
from ..analysis.messaging import is_taker, message_id_of, retries_of, role_of, task_of
from ..analysis.summary import to_text
from ..analysis.wait import STUCK_AFTER
from .span_decoding import decode_spans

#: The most spans of one trace that are analyzed. More are stored. Of a trace with more, some are
#: the ancestors of the others, so that their parents are not missing.
MOST_SPANS, MOST_ANCESTORS = 50_000, 10_000

#: The most spans of other traces that are read for one trace.
MOST_ELSEWHERE = 500

#: The most other traces that are looked at for one message id. The id of a message is its own,
#: unless somebody repeats it.
MOST_OF_A_MESSAGE = 4


def number_of(db: sqlite3.Connection, trace_id: str) -> int | None:
    """Return the number of a trace by its full id, or None if it is not stored."""
    try:
        raw = bytes.fromhex(trace_id)
    except ValueError:
        return None
    found = db.execute("SELECT id FROM traces WHERE trace_id = ?", (raw,)).fetchone()
    return int(found[0]) if found else None


def numbers_with(db: sqlite3.Connection, prefix: str, most: int) -> list[int]:
    """Return the numbers of at most *most* traces whose ids begin with *prefix*."""
    try:
        low, high = (bytes.fromhex(prefix.ljust(32, digit)) for digit in "0f")
    except ValueError:
        return []
    query = "SELECT id FROM traces WHERE trace_id BETWEEN ? AND ? LIMIT ?"
    return [number for (number,) in db.execute(query, (low, high, most))]


def count_spans(db: sqlite3.Connection, number: int) -> int:
    """Return the number of stored spans of a trace."""
    query = "SELECT count(*) FROM spans WHERE trace = ?"
    return int(db.execute(query, (number,)).fetchone()[0])


def stored_spans(db: sqlite3.Connection, number: int) -> Iterator[tuple[bytes, Span]]:
    """Yield the spans of a trace, each with its source."""
    for source, body in bodies(db, number):
        yield source, Span.FromString(body)


def bodies(
    db: sqlite3.Connection, number: int, span_id: bytes | None = None, most: int = -1
) -> Iterator[tuple[bytes, bytes]]:
    """Return the spans of a trace, or only *span_id*, as protobuf: source and span.

    *most* is a limit, or -1.
    """
    one = "" if span_id is None else "AND span_id = :span_id"
    return db.execute(
        f"SELECT sources.body, spans.body FROM spans JOIN sources ON sources.id = source "
        f"WHERE trace = :trace {one} LIMIT {most}",
        {"trace": number, "span_id": span_id},
    )


def read_spans(
    db: sqlite3.Connection, number: int, span_id: bytes | None = None
) -> list[ReceivedSpan]:
    """Return the decoded spans of a trace, or only *span_id*."""
    spans = list(decode_spans(bodies(db, number, span_id, MOST_SPANS + 1)))
    if len(spans) > MOST_SPANS:
        del spans[MOST_SPANS - MOST_ANCESTORS :]
        spans += _ancestors(db, number, spans)
    return spans


def _ancestors(
    db: sqlite3.Connection, number: int, spans: Iterable[ReceivedSpan]
) -> list[ReceivedSpan]:
    """Return the stored ancestors of *spans* that are not among them, at most MOST_ANCESTORS."""
    known = {"", *(span.span_id for span in spans)}
    found: list[ReceivedSpan] = []
    generation = list(spans)
    while generation and len(found) < MOST_ANCESTORS:
        parents = dict.fromkeys(s.parent_id for s in generation if s.parent_id not in known)
        known.update(parents)
        stored = (
            body
            for parent in islice(parents, MOST_ANCESTORS - len(found))
            for body in bodies(db, number, bytes.fromhex(parent))
        )
        generation = list(decode_spans(stored))
        found += generation
    return found


def spans_with(db: sqlite3.Connection, number: int, text: str) -> Iterator[ReceivedSpan]:
    """Yield the spans of a trace whose bytes, or whose resource's bytes, contain *text*."""
    rows = db.execute(
        "SELECT sources.body, spans.body FROM spans JOIN sources ON sources.id = source "
        "WHERE trace = ? AND (instr(spans.body, ?) OR instr(sources.body, ?))",
        (number, text.encode(errors="replace"), text.encode(errors="replace")),
    )
    yield from decode_spans(rows)


def read_trace(
    db: sqlite3.Connection, number: int, now_ns: int, stuck_after_ns: int = STUCK_AFTER
) -> Trace:
    """Return a trace as it is known at *now_ns*."""
    trace_id, seen = db.execute(
        "SELECT trace_id, seen_ns FROM traces WHERE id = ?", (number,)
    ).fetchone()
    spans = read_spans(db, number)
    linked = (
        (link.trace_id, link.span_id)
        for span in spans
        for link in span.links
        if link.trace_id != span.trace_id and is_taker(span)
    )
    sends = {send.span_id: send for send in _others(db, linked) if role_of(send) == "send"}
    runs = _runs_elsewhere(db, trace_id)
    for send, run in _runs_without_link(db, number, spans):
        runs.setdefault(send.span_id, [run])
    return Trace(spans, now_ns, seen, Elsewhere(runs, sends), stuck_after_ns)


def _runs_elsewhere(db: sqlite3.Connection, trace_id: bytes) -> dict[str, list[ReceivedSpan]]:
    """Return the runs in other traces that link to spans of this one, by the span's id."""
    found: dict[str, list[ReceivedSpan]] = defaultdict(list)
    rows = db.execute(
        "SELECT target_span, trace, span_id FROM links WHERE target_trace = ? AND is_taker",
        (trace_id,),
    ).fetchall()
    for at, (target, trace, span_id) in enumerate(rows):
        # An entry without runs still marks its message as taken.
        runs = read_spans(db, trace, span_id) if at < MOST_ELSEWHERE else ()
        found[target.hex()] += runs
    return found


def _runs_without_link(
    db: sqlite3.Connection, number: int, spans: Sequence[ReceivedSpan]
) -> Iterator[tuple[ReceivedSpan, ReceivedSpan]]:
    """Yield each send whose run, with the same task id, begins another trace.

    Its message lost the trace between the two processes.
    """
    taken = {span.parent_id for span in spans if is_taker(span)}
    waiting = (s for s in spans if s.kind == "PRODUCER" and s.span_id not in taken)
    sends = {_attempt(send): send for send in waiting if task_of(send)}
    ids = {cut(message_id) for message_id, _, _ in sends if message_id}
    rows = db.execute(  # of each trace the first run: min() determines the row of span_id
        "SELECT trace, span_id, min(start_ns) FROM runs WHERE trace IN (SELECT trace FROM messages "
        "WHERE message_id IN (SELECT value FROM json_each(:ids)) AND trace <> :trace LIMIT :most) "
        "GROUP BY trace",
        {
            "ids": to_text([*ids]),
            "trace": number,
            "most": min(MOST_OF_A_MESSAGE * len(ids), MOST_ELSEWHERE),
        },
    ).fetchall()
    for trace, span_id, _ in rows:
        for run in read_spans(db, trace, span_id):
            if not run.parent_id and (send := sends.get(_attempt(run))):
                yield send, run


def _attempt(span: ReceivedSpan) -> tuple[str, str, int]:
    return message_id_of(span), task_of(span), retries_of(span)


def linked_from(db: sqlite3.Connection, trace_id: str, span_id: str) -> Iterator[ReceivedSpan]:
    """Yield the spans of other traces that link to this span."""
    rows = db.execute(
        "SELECT trace, span_id FROM links WHERE target_trace = ? AND target_span = ? LIMIT ?",
        (bytes.fromhex(trace_id), bytes.fromhex(span_id), MOST_ELSEWHERE),
    ).fetchall()
    for trace, other in rows:
        yield from read_spans(db, trace, other)


def _others(db: sqlite3.Connection, ids: Iterable[tuple[str, str]]) -> Iterator[ReceivedSpan]:
    """Yield the spans of other traces with these trace and span ids, as far as they are here."""
    number = cache(lambda trace_id: number_of(db, trace_id))
    known = ((number(trace_id), span_id) for trace_id, span_id in ids)
    yield from decode_spans(
        stored
        for trace, span_id in known
        if trace is not None
        for stored in bodies(db, trace, bytes.fromhex(span_id))
    )
