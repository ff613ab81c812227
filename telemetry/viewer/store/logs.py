"""The log records that are kept: beside the spans, with the same bounds, found by their text."""

import sqlite3
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs

from ...otlp.decode import decode_attributes
from ...otlp.decode_logs import ReceivedLog, decode_log
from .incoming import LARGEST, MAX_TIME, MOST_SOURCES

__all__ = [
    "REFUSED_LOGS",
    "SCHEMA",
    "IncomingLog",
    "LogSearch",
    "LogTable",
    "Stored",
    "find_logs",
    "incoming_logs",
    "logs_of_trace",
    "traces_with_log",
]

SCHEMA = """
-- A resource and a scope: ResourceLogs of OTLP without log records. newest_ns: when the latest of
-- its log records arrived.
CREATE TABLE log_sources (
    id INTEGER PRIMARY KEY, body BLOB NOT NULL UNIQUE, newest_ns INTEGER NOT NULL DEFAULT 0
);

-- Log records, in the order of arrival. trace_id and span_id are empty outside a span. text is what
-- a search goes through, in lower case; digest tells apart what was delivered twice.
CREATE TABLE logs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    trace_id BLOB NOT NULL,
    span_id BLOB NOT NULL,
    time_ns INTEGER NOT NULL,
    arrived_ns INTEGER NOT NULL,
    severity INTEGER NOT NULL,
    source INTEGER NOT NULL,
    digest BLOB NOT NULL,
    text TEXT NOT NULL,
    body BLOB NOT NULL
);
CREATE UNIQUE INDEX logs_trace ON logs (trace_id, time_ns, digest);
"""

#: Why a log record is refused.
REFUSED_LOGS = (
    "a log record has a trace id of 16 bytes and a span id of 8 or neither, a time before the year "
    "2262, and 1 MiB at most; the resources of an export, one for each scope, 64 MiB"
)

#: Characters of a log record that a search goes through.
SEARCHED = 2_000

#: Log records deleted in one step; sources that are remembered.
STEP, MOST_KNOWN = 5_000, 4_096

#: Log records of one trace that are shown together, and on a page of the list.
MOST_OF_TRACE, LONGEST_PAGE = 5_000, 200

#: Traces that a text is looked for in.
MOST_TRACES = 1_000


@dataclass(frozen=True, slots=True)
class IncomingLog:
    """A log record to be kept. *source* is its resource and scope, *body* a LogRecord."""

    trace_id: bytes
    span_id: bytes
    time_ns: int
    severity: int
    source: bytes
    body: bytes
    text: str


def incoming_logs(request: ExportLogsServiceRequest) -> tuple[list[IncomingLog], int]:
    """Return the log records of *request* that can be kept, and how many cannot."""
    logs, refused = [], 0
    room = MOST_SOURCES
    now = time.time_ns()
    for resource_logs in request.resource_logs:
        for scope_logs in resource_logs.scope_logs:
            if room < 0:
                refused += len(scope_logs.log_records)
                continue
            if not scope_logs.log_records:
                continue
            source = ResourceLogs(
                resource=resource_logs.resource,
                schema_url=resource_logs.schema_url,
                scope_logs=[ScopeLogs(scope=scope_logs.scope, schema_url=scope_logs.schema_url)],
            ).SerializeToString(deterministic=True)
            room -= len(source)
            for log in scope_logs.log_records:
                body = log.SerializeToString()
                time_ns = log.time_unix_nano or log.observed_time_unix_nano or now
                if not _is_sound(log) or time_ns > MAX_TIME or len(body) > LARGEST:
                    refused += 1
                    continue
                logs.append(
                    IncomingLog(
                        log.trace_id,
                        log.span_id,
                        time_ns,
                        max(0, min(log.severity_number, 24)),
                        source,
                        body,
                        _searched(log),
                    )
                )
    return logs, refused


def _is_sound(log: LogRecord) -> bool:
    return len(log.trace_id) in (0, 16) and len(log.span_id) in (0, 8)


def _searched(log: LogRecord) -> str:
    received = decode_log(log, {}, "")
    message = received.attributes.get("exception.message", "")
    return f"{received.text}\n{message}"[:SEARCHED].casefold()


