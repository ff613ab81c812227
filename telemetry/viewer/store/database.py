"""The viewer's SQLite database: its schema, one connection to write and several to read."""

import os
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import msgspec

from ...config.settings import state_directory
from . import log_table, sources

MEMORY = ":memory:"

#: The version of the schema. Databases of other versions are not read.
VERSION = 9

#: The most idle connections that stay open.
IDLE_READERS = 8

SCHEMA = """
-- Ids are in the order of arrival. Times are Unix nanoseconds. revisit_ns: when to summarize again.
CREATE TABLE traces (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    trace_id BLOB NOT NULL UNIQUE,
    arrived_ns INTEGER NOT NULL,
    seen_ns INTEGER NOT NULL,
    revisit_ns INTEGER,
    spans INTEGER NOT NULL DEFAULT 0,
    counted TEXT,   -- JSON: what this trace adds to the counts
    row TEXT        -- JSON: its row in the list
);
CREATE INDEX traces_revisit ON traces (revisit_ns) WHERE revisit_ns IS NOT NULL;

-- The messages that no worker has taken. waiting.py derives their states from the time. expires_ns
-- is the largest integer if there is no expiry. knows: whether the producer records countdowns, so
-- that a message without one is due.
CREATE TABLE waiting (
    trace INTEGER NOT NULL,
    span_id BLOB NOT NULL,
    broker TEXT NOT NULL,
    queue TEXT NOT NULL,
    task TEXT NOT NULL,
    sent_ns INTEGER NOT NULL,
    due_ns INTEGER NOT NULL,
    expires_ns INTEGER NOT NULL,
    knows INTEGER NOT NULL,
    PRIMARY KEY (trace, span_id)
) WITHOUT ROWID;
CREATE INDEX waiting_queue
    ON waiting (queue, task, broker, due_ns, sent_ns, expires_ns, knows);

CREATE TABLE spans (
    trace INTEGER NOT NULL,
    span_id BLOB NOT NULL,
    source INTEGER NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (trace, span_id)
) WITHOUT ROWID;

-- Links from one trace into another.
CREATE TABLE links (
    target_trace BLOB NOT NULL,
    target_span BLOB NOT NULL,
    trace INTEGER NOT NULL,
    span_id BLOB NOT NULL,
    is_taker INTEGER NOT NULL,
    PRIMARY KEY (target_trace, target_span, trace, span_id)
) WITHOUT ROWID;
CREATE INDEX links_trace ON links (trace);

-- The runs of tasks, for a queue's page. flow, failure, worker and producer are terms, 0 for none.
-- wait_ns is NULL if it is unknown. outcome is a metric of analysis/counts.py, or 0.
CREATE TABLE runs (
    flow INTEGER NOT NULL,
    start_ns INTEGER NOT NULL,
    trace INTEGER NOT NULL,
    span_id BLOB NOT NULL,
    wait_ns INTEGER,
    prefetch_ns INTEGER NOT NULL,
    duration_ns INTEGER NOT NULL,
    outcome INTEGER NOT NULL,
    failure INTEGER NOT NULL,
    worker INTEGER NOT NULL,
    producer INTEGER NOT NULL,
    PRIMARY KEY (flow, start_ns, trace, span_id)
) WITHOUT ROWID;
CREATE INDEX runs_trace ON runs (trace);
CREATE INDEX runs_failed ON runs (flow, start_ns, failure) WHERE failure <> 0;

-- Spans by their id, and messages by theirs. For Celery, that is the task id.
CREATE INDEX spans_id ON spans (span_id);
CREATE TABLE messages (
    message_id TEXT NOT NULL,
    trace INTEGER NOT NULL,
    PRIMARY KEY (message_id, trace)
) WITHOUT ROWID;
CREATE INDEX messages_trace ON messages (trace);

CREATE TABLE terms (
    id INTEGER PRIMARY KEY, kind TEXT NOT NULL, value TEXT NOT NULL, UNIQUE (kind, value)
);

-- A search reads these narrow rows, by term and start. Every trace has the term 0. duration_ns,
-- wait_ns (the longest of its messages) and status are those of the last summary. Their current
-- values follow from due_ns, the earliest of the waiting messages without an expiry (the largest
-- integer if there is none), and from expiring, whether waiting messages have an expiry. status is
-- '' if it depends on the time.
CREATE TABLE found (
    term INTEGER NOT NULL,
    trace INTEGER NOT NULL,
    start_ns INTEGER NOT NULL,
    duration_ns INTEGER NOT NULL,
    wait_ns INTEGER NOT NULL,
    status TEXT NOT NULL,
    due_ns INTEGER NOT NULL,
    expiring INTEGER NOT NULL,
    PRIMARY KEY (term, start_ns, trace)
) WITHOUT ROWID;
CREATE INDEX found_trace ON found (trace, term);
-- The other sort orders of the list, and the traces that depend on the time. An index that a search
-- may read whole has all columns: a look-up of each row would take several times as long.
CREATE INDEX found_received ON found (trace) WHERE term = 0;
CREATE INDEX found_wait ON found (wait_ns, trace, duration_ns, status, due_ns, expiring)
    WHERE term = 0;
CREATE INDEX found_duration ON found (duration_ns, trace, wait_ns, status, due_ns, expiring)
    WHERE term = 0;
CREATE INDEX found_live ON found (term, trace, duration_ns, wait_ns, status, due_ns, expiring)
    WHERE due_ns < 9223372036854775807 OR expiring;

-- The terms of each trace. Beyond those of found, names of spans, states of runs, and exceptions.
CREATE TABLE named (
    term INTEGER NOT NULL, trace INTEGER NOT NULL, PRIMARY KEY (term, trace)
) WITHOUT ROWID;
CREATE INDEX named_trace ON named (trace);

-- The attributes that a trace may have; see attributes.py.
CREATE TABLE attributes (
    trace INTEGER PRIMARY KEY,
    w0 INTEGER, w1 INTEGER, w2 INTEGER, w3 INTEGER, w4 INTEGER, w5 INTEGER, w6 INTEGER, w7 INTEGER,
    w8 INTEGER, w9 INTEGER, w10 INTEGER, w11 INTEGER, w12 INTEGER, w13 INTEGER, w14 INTEGER,
    w15 INTEGER
);

-- The counts of each metric of a term, by bucket; see queues.py.
CREATE TABLE counts (
    resolution INTEGER NOT NULL,
    bucket INTEGER NOT NULL,
    term INTEGER NOT NULL,
    metric INTEGER NOT NULL,
    n INTEGER NOT NULL,
    PRIMARY KEY (resolution, bucket, term, metric)
) WITHOUT ROWID;
"""


