"""Find the traces of the list, with SQL that reads only narrow rows."""

import heapq
import json
import sqlite3
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any

import msgspec

from ..analysis.hops import LIVE_STATES
from ..analysis.sentence import sentence
from ..analysis.summary import summarize
from ..analysis.wait import STUCK_AFTER
from .conditions import ALWAYS, DURATION, LIVE, WAIT, Conditions, Message
from .database import rows_of
from .incoming import MAX_TIME
from .query import CELERY_STATES, STATUSES, Bound, Field, Id, Part, parse_query
from .read import read_trace
from .waiting import STATE, times

#: The filters. Of several, the traces of the first are read, so the rarest names are first.
FACETS = {"tasks": "task", "queues": "queue", "routes": "route", "services": "service"}
MOST_FACETS = 500

#: The sort orders by a length that grows while a message waits, so that all live traces are read.
LENGTHS = ("duration", "wait")

_SORTS = ("recent", "received", *LENGTHS)
LONGEST_PAGE = 200

#: Of the live traces, so many of the first are looked up in other tables before all of them are.
MOST_LOOKED_UP = 2_000

#: The most spans of live traces that are summarized again for one page of the list. For the other
#: live traces, only the waits are read.
MOST_SPANS_ANEW = 2000


@dataclass(frozen=True, slots=True)
class Search:
    """The conditions of a search. Strings are exact, but *trace_id* is a prefix. Times are in ms.

    *parts* come from the search field. The time range begins *since_s* seconds before now, or it is
    between two Unix times. With a *broker*, one message must have the broker, the queue and the
    task. With an *exception*, it must have ended a run of the queue and the task.
    """

    parts: tuple[Part, ...] = ()
    service: str = ""
    task: str = ""
    queue: str = ""
    broker: str | None = None
    route: str = ""
    exception: str = ""
    status: str = ""
    min_ms: float = 0.0
    min_wait_ms: float = 0.0
    trace_id: str = ""
    since_s: float = 0.0
    from_ns: int = 0
    to_ns: int = MAX_TIME
    sort: str = "recent"
    before: str = ""
    limit: int = 50

    @classmethod
    def parse(cls, query: Mapping[str, str]) -> "Search":
        """Parse a query string. Raises ValueError with the parameter, or QueryError for ``q``."""
        status, sort = query.get("status", ""), query.get("sort") or "recent"
        if status and status not in (*STATUSES, *CELERY_STATES):
            raise ValueError(f"status must be one of {', '.join((*STATUSES, *CELERY_STATES))}")
        if sort not in _SORTS:
            raise ValueError(f"sort must be one of {', '.join(_SORTS)}")
        trace_id = query.get("trace_id", "").strip().lower()
        if len(trace_id) > 32 or not set(trace_id) <= set("0123456789abcdef"):
            raise ValueError("trace_id must have up to 32 hexadecimal digits")
        limit = int(_number("limit", query.get("limit"))) or 50
        first, last = (_moment(end, query.get(end)) for end in ("from", "to"))
        if first is not None and last is not None and first > last:
            raise ValueError("the time range ends before it begins")
        return cls(
            parts=tuple(parse_query(query.get("q", ""))),
            service=query.get("service", ""),
            task=query.get("task", ""),
            queue=query.get("queue", ""),
            broker=query.get("broker"),
            route=query.get("route", ""),
            exception=query.get("exception", ""),
            min_ms=_number("min_ms", query.get("min_ms")),
            min_wait_ms=_number("min_wait_ms", query.get("min_wait_ms")),
            since_s=_number("since_s", query.get("since_s")),
            from_ns=first or 0,
            to_ns=MAX_TIME if last is None else last,
            status=status,
            sort=sort,
            trace_id=trace_id,
            before=query.get("before", ""),
            limit=min(limit, LONGEST_PAGE),
        )


def _number(key: str, value: str | None) -> float:
    try:
        number = float(value or 0)
        if 0 <= number < 1e15:
            return number
    except ValueError:
        pass
    raise ValueError(f"{key} must be a number of at least 0")


def _moment(key: str, value: str | None) -> int | None:
    """Return the Unix nanoseconds of an ISO 8601 time with a zone, or None if there is none."""
    if not value:
        return None
    try:
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is not None:
            return min(max(0, int(moment.timestamp() * 1e9)), MAX_TIME)
    except (OverflowError, ValueError):
        pass
    raise ValueError(f"{key} must be a time such as 2030-01-31T12:00:00Z")


