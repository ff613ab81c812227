"""The store of traces: queue arriving spans, write and summarize them, and delete the oldest."""

import logging
import sqlite3
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from ..analysis.summary import Summary, summarize
from ..analysis.wait import STUCK_AFTER
from .database import Database
from .incoming import (
    MAX_TIME,
    REFUSED,
    REFUSED_LOGS,
    Incoming,
    IncomingLog,
    incoming,
    incoming_logs,
)
from .log_table import LogTable
from .read import read_trace
from .sources import SourceTable
from .stored_counts import Change, add_counts, delete_counts
from .summaries import write_summary
from .terms import TermTable

logger = logging.getLogger(__name__)

#: The most spans and bytes that wait to be written, and the longest wait for room, in seconds.
MOST_PENDING, MOST_PENDING_BYTES = 50_000, 256 * 1024 * 1024
PATIENCE = 5.0

#: The most spans written in one transaction.
BATCH = 5_000

#: The delay from the first new span of a trace to its summary, and the extra delay for each
#: span that the trace already has, in nanoseconds. So a long trace is not summarized all the time.
SETTLE, SETTLE_PER_SPAN = 500_000_000, 200_000

#: The time for summaries between two transactions that write spans, in seconds.
SUMMING = 0.1

#: The longest pause of the summaries for a page that is being read, in seconds.
LONGEST_PAUSE = 1.0

#: The tables with rows of a trace.
TABLES = ("spans", "links", "found", "waiting", "messages", "named", "attributes", "runs")

#: The most traces deleted in one step, and the interval between checks of their age, in seconds.
STEP, PRUNE_EVERY = 500, 10.0


@dataclass(frozen=True, slots=True)
class Bounds:
    """The most stored spans, and the highest age of a trace in seconds since its first arrival.

    The same limits apply to log records.
    """

    max_spans: int = 1_000_000
    max_age: float = 7 * 86_400


#: Called with each new summary, in the writing thread.
Listener = Callable[[Summary], None]


