"""Write the runs of tasks, one narrow row each, for the page of a queue."""

import sqlite3
from collections.abc import Iterable

from ..analysis.counts import Run
from ..analysis.summary import to_text
from .incoming import MAX_TIME
from .terms import TermTable


def write_runs(db: sqlite3.Connection, trace: int, runs: Iterable[Run], terms: TermTable) -> None:
    """Replace the runs of *trace*."""
    term = terms.number_of
    db.execute("DELETE FROM runs WHERE trace = ?", (trace,))
    db.executemany(
        "INSERT OR IGNORE INTO runs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (
                term(db, "flow", to_text(run.flow)),
                min(run.start_ns, MAX_TIME),
                trace,
                bytes.fromhex(run.span_id),
                None if run.wait_ns is None else min(run.wait_ns, MAX_TIME),
                min(run.prefetch_ns, MAX_TIME),
                min(run.duration_ns, MAX_TIME),
                run.outcome,
                term(db, "exception", run.failure) if run.failure else 0,
                term(db, "worker", to_text(run.worker)),
                term(db, "producer", run.producer) if run.producer else 0,
            )
            for run in runs
        ],
    )