def find(
    db: sqlite3.Connection, search: Search, stuck_after_ns: int = STUCK_AFTER
) -> dict[str, Any]:
    """Return the rows that match *search*, and the cursor of the next page."""
    terms = _terms(db, search)
    if terms is None:
        return {"traces": [], "next": None}
    # All pages use the time of the first, so that the next continues exactly after it.
    cursor = _cursor(search.before) if search.before else None
    now = cursor[2] if cursor else time.time_ns()
    asked = _conditions(db, search, terms, now, stuck_after_ns)
    if cursor:
        asked.where(
            f"({{{search.sort}}}, found.trace) "
            f"< ({asked.value(cursor[0])}, {asked.value(cursor[1])})"
        )
    found = list(islice(_in_order(db, search, asked, is_of_all=not terms), search.limit + 1))
    page = found[: search.limit]
    more = len(found) > search.limit
    return {
        "traces": _rows(db, [number for _, number in page], stuck_after_ns),
        "next": f"{page[-1][0]}:{page[-1][1]}:{now}" if more else None,
    }


def _conditions(
    db: sqlite3.Connection, search: Search, terms: list[int], now_ns: int, stuck_after_ns: int
) -> Conditions:
    message = Message(
        search.broker, search.queue or None, search.task or None, search.exception or None
    )
    nameless = [part for part in search.parts if isinstance(part, Field) and not part.text]
    message = message._replace(**{part.name: "" for part in nameless})
    since = search.from_ns
    if search.since_s:
        since = max(since, now_ns - int(search.since_s * 1e9))
    asked = Conditions(db, now_ns, stuck_after_ns, message, during=(since, search.to_ns))
    if since:  # a range of the primary key
        asked.where(f"found.start_ns >= {asked.value(_earliest(db, since))}")
    first, *others = terms or [0]
    asked.where(f"found.term = {first}")
    for term in others:
        asked.where(
            f"EXISTS (SELECT 1 FROM found o WHERE o.term = {term} AND o.trace = found.trace)"
        )
    if search.broker is not None:
        asked.has_message()
    if search.exception:
        asked.has_exception()
    for part in search.parts:
        asked.add(part)
    if search.status:
        asked.has_status(search.status)
    if search.min_ms:
        asked.add(Bound("duration", ">=", min(int(search.min_ms * 1e6), MAX_TIME)))
    if search.min_wait_ms:
        asked.add(Bound("wait", ">=", min(int(search.min_wait_ms * 1e6), MAX_TIME)))
    if search.trace_id:
        asked.add(Id("trace", search.trace_id))
    return asked


def _earliest(db: sqlite3.Connection, since_ns: int) -> int:
    """Return a time so early that no trace began before it and was active at *since_ns*."""
    longest, first_live = db.execute(
        "SELECT (SELECT max(duration_ns) FROM found INDEXED BY found_duration WHERE term = 0), "
        f"(SELECT min(start_ns) FROM found INDEXED BY found_live WHERE term = 0 AND ({LIVE}))"
    ).fetchone()
    return min(since_ns - (longest or 0), MAX_TIME if first_live is None else first_live)


def _in_order(
    db: sqlite3.Connection, search: Search, asked: Conditions, is_of_all: bool
) -> Iterator[tuple[int, int]]:
    """Yield the sort value and the number of each trace, the largest first."""
    settled = {
        # The primary key sorts by start. "+": look up listed traces instead of reading all.
        "recent": "+start_ns" if asked.is_narrow else "start_ns",
        "received": "found.trace",
        "wait": "wait_ns",
        "duration": "duration_ns",
    }
    live = {**settled, "wait": WAIT, "duration": DURATION}
    # INDEXED BY: without statistics SQLite would sort all rows.
    is_whole = is_of_all and not asked.is_narrow
    is_sorted_by_length = search.sort in LENGTHS
    has_index = is_sorted_by_length or (search.sort == "received" and asked.during == ALWAYS)
    index = f"INDEXED BY found_{search.sort}" if is_whole and has_index else ""
    limit = "" if asked.has_attributes else f"LIMIT {search.limit + 1}"

    def rows(
        columns: Mapping[str, str], index: str, kind: str, most: int | None = None
    ) -> Iterator[tuple[int, int]]:
        """Yield the traces of a kind, or those of them that are among the first *most* ones."""
        comparisons = " AND ".join(text.format_map(columns) for text in (*asked.comparisons, kind))
        some = "" if most is None else f"ORDER BY place DESC, found.trace DESC LIMIT {most}"
        return db.execute(
            f"SELECT place, found.trace FROM (SELECT {columns[search.sort]} AS place, found.* "
            f"FROM found {index} WHERE {comparisons} {some}) AS found "
            f"WHERE {' AND '.join(asked.look_ups) or 'TRUE'} "
            f"ORDER BY place DESC, found.trace DESC {limit}",
            asked.values,
        )

    def of_live() -> Iterator[tuple[int, int]]:
        """Yield the live traces. Their wait and duration depend on the time, so no index helps."""
        kind = (live, "INDEXED BY found_live", f"({LIVE})")
        if limit and asked.look_ups:
            found = list(rows(*kind, most=MOST_LOOKED_UP))
            if len(found) > search.limit:
                return iter(found)
        return rows(*kind)

    if is_sorted_by_length and not asked.is_narrow:
        queries = [rows(settled, index, f"NOT ({LIVE})"), of_live()]
    else:
        queries = [rows(live, index, "TRUE")]
    return (row for row in heapq.merge(*queries, reverse=True) if asked.admits(row[1]))


