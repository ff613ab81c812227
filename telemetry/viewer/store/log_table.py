"""Log records: store them beside the spans, with the same limits, and search their text."""

import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from ...otlp.decode import Attributes, ReceivedLog, decode_log
from .incoming import MAX_TIME, SEARCHED, IncomingLog
from .sources import SourceTable, decode_source

SCHEMA = """
-- Log records, in the order of arrival. trace_id and span_id are empty outside a span. is_known:
-- its trace is stored. A search reads text, in lower case. digest finds records that arrive twice.
CREATE TABLE logs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    trace_id BLOB NOT NULL,
    span_id BLOB NOT NULL,
    time_ns INTEGER NOT NULL,
    arrived_ns INTEGER NOT NULL,
    severity INTEGER NOT NULL,
    is_known INTEGER NOT NULL,
    source INTEGER NOT NULL,
    digest BLOB NOT NULL,
    text TEXT NOT NULL,
    body BLOB NOT NULL
);
CREATE UNIQUE INDEX logs_trace ON logs (trace_id, time_ns, digest);
CREATE INDEX logs_alone ON logs (id, severity) WHERE NOT is_known;
CREATE INDEX logs_severity ON logs (id, severity);

-- The trigrams of each text, to find the log records that may contain a longer text.
CREATE VIRTUAL TABLE logs_text USING fts5 (
    text, content='logs', content_rowid='id', tokenize='trigram case_sensitive 1', detail=none
);
"""

#: The most log records deleted in one step.
STEP = 5_000

#: The most log records shown of one trace, and on a page of the list.
MOST_OF_TRACE, LONGEST_PAGE = 5_000, 200

#: If there are fewer log records without a trace, a search scans them.
FEW = 3_000

#: A search for traces uses this many of the newest log records with a text. For a text of one or
#: two characters, it scans this many of the newest log records.
MOST_FOUND, MOST_SCANNED = 5_000, 100_000

#: The most trigrams of one text that are looked up.
MOST_GROUPS = 32


class LogTable:
    """Writes log records and deletes the oldest. Only the writing thread may use it."""

    def __init__(
        self, db: sqlite3.Connection, sources: SourceTable, most: int, max_age: float
    ) -> None:
        self._sources = sources
        self._most = most
        self._max_age = max_age
        self.count = int(db.execute("SELECT count(*) FROM logs").fetchone()[0])

    def write(self, db: sqlite3.Connection, logs: list[IncomingLog]) -> int:
        """Write *logs* and return the number of new ones."""
        now = time.time_ns()
        rows = [
            (
                *(log.trace_id, log.span_id, log.time_ns or now, now, log.severity),
                *(log.trace_id, self._sources.number_of(db, log.source)),
                *(_digest(log), log.text, log.body),
            )
            for log in logs
        ]
        last = _last(db)
        new = db.executemany(
            "INSERT OR IGNORE INTO logs (trace_id, span_id, time_ns, arrived_ns, severity, "
            "is_known, source, digest, text, body) VALUES (?, ?, ?, ?, ?, "
            "EXISTS (SELECT 1 FROM traces WHERE trace_id = ?), ?, ?, ?, ?)",
            rows,
        ).rowcount
        db.execute(
            "INSERT INTO logs_text (rowid, text) SELECT id, text FROM logs WHERE id > ?", (last,)
        )
        self._sources.note(db, "newest_log", ((_last(db), row[6]) for row in rows))
        return new

    def note_traces(self, db: sqlite3.Connection, trace_ids: Iterable[bytes]) -> None:
        """Note that the traces *trace_ids* are stored now."""
        db.executemany("UPDATE logs SET is_known = 1 WHERE trace_id = ?", ((i,) for i in trace_ids))

    def forget_traces(self, db: sqlite3.Connection, last: int) -> None:
        """Note that the traces up to the number *last* are about to be deleted."""
        db.execute(
            "UPDATE logs SET is_known = 0 "
            "WHERE trace_id IN (SELECT trace_id FROM traces WHERE id <= ?)",
            (last,),
        )

    @property
    def is_full(self) -> bool:
        """Whether there are more log records than the limit."""
        return self.count > self._most

    def prune(self, db: sqlite3.Connection) -> int:
        """Delete the oldest beyond the limits, in a small step. Return the number deleted."""
        oldest = time.time_ns() - int(self._max_age * 1e9)
        excess = min(STEP, max(0, self.count - self._most))
        (last,) = db.execute(
            "SELECT max(id) FROM (SELECT id, arrived_ns, row_number() OVER (ORDER BY id) AS place "
            "FROM (SELECT id, arrived_ns FROM logs ORDER BY id LIMIT ?)) "
            "WHERE place <= ? OR arrived_ns < ?",
            (STEP, excess, oldest),
        ).fetchone()
        if last is None:
            return 0
        db.execute(
            "INSERT INTO logs_text (logs_text, rowid, text) "
            "SELECT 'delete', id, text FROM logs WHERE id <= ?",
            (last,),
        )
        return db.execute("DELETE FROM logs WHERE id <= ?", (last,)).rowcount


def _last(db: sqlite3.Connection) -> int:
    return int(db.execute("SELECT coalesce(max(id), 0) FROM logs").fetchone()[0])


def _digest(log: IncomingLog) -> bytes:
    return blake2b(log.source + log.body, digest_size=8).digest()


@dataclass(frozen=True, slots=True)
class Stored:
    """A log record of the database. *is_known*: its trace is stored too."""

    number: int
    log: ReceivedLog
    is_known: bool


_COLUMNS = "logs.id, logs.time_ns, sources.body, logs.body, is_known"