class Unusable(Exception):
    """The database cannot be used. The message names the file, the cause and the remedy."""


def default_path() -> Path:
    """Return the default path of the database."""
    return state_directory() / "traces.db"


class Database:
    """An open database at *path*, or in memory. A new file is readable only by its owner.

    Raises Unusable.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        self._in_memory = self.path == MEMORY
        self._idle: list[sqlite3.Connection] = []
        self._idle_lock = threading.Lock()
        # In memory, all threads share one connection. Readers of a file do not wait.
        self._lock = threading.RLock() if self._in_memory else nullcontext()
        try:
            if not self._in_memory:
                make_private(Path(self.path))
            self._writer = self._connect()
            self._prepare()
            self._file = None if self._in_memory else os.stat(self.path)
        except (OSError, sqlite3.Error) as exc:
            raise Unusable(f"{self.path}: {exc}; choose another file with --db") from None

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path,
            isolation_level=None,
            check_same_thread=False,
            timeout=5.0,
            cached_statements=256,
        )
        connection.execute("PRAGMA cache_size = -65536")
        connection.execute("PRAGMA mmap_size = 268435456")
        return connection

    def _prepare(self) -> None:
        db = self._writer
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version not in (0, VERSION):
            raise Unusable(
                f"{self.path} was written by another version of the viewer (schema {version}, "
                f"here {VERSION}): move it away, or choose another file with --db"
            )
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute("PRAGMA temp_store = MEMORY")
        if version == 0:
            db.executescript(
                f"BEGIN; {SCHEMA} {sources.SCHEMA} {log_table.SCHEMA} "
                f"PRAGMA user_version = {VERSION}; COMMIT;"
            )

    def check(self) -> None:
        """Raise sqlite3.OperationalError if the file was deleted or replaced.

        SQLite does not notice: it would write to the deleted file, and create an empty one to read.
        """
        if self._file is None:
            return
        try:
            if os.path.samestat(self._file, os.stat(self.path)):
                return
        except OSError:
            pass
        raise sqlite3.OperationalError("the file was deleted or replaced; restart the viewer")

    def write_one_page(self) -> None:
        """Write one page without a change. Raises sqlite3.Error, as on a full disk."""
        with self.writing() as db:
            db.execute(f"PRAGMA user_version = {VERSION}")

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Write in one transaction. Roll back if the block raises. For one thread only."""
        with self._lock:
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
            except BaseException:
                self._writer.execute("ROLLBACK")
                raise
            self._writer.execute("COMMIT")

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Read one consistent state, from any thread, without blocking the writer."""
        if self._in_memory:
            with self._lock:
                yield self._writer
            return
        with self._idle_lock:
            connection = self._idle.pop() if self._idle else None
        if connection is None:
            self.check()
            connection = self._connect()
        try:
            connection.execute("BEGIN")
            yield connection
        finally:
            connection.execute("COMMIT")
            with self._idle_lock:
                keep = len(self._idle) < IDLE_READERS
                if keep:
                    self._idle.append(connection)
            if not keep:
                connection.close()

    def close(self) -> None:
        """Close the writer and every idle reader. The last one to close removes the WAL files.

        In memory, wait for the thread that reads: SQLite crashes if its connection is closed.
        """
        with self._lock, self._idle_lock:
            for connection in (*self._idle, self._writer):
                connection.close()
            self._idle.clear()


def rows_of(
    db: sqlite3.Connection, columns: str, query: str, values: Mapping[str, Any] | None = None
) -> list[Any]:
    """Return the *columns* of all rows of *query*, in the types of JSON.

    The rows are fetched as one value. ``sqlite3`` releases the GIL for each row, and another thread
    may hold it for a millisecond, so ten thousand rows would wait ten thousand times.
    """
    whole = f"SELECT json_group_array(json_array({columns})) FROM ({query})"
    found: list[Any] = msgspec.json.decode(db.execute(whole, values or {}).fetchone()[0])
    return found


def make_private(path: Path) -> None:
    """Make the file at *path*, readable only by its owner, unless it exists."""
    if not path.parent.exists():
        path.parent.mkdir(parents=True, mode=0o700)
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
