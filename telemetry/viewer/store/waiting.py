"""The messages that no worker has taken. They are written with their trace.

Their state is not stored: a query derives it from the time.
"""

import sqlite3
from collections.abc import Iterable

from ..analysis.counts import cut
from ..analysis.messaging import broker_of, task_of
from ..analysis.wait import NEVER, LiveState, Wait

#: The condition of a message that a worker could take now: due and not expired. All conditions use
#: the parameters of ``times``.
BACKLOG = "due_ns <= :now AND expires_ns > :now"

#: The condition of each state, the most urgent first. An overdue or stuck message is waiting too.
STATES: dict[LiveState, str] = {
    "stuck": f"{BACKLOG} AND knows AND due_ns <= :stuck",
    "expired": "expires_ns <= :now",
    "overdue": f"{BACKLOG} AND due_ns > sent_ns",
    "waiting": BACKLOG,
    "scheduled": "due_ns > :now AND expires_ns > :now",
}

_WHENS = " ".join(f"WHEN {test} THEN '{state}'" for state, test in STATES.items())

#: The most urgent state of a row.
STATE = f"CASE {_WHENS} END"


def times(now_ns: int, stuck_after_ns: int) -> dict[str, int]:
    """Return the parameters of the conditions."""
    return {"now": now_ns, "stuck": now_ns - stuck_after_ns}


def write_waiting(db: sqlite3.Connection, trace: int, waits: Iterable[Wait]) -> None:
    """Replace the messages of *trace* that no worker has taken."""
    db.execute("DELETE FROM waiting WHERE trace = ?", (trace,))
    db.executemany(
        "INSERT OR IGNORE INTO waiting VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (
                trace,
                bytes.fromhex(wait.of.span_id),
                *map(cut, (broker_of(wait.of), wait.queue, task_of(wait.of))),  # as in the counts
                min(wait.start_ns - (wait.skew_ns or 0), NEVER),  # by the viewer's clock
                wait.due_ns,
                wait.expires_ns,
                wait.knows,
            )
            for wait in waits
        ],
    )


def earliest_due(waits: Iterable[Wait]) -> int:
    """Return the earliest due time of *waits* without an expiry, or NEVER."""
    return min((wait.due_ns for wait in waits if wait.expires_ns == NEVER), default=NEVER)
