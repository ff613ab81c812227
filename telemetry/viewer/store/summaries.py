"""Write the summary of a trace: what the list, the search and the counts need of it."""

import sqlite3
import time
from collections import Counter

import msgspec

from ..analysis.counts import cut, name_of
from ..analysis.hops import Trace
from ..analysis.summary import Summary, to_text
from ..analysis.wait import NEVER
from .attributes import write_attributes
from .incoming import MAX_TIME
from .read import MOST_OF_A_MESSAGE
from .runs import write_runs
from .stored_counts import Change
from .terms import TermTable
from .waiting import earliest_due, write_waiting


def write_summary(
    db: sqlite3.Connection,
    number: int,
    trace: Trace,
    summary: Summary,
    terms: TermTable,
    max_age: float,
) -> Counter[Change]:
    """Replace the summary of the trace *number*. Return what it changes in the counts.

    Counts that are older than *max_age* seconds, or from the future, are left out.
    """
    counts = _countable(db, summary, terms, max_age)
    (before,) = db.execute("SELECT counted FROM traces WHERE id = ?", (number,)).fetchone()
    db.execute(
        "UPDATE traces SET row = ?, revisit_ns = ?, counted = ?, "
        "spans = (SELECT count(*) FROM spans WHERE trace = traces.id) WHERE id = ?",
        (
            to_text(summary.row),
            trace.revisit_ns,
            to_text([[*key, n] for key, n in counts.items()]),
            number,
        ),
    )
    write_waiting(db, number, summary.untaken)
    write_runs(db, number, summary.runs, terms)
    write_attributes(db, number, trace.spans)
    _write_messages(db, number, trace, summary)
    _write_terms(db, number, trace, summary, terms)
    for bucket, term, metric, n in msgspec.json.decode(before) if before else ():
        counts[bucket, term, metric] -= n
    return counts


def _countable(
    db: sqlite3.Connection, summary: Summary, terms: TermTable, max_age: float
) -> Counter[Change]:
    """Return the counts of *summary* by the numbers of terms, without impossible times."""
    now = time.time()
    return Counter(
        {
            (bucket, terms.number_of(db, key[0], to_text(key[1:])), metric): n
            for (bucket, key, metric), n in summary.counts.items()
            if now - max_age < bucket < now + 3600
        }
    )


def _write_messages(db: sqlite3.Connection, number: int, trace: Trace, summary: Summary) -> None:
    """Write the ids of the messages.

    If a new one has a run that begins this trace, other traces where it waits are summarized again.
    """
    before = db.execute("DELETE FROM messages WHERE trace = ? RETURNING message_id", (number,))
    known = {message_id for (message_id,) in before.fetchall()}
    begun = {cut(trace.message_ids[run.span_id]) for run in trace.runs if not run.parent_id}
    if new := begun & summary.message_ids - known:
        db.execute(
            "UPDATE traces SET revisit_ns = :now WHERE id IN (SELECT messages.trace "
            "FROM messages CROSS JOIN waiting ON waiting.trace = messages.trace "
            "WHERE message_id IN (SELECT value FROM json_each(:new)) LIMIT :most)",
            {
                "now": time.time_ns(),
                "new": to_text([*new]),
                "most": MOST_OF_A_MESSAGE * len(new),
            },
        )
    db.executemany(
        "INSERT OR IGNORE INTO messages VALUES (?, ?)",
        [(message_id, number) for message_id in summary.message_ids],
    )


def _write_terms(
    db: sqlite3.Connection, number: int, trace: Trace, summary: Summary, terms: TermTable
) -> None:
    """Write the names by which a search finds the trace. Those of the filters have its facts."""
    filters = [terms.number_of(db, *term) for term in summary.terms]
    flows = {key[1:] for _, key, _ in summary.counts if key[0] == "flow"}
    names = [terms.number_of(db, *term) for term in summary.names]
    names += [terms.number_of(db, "flow", to_text(flow)) for flow in flows]
    names += [terms.number_of(db, "broker", broker) for broker, _, _ in flows if broker]
    edges = {key[1:] for _, key, _ in summary.counts if key[0] == "edge"}
    names += [terms.number_of(db, "call", " → ".join(map(name_of, edge))) for edge in edges]
    db.execute("DELETE FROM named WHERE trace = ?", (number,))
    db.executemany(
        "INSERT OR IGNORE INTO named VALUES (?, ?)",
        [(term, number) for term in (*filters, *names)],
    )
    for key in summary.keys:
        terms.note_key(db, key)
    facts = (
        min(trace.start_ns, MAX_TIME),
        min(trace.duration_ns, MAX_TIME),
        min(max((wait.waited_ns for wait in trace.ended_waits), default=0), MAX_TIME),
        trace.lasting_status or "",
        earliest_due(summary.untaken),
        any(wait.expires_ns < NEVER for wait in summary.untaken),
    )
    db.execute("DELETE FROM found WHERE trace = ?", (number,))
    db.executemany(
        "INSERT OR IGNORE INTO found VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        [(term, number, *facts) for term in (0, *filters)],
    )