class LogTable:
    """Writes log records, for the one thread that writes, and deletes the oldest."""

    def __init__(self, db: sqlite3.Connection, most: int, max_age: float) -> None:
        self._most = most
        self._max_age = max_age
        self._sources: OrderedDict[bytes, int] = OrderedDict()
        self.count = int(db.execute("SELECT count(*) FROM logs").fetchone()[0])

    def forget(self) -> None:
        """Forget what a transaction that was undone may have written."""
        self._sources.clear()

    def write(self, db: sqlite3.Connection, logs: list[IncomingLog]) -> int:
        """Write *logs*, and return how many of them are new."""
        now = time.time_ns()
        rows = [
            (
                *(log.trace_id, log.span_id, log.time_ns, now, log.severity),
                *(self._source(db, log.source), _digest(log), log.text, log.body),
            )
            for log in logs
        ]
        db.executemany(
            "UPDATE log_sources SET newest_ns = ? WHERE id = ?",
            [(now, source) for source in {row[5] for row in rows}],
        )
        return db.executemany(
            "INSERT OR IGNORE INTO logs (trace_id, span_id, time_ns, arrived_ns, severity, source, "
            "digest, text, body) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            rows,
        ).rowcount

    def _source(self, db: sqlite3.Connection, body: bytes) -> int:
        number = self._sources.get(body)
        if number is None:
            (number,) = db.execute(
                "INSERT INTO log_sources (body) VALUES (?) "
                "ON CONFLICT (body) DO UPDATE SET body = body RETURNING id",
                (body,),
            ).fetchone()
            self._sources[body] = number
            if len(self._sources) > MOST_KNOWN:
                self._sources.popitem(last=False)
        return number

    @property
    def is_full(self) -> bool:
        """Return whether there are more than are kept."""
        return self.count > self._most

    def prune(self, db: sqlite3.Connection) -> int:
        """Delete what is too much or too old, in a small step. Return how many those were."""
        oldest = time.time_ns() - int(self._max_age * 1e9)
        excess = min(STEP, max(0, self.count - self._most))
        first = "DELETE FROM logs WHERE id IN (SELECT id FROM logs ORDER BY id LIMIT ?)"
        gone = db.execute(first, (excess,)).rowcount
        gone += db.execute(f"{first} AND arrived_ns < ?", (STEP, oldest)).rowcount
        if not gone:
            db.execute(
                "DELETE FROM log_sources WHERE newest_ns < "
                "coalesce((SELECT arrived_ns FROM logs ORDER BY id LIMIT 1), ?)",
                (MAX_TIME,),
            )
            self.forget()
        return gone


def _digest(log: IncomingLog) -> bytes:
    return blake2b(log.source + log.body, digest_size=8).digest()


@dataclass(frozen=True, slots=True)
class Stored:
    """A log record of the database. *is_known*: its trace is here too."""

    number: int
    log: ReceivedLog
    is_known: bool


_COLUMNS = "logs.id, logs.time_ns, log_sources.body, logs.body"


def logs_of_trace(
    db: sqlite3.Connection, trace_id: bytes, span_id: bytes | None = None
) -> tuple[list[Stored], bool]:
    """Return the log records of a trace, or of one of its spans, in the order of time.

    And whether there are more.
    """
    one = "" if span_id is None else "AND span_id = :span_id"
    rows = db.execute(
        f"SELECT {_COLUMNS}, 1 FROM logs JOIN log_sources ON log_sources.id = source "
        f"WHERE trace_id = :trace_id {one} ORDER BY time_ns, logs.id LIMIT :most",
        {"trace_id": trace_id, "span_id": span_id, "most": MOST_OF_TRACE + 1},
    )
    found = list(_decoded(rows))
    return found[:MOST_OF_TRACE], len(found) > MOST_OF_TRACE


@dataclass(frozen=True, slots=True)
class LogSearch:
    """Which log records to list: with *text* in them, of a *severity* at least.

    *alone*: those without a span that is here.
    """

    text: str = ""
    severity: int = 0
    alone: bool = True
    before: int = MAX_TIME
    limit: int = 100

    @classmethod
    def parse(cls, query: Mapping[str, str]) -> "LogSearch":
        """Read a query string. Raises ValueError, naming the parameter."""
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
        raise ValueError(f"{key} is a whole number")
    return int(text)


def find_logs(db: sqlite3.Connection, search: LogSearch) -> tuple[list[Stored], int | None]:
    """Return the latest log records that *search* is for, and the ``before`` of the next ones.

    A page has those that arrived last, in the order of their times.
    """
    conditions = ["logs.id < :before", "severity >= :severity"]
    if search.text:
        conditions.append("instr(text, :text)")
    if search.alone:
        conditions.append("traces.id IS NULL")
    rows = db.execute(
        f"SELECT {_COLUMNS}, traces.id IS NOT NULL FROM logs "
        "JOIN log_sources ON log_sources.id = source "
        "LEFT JOIN traces ON traces.trace_id = logs.trace_id "
        f"WHERE {' AND '.join(conditions)} ORDER BY logs.id DESC LIMIT :limit",
        {
            "before": search.before,
            "severity": search.severity,
            "text": search.text.casefold(),
            "limit": search.limit + 1,
        },
    )
    found = list(_decoded(rows))
    page = found[: search.limit]
    following = page[-1].number if len(found) > search.limit else None
    return sorted(page, key=lambda stored: -stored.log.time_ns), following


def traces_with_log(db: sqlite3.Connection, text: str) -> list[int]:
    """Return the numbers of the newest traces with a log record that has *text* in it."""
    rows = db.execute(
        "SELECT traces.id FROM logs JOIN traces ON traces.trace_id = logs.trace_id "
        "WHERE instr(text, ?) GROUP BY traces.id ORDER BY traces.id DESC LIMIT ?",
        (text.casefold(), MOST_TRACES),
    )
    return [number for (number,) in rows]


def _decoded(rows: Iterator[Any]) -> Iterator[Stored]:
    sources: dict[bytes, tuple[dict[str, Any], str]] = {}
    for number, time_ns, source, body, is_known in rows:
        if source not in sources:
            whole = ResourceLogs.FromString(source)
            resource = decode_attributes(whole.resource.attributes)
            sources[source] = resource, whole.scope_logs[0].scope.name
        log = decode_log(LogRecord.FromString(body), *sources[source], time_ns)
        yield Stored(number, log, bool(is_known))