def _terms(db: sqlite3.Connection, search: Search) -> list[int] | None:
    """Return the ids of the required terms, or None if one does not exist."""
    numbers = []
    for kind in FACETS.values():
        if value := getattr(search, kind):
            found = db.execute(
                "SELECT id FROM terms WHERE kind = ? AND value = ?", (kind, value)
            ).fetchone()
            if found is None:
                return None
            numbers.append(found[0])
    return numbers


def _cursor(text: str) -> tuple[int, int, int]:
    try:
        value, number, now = map(int, text.split(":"))
    except ValueError:
        raise ValueError("before must be the `next` of the page before") from None
    if max(abs(value), abs(number), abs(now)) >= 2**63:
        raise ValueError("before must be the `next` of the page before")
    return value, number, now


def _rows(db: sqlite3.Connection, numbers: list[int], stuck_after_ns: int) -> list[dict[str, Any]]:
    """Return the current rows of traces."""
    room = MOST_SPANS_ANEW
    now = time.time_ns()
    rows = []
    query = "SELECT id, row, spans FROM traces WHERE id IN (SELECT value FROM json_each(:numbers))"
    found = rows_of(db, "id, row, spans", query, {"numbers": json.dumps(numbers)})
    stored = {number: (row, spans) for number, row, spans in found}
    for number in numbers:
        text, spans = stored[number]
        row: dict[str, Any] = msgspec.json.decode(text)
        if row["live"] and row["spans"] <= room:
            room -= row["spans"]
            row = summarize(read_trace(db, number, now, stuck_after_ns)).row
        elif row["live"]:
            row = _brought_forward(db, number, row, times(now, stuck_after_ns))
        # A summary knows only the spans that it was made from.
        rows.append(row | {"spans": spans})
    return rows


def _brought_forward(
    db: sqlite3.Connection, number: int, row: dict[str, Any], at: Mapping[str, int]
) -> dict[str, Any]:
    """Return the *row* of a trace with many spans, with its current waits.

    The sentence is only the duration: the critical path would need the spans.
    """
    states = db.execute(
        f"SELECT {STATE} AS state, count(*), max(min(:now, expires_ns) - due_ns), "
        "max(min(:now, expires_ns)) FROM waiting WHERE trace = :trace GROUP BY state",
        {**at, "trace": number},
    ).fetchall()
    counts = {state: count for state, count, _, _ in states}
    live = {state: counts[state] for state in LIVE_STATES if state in counts}
    longest, end = max(row[2] for row in states), max(row[3] for row in states)
    duration = max(row["duration_ms"], (end - int(row["start_ns"])) / 1e6)
    return row | {
        "live": live,
        "status": row["status"] if row["status"] == "error" else next(iter(live)),
        "wait_ms": max(row["wait_ms"], longest / 1e6),
        "duration_ms": duration,
        "sentence": sentence(round(duration * 1e6), [], so_far=True),
    }


def facets(db: sqlite3.Connection) -> dict[str, list[str]]:
    """Return the values of each filter."""
    return {
        name: [
            value
            for (value,) in db.execute(
                "SELECT value FROM terms WHERE kind = ? "
                "AND EXISTS (SELECT 1 FROM found WHERE found.term = terms.id) "
                "ORDER BY value LIMIT ?",
                (kind, MOST_FACETS),
            )
        ]
        for name, kind in FACETS.items()
    }