class Store:
    """Stores arriving spans and log records in *database*, within *bounds*.

    A message is stuck if it has been due for *stuck_after_ns* and no worker has taken it.
    """

    def __init__(
        self,
        database: Database,
        bounds: Bounds | None = None,
        stuck_after_ns: int = STUCK_AFTER,
    ) -> None:
        self.database = database
        self.bounds = bounds or Bounds()
        self.stuck_after_ns = stuck_after_ns
        self.received = 0
        self.dropped = 0
        self._listeners: list[Listener] = []
        self._changed = threading.Condition()
        self._pending: deque[Incoming | IncomingLog] = deque()
        self._pending_bytes = 0
        self._taken = 0  # all spans ever queued; _writing: those in the current transaction
        self._writing = 0
        self._failing = ""
        self._closing = False
        self._is_behind = False  # whether due traces are left over
        self._readers = 0
        self._pause = LONGEST_PAUSE  # how long summaries may still wait for readers
        self._sources = SourceTable()
        self._terms = TermTable()
        self._next_prune = 0.0
        with database.reading() as db:
            (self.spans,) = db.execute("SELECT count(*) FROM spans").fetchone()
            (self.traces,) = db.execute("SELECT count(*) FROM traces").fetchone()
            self._logs = LogTable(db, self._sources, self.bounds.max_spans, self.bounds.max_age)
        self._thread = threading.Thread(target=self._run, name="store")
        self._thread.start()

    def listen(self, listener: Listener) -> None:
        """Call *listener* with each new summary. It must return quickly."""
        self._listeners.append(listener)

    def close(self) -> None:
        """Write the pending spans and stop."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join()
        self.database.close()

    @property
    def failing(self) -> str:
        """The reason why writes fail at the moment, or ``""``."""
        return self._failing

    def pending(self) -> int:
        """Return the number of spans to write plus that of traces to summarize."""
        query = "SELECT count(*) FROM traces WHERE revisit_ns <= ?"
        with self.database.reading() as db:
            (traces,) = db.execute(query, (time.time_ns() + SETTLE,)).fetchone()
        return len(self._pending) + int(traces)

    def wait_until_written(self, timeout: float) -> str:
        """Wait until all spans queued so far are written. Return the error, or ``""``.

        After *timeout* seconds, return ``""`` although the write continues.
        """
        with self._changed:
            taken = self._taken

            def is_over() -> bool:
                written = self._taken - len(self._pending) - self._writing
                return bool(self._failing) or written >= taken

            self._changed.wait_for(is_over, timeout)
            return self._failing

    def size(self) -> int:
        """Return the size of the database in bytes."""
        with self.database.reading() as db:
            (pages,) = db.execute("PRAGMA page_count").fetchone()
            (size,) = db.execute("PRAGMA page_size").fetchone()
        return int(pages * size)

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Read for a page. The summaries of arriving traces wait meanwhile."""
        with self.database.reading() as db:
            with self._changed:
                self._readers += 1
            try:
                yield db
            finally:
                with self._changed:
                    self._readers -= 1
                    self._changed.notify_all()

    # In

    def take(self, request: ExportTraceServiceRequest) -> tuple[int, str]:
        """Queue an export. Return the number of refused spans, and the reason."""
        spans, malformed = incoming(request)
        reason = REFUSED
        refused = malformed
        if unwritten := self._enqueue(spans):
            refused += unwritten
            reason = self._failing or "more spans arrive than can be written"
        with self._changed:
            self.received += len(spans) + malformed
            self.dropped += refused
        return refused, reason

    @property
    def logs(self) -> int:
        """The number of stored log records."""
        return self._logs.count

    def take_logs(self, request: ExportLogsServiceRequest) -> tuple[int, str]:
        """Queue an export. Return the number of refused log records, and the reason."""
        logs, refused = incoming_logs(request)
        if unwritten := self._enqueue(logs):
            return (
                refused + unwritten,
                self._failing or "more log records arrive than can be written",
            )
        return refused, REFUSED_LOGS

    def _enqueue(self, items: Sequence[Incoming | IncomingLog]) -> int:
        """Queue *items* to be written. Return the number that found no room in time.

        A large export is queued in parts and uses only half of the room, so that small ones do not
        wait for it.
        """
        share = 1 if len(items) <= BATCH else 2
        for at in range(0, len(items), BATCH):
            if not self._enqueue_part(items[at : at + BATCH], share):
                return len(items) - at
        return 0

    def _enqueue_part(self, spans: Sequence[Incoming | IncomingLog], share: int) -> bool:
        size = sum(len(span.body) for span in spans)

        def has_room() -> bool:
            return not self._pending or (
                len(self._pending) + len(spans) <= MOST_PENDING // share
                and self._pending_bytes + size <= MOST_PENDING_BYTES // share
            )

        with self._changed:
            if self._failing or self._closing or not self._changed.wait_for(has_room, PATIENCE):
                return False
            self._pending.extend(spans)
            self._taken += len(spans)
            self._pending_bytes += size
            self._changed.notify_all()
            return True

    # The thread that writes

    def _run(self) -> None:
        while True:
            with self._changed:
                pause = 0.0 if self._is_behind else 0.1
                self._changed.wait_for(lambda: self._pending or self._closing, pause)
                count = min(BATCH, len(self._pending))
                batch = [self._pending.popleft() for _ in range(count)]
                self._pending_bytes -= sum(len(span.body) for span in batch)
                self._writing = count
                self._changed.notify_all()
                if self._closing and not batch:
                    return
            try:
                self.database.check()
                if self._failing:
                    self.database.write_one_page()
                self._step(batch)
                self._failing = ""
            except sqlite3.Error as exc:
                self._fail(exc)
            except Exception:
                logger.exception("the viewer cannot summarize a trace")

    def _fail(self, exc: sqlite3.Error) -> None:
        if not self._failing:
            logger.error("cannot write to %s: %s", self.database.path, exc)
        self._terms.forget()
        self._sources.forget()
        with self._changed:
            self._failing = f"cannot write to the database: {exc}"
            self._changed.notify_all()
            self.dropped += self._writing
            self._changed.wait_for(lambda: self._closing, 1.0)

    def _step(self, batch: list[Incoming | IncomingLog]) -> None:
        if batch:
            with self.database.writing() as db:
                spans, traces = self._write(db, [b for b in batch if isinstance(b, Incoming)])
                logs = self._write_logs(db, [b for b in batch if isinstance(b, IncomingLog)])
            self.spans += spans
            self.traces += traces
            self._logs.count += logs
            with self._changed:
                self._writing = 0
                self._changed.notify_all()
        self._sum_up()
        is_full = self.spans > self.bounds.max_spans or self._logs.is_full
        if is_full or time.monotonic() >= self._next_prune:
            self._prune()

    def _write(self, db: sqlite3.Connection, batch: list[Incoming]) -> tuple[int, int]:
        """Write *batch*. Return the number of new spans and of new traces."""
        now = time.time_ns()
        arrived = dict.fromkeys(span.trace_id for span in batch)
        touched = {trace_id: self._touch(db, trace_id, now) for trace_id in arrived}
        traces = {trace_id: number for trace_id, (number, _) in touched.items()}
        self._logs.note_traces(
            db, (trace_id for trace_id, (_, is_new) in touched.items() if is_new)
        )
        source = self._sources.number_of
        rows = [(traces[s.trace_id], s.span_id, source(db, s.source), s.body) for s in batch]
        new = db.executemany("INSERT OR IGNORE INTO spans VALUES (?, ?, ?, ?)", rows).rowcount
        self._sources.note(db, "newest_trace", ((row[0], row[2]) for row in rows))
        for span in batch:
            for target_trace, target_span in span.foreign:
                db.execute(
                    "INSERT OR IGNORE INTO links VALUES (?, ?, ?, ?, ?)",
                    (target_trace, target_span, traces[span.trace_id], span.span_id, span.is_taker),
                )
                if span.is_taker:
                    db.execute(
                        "UPDATE traces SET revisit_ns = min(coalesce(revisit_ns, :due), :due) "
                        "WHERE trace_id = :trace_id",
                        {"due": now + SETTLE, "trace_id": target_trace},
                    )
        return new, sum(is_new for _, is_new in touched.values())

    def _write_logs(self, db: sqlite3.Connection, logs: list[IncomingLog]) -> int:
        """Write *logs* and schedule summaries of their traces. Return the number of new records."""
        if not logs:
            return 0
        due = time.time_ns() + SETTLE
        db.executemany(
            "UPDATE traces SET revisit_ns = min(coalesce(revisit_ns, :due), :due) "
            "WHERE trace_id = :trace_id",
            [{"due": due, "trace_id": trace_id} for trace_id in {log.trace_id for log in logs}],
        )
        return self._logs.write(db, logs)

    def _touch(self, db: sqlite3.Connection, trace_id: bytes, now: int) -> tuple[int, int]:
        """Schedule a summary of the trace. Return its number, and whether it is new."""
        number, is_new = db.execute(
            "INSERT INTO traces (trace_id, arrived_ns, seen_ns, revisit_ns) "
            "VALUES (:trace_id, :now, :now, :due) ON CONFLICT (trace_id) DO UPDATE SET "
            "seen_ns = :now, "
            "revisit_ns = min(coalesce(revisit_ns, :never), :due + spans * :each) "
            "RETURNING id, arrived_ns = :now",
            {
                "trace_id": trace_id,
                "now": now,
                "due": now + SETTLE,
                "never": MAX_TIME,
                "each": SETTLE_PER_SPAN,
            },
        ).fetchone()
        return int(number), int(is_new)

    # Summarizing

    def _sum_up(self) -> None:
        """Summarize the traces that are due, as many as fit into the time."""
        until = time.monotonic() + SUMMING
        with self.database.reading() as db:
            due = db.execute(
                "SELECT id FROM traces WHERE revisit_ns <= ? ORDER BY revisit_ns LIMIT 500",
                (time.time_ns(),),
            ).fetchall()
        self._is_behind = False
        if not due:
            return
        summaries = []
        changes: Counter[Change] = Counter()
        with self.database.writing() as db:
            for (number,) in due:
                until += self._let_readers_go_first()
                began = time.monotonic()
                summaries.append(self._sum_up_one(db, number, changes))
                now = time.monotonic()
                self._pause = min(self._pause + now - began, LONGEST_PAUSE)
                if now >= until:
                    self._is_behind = True
                    break
            add_counts(db, changes)
        for summary in filter(None, summaries):
            for listener in self._listeners:
                listener(summary)

    def _let_readers_go_first(self) -> float:
        """Wait while pages are read, in all at most as long as summarizing takes.

        Both run Python, so a page would take twice as long beside it. Return the seconds waited.
        """
        if not self._readers:
            return 0.0
        began = time.monotonic()
        with self._changed:
            self._changed.wait_for(lambda: not self._readers or self._closing, self._pause)
        waited = time.monotonic() - began
        self._pause = max(0.0, self._pause - waited)
        return waited

    def _sum_up_one(
        self, db: sqlite3.Connection, number: int, changes: Counter[Change]
    ) -> Summary | None:
        db.execute("UPDATE traces SET revisit_ns = NULL WHERE id = ?", (number,))
        try:
            trace = read_trace(db, number, time.time_ns(), self.stuck_after_ns)
            summary = summarize(trace)
        except (ArithmeticError, LookupError, TypeError, ValueError):
            # A malformed trace must not block the summaries of all others.
            logger.exception("the viewer cannot summarize a trace")
            return None
        max_age = self.bounds.max_age
        changes.update(write_summary(db, number, trace, summary, self._terms, max_age))
        return summary

    # Out

    def _prune(self) -> None:
        """Delete the traces and log records beyond the limits, oldest first, in a small step."""
        oldest = time.time_ns() - int(self.bounds.max_age * 1e9)
        gone, size, count = 0, 0, 0
        with self.database.writing() as db:
            for number, arrived, spans in db.execute(
                "SELECT id, arrived_ns, (SELECT count(*) FROM spans WHERE trace = traces.id) "
                "FROM traces ORDER BY id LIMIT ?",
                (STEP,),
            ):
                if arrived >= oldest and self.spans - size <= self.bounds.max_spans:
                    break
                gone, size = number, size + spans
            if gone:
                count = self._delete(db, gone)
            logs = self._logs.prune(db)
            if gone or logs:
                self._sources.prune(db)
        self.spans -= size
        self.traces -= count
        self._logs.count -= logs
        if not gone and not logs:
            self._next_prune = time.monotonic() + min(PRUNE_EVERY, self.bounds.max_age)
            with self.database.writing() as db:
                delete_counts(db, oldest)
                self._terms.prune(db)

    def _delete(self, db: sqlite3.Connection, last: int) -> int:
        self._logs.forget_traces(db, last)
        for table in TABLES:
            db.execute(f"DELETE FROM {table} WHERE trace <= ?", (last,))
        return db.execute("DELETE FROM traces WHERE id <= ?", (last,)).rowcount