def logs_of_trace(
    db: sqlite3.Connection, trace_id: bytes, span_id: bytes | None = None
) -> tuple[list[Stored], bool]:
    """Return the log records of a trace, or of one of its spans, sorted by time.

    Also return whether there are more.
    """
    one = "" if span_id is None else "AND span_id = :span_id"
    rows = db.execute(
        f"SELECT {_COLUMNS} FROM logs JOIN sources ON sources.id = source "
        f"WHERE trace_id = :trace_id {one} ORDER BY time_ns, logs.id LIMIT :most",
        {"trace_id": trace_id, "span_id": span_id, "most": MOST_OF_TRACE + 1},
    )
    found = list(_decoded(rows))
    return found[:MOST_OF_TRACE], len(found) > MOST_OF_TRACE


def stored_logs(db: sqlite3.Connection, trace_id: bytes) -> Iterator[tuple[bytes, LogRecord]]:
    """Yield all log records of a trace, each with its source."""
    rows = db.execute(
        "SELECT sources.body, logs.body FROM logs JOIN sources ON sources.id = source "
        "WHERE trace_id = ? ORDER BY time_ns, logs.id",
        (trace_id,),
    )
    for source, body in rows:
        yield source, LogRecord.FromString(body)


@dataclass(frozen=True, slots=True)
class LogSearch:
    """The conditions of a search for log records: a *text* and a lowest *severity*.

    *alone*: only those whose trace is not in the database.
    """

    text: str = ""
    severity: int = 0
    alone: bool = True
    before: int = MAX_TIME
    limit: int = 100

    @classmethod
    def parse(cls, query: Mapping[str, str]) -> "LogSearch":
        """Parse a query string. Raises ValueError with the name of the parameter."""
        limit = _number(query, "limit", 100)
        return cls(
            text=query.get("q", "").strip()[:SEARCHED],
            severity=_number(query, "severity", 0),
            alone=query.get("all", "") not in ("1", "true"),
            before=_number(query, "before", MAX_TIME),
            limit=max(1, min(limit, LONGEST_PAGE)),
        )


def _number(query: Mapping[str, str], key: str, default: int) -> int:
    text = query.get(key) or str(default)
    if not (text.isascii() and text.isdecimal() and len(text) < 20 and int(text) <= MAX_TIME):
        raise ValueError(f"{key} must be a whole number")
    return int(text)


def find_logs(db: sqlite3.Connection, search: LogSearch) -> tuple[list[Stored], int | None]:
    """Return the newest log records of *search*, and ``before`` for the next page.

    A page has the last ones to arrive, sorted by their times.
    """
    text = search.text.casefold()
    groups = _groups(text)
    conditions = ["severity >= :severity"]
    if text:
        conditions.append("instr(logs.text, :text)")
    tables, place = "logs INDEXED BY logs_severity", "logs.id"
    if search.alone:
        conditions.append("NOT is_known")
        tables = "logs INDEXED BY logs_alone"
    if groups and not (search.alone and _are_few_alone(db)):
        conditions.append("logs_text MATCH :groups")
        tables, place = "logs_text CROSS JOIN logs ON logs.id = logs_text.rowid", "logs_text.rowid"
    rows = db.execute(
        f"SELECT {_COLUMNS} FROM {tables} CROSS JOIN sources ON sources.id = source "
        f"WHERE {place} < :before AND {' AND '.join(conditions)} "
        f"ORDER BY {place} DESC LIMIT :limit",
        {
            "before": search.before,
            "severity": search.severity,
            "text": text,
            "groups": groups,
            "limit": search.limit + 1,
        },
    )
    found = list(_decoded(rows))
    page = found[: search.limit]
    following = page[-1].number if len(found) > search.limit else None
    return sorted(page, key=lambda stored: -stored.log.time_ns), following


def _are_few_alone(db: sqlite3.Connection) -> bool:
    query = "SELECT count(*) FROM (SELECT 1 FROM logs WHERE NOT is_known LIMIT ?)"
    return int(db.execute(query, (FEW,)).fetchone()[0]) < FEW


def _groups(text: str) -> str:
    """Return the FTS5 query for log records that may contain *text*."""
    groups = dict.fromkeys(text[at : at + 3].replace('"', '""') for at in range(len(text) - 2))
    return " AND ".join(f'"{group}"' for group in [*groups][:MOST_GROUPS])


def traces_with_log(db: sqlite3.Connection, text: str) -> list[int]:
    """Return the numbers of the traces of the newest log records that contain *text*."""
    text = text.casefold()
    groups = _groups(text)
    found = (
        "SELECT logs.trace_id FROM logs_text CROSS JOIN logs ON logs.id = logs_text.rowid "
        "WHERE logs_text MATCH :groups AND instr(logs.text, :text) "
        "ORDER BY logs_text.rowid DESC"
        if groups
        else "SELECT trace_id FROM "
        "(SELECT trace_id, text FROM logs ORDER BY id DESC LIMIT :scanned) WHERE instr(text, :text)"
    )
    rows = db.execute(
        f"SELECT DISTINCT traces.id FROM ({found} LIMIT :found) AS found "
        "JOIN traces ON traces.trace_id = found.trace_id",
        {"text": text, "groups": groups, "found": MOST_FOUND, "scanned": MOST_SCANNED},
    )
    return [number for (number,) in rows]


def _decoded(rows: Iterable[Any]) -> Iterator[Stored]:
    sources: dict[bytes, tuple[Attributes, str]] = {}
    for number, time_ns, source, body, is_known in rows:
        if source not in sources:
            sources[source] = decode_source(source)
        log = decode_log(LogRecord.FromString(body), *sources[source], time_ns)
        yield Stored(number, log, bool(is_known))
