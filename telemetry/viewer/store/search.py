"""Finding traces: what the list asks for, in SQL that goes through narrow rows only."""

import json
import sqlite3
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..analysis.summary import summarise
from .incoming import MAX_TIME
from .read import read_trace

__all__ = ["Search", "facets", "find"]

FACETS = {"services": "service", "tasks": "task", "queues": "queue", "routes": "route"}
MOST_FACETS = 500

STATUSES = ("ok", "error", "waiting", "broken")
_SORTS = {"recent": "trace", "duration": "duration_ns", "wait": "wait_ns"}
LONGEST_PAGE = 200

#: A waiting trace with more spans is shown as it was when it was last summed up.
MOST_SPANS_ANEW = 1000


@dataclass(frozen=True, slots=True)
class Search:
    """What to look for. Texts are exact, *trace_id* is a prefix; times in ms, *since_s* in s."""

    service: str = ""
    task: str = ""
    queue: str = ""
    route: str = ""
    status: str = ""
    min_ms: float = 0.0
    min_wait_ms: float = 0.0
    trace_id: str = ""
    since_s: float = 0.0
    sort: str = "recent"
    before: str = ""
    limit: int = 50

    @classmethod
    def parse(cls, query: Mapping[str, str]) -> "Search":
        """Read a query string. Raises ValueError, naming the parameter."""
        status, sort = query.get("status", ""), query.get("sort") or "recent"
        if status and status not in STATUSES:
            raise ValueError(f"status is one of {', '.join(STATUSES)}")
        if sort not in _SORTS:
            raise ValueError(f"sort is one of {', '.join(_SORTS)}")
        trace_id = query.get("trace_id", "").strip().lower()
        if len(trace_id) > 32 or not set(trace_id) <= set("0123456789abcdef"):
            raise ValueError("trace_id is up to 32 hexadecimal digits")
        limit = int(_number("limit", query.get("limit"))) or 50
        return cls(
            service=query.get("service", ""),
            task=query.get("task", ""),
            queue=query.get("queue", ""),
            route=query.get("route", ""),
            min_ms=_number("min_ms", query.get("min_ms")),
            min_wait_ms=_number("min_wait_ms", query.get("min_wait_ms")),
            since_s=_number("since_s", query.get("since_s")),
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
    raise ValueError(f"{key} is a number of at least 0")


def find(db: sqlite3.Connection, search: Search) -> dict[str, Any]:
    """Return the rows that *search* is for, and the cursor of the next ones."""
    terms = _terms(db, search)
    if terms is None:
        return {"traces": [], "next": None}
    column = _SORTS[search.sort]
    first, *others = terms or [0]
    conditions, values = ["found.term = ?"], [first]

    def where(condition: str, *given: Any) -> None:
        conditions.append(condition)
        values.extend(given)

    for term in others:
        where("EXISTS (SELECT 1 FROM found o WHERE o.term = ? AND o.trace = found.trace)", term)
    if search.status:
        where("found.status = ?", search.status)
    if search.min_ms:
        where("duration_ns >= ?", min(int(search.min_ms * 1e6), MAX_TIME))
    if search.min_wait_ms:
        where("wait_ns >= ?", min(int(search.min_wait_ms * 1e6), MAX_TIME))
    if search.since_s:
        where("start_ns >= ?", max(time.time_ns() - int(search.since_s * 1e9), 0))
    if search.trace_id:
        low, high = (bytes.fromhex(search.trace_id.ljust(32, digit)) for digit in "0f")
        where("trace IN (SELECT id FROM traces WHERE trace_id BETWEEN ? AND ?)", low, high)
    if search.before:
        value, number = _cursor(search.before)
        where(f"({column}, trace) < (?, ?)", value, number)
    found = db.execute(
        f"SELECT {column}, trace FROM found WHERE {' AND '.join(conditions)} "
        f"ORDER BY {column} DESC, trace DESC LIMIT ?",
        (*values, search.limit + 1),
    ).fetchall()
    page = found[: search.limit]
    more = len(found) > search.limit
    return {
        "traces": [_row(db, number) for _, number in page],
        "next": f"{page[-1][0]}:{page[-1][1]}" if more else None,
    }


def _terms(db: sqlite3.Connection, search: Search) -> list[int] | None:
    """Return the numbers of the terms that are looked for, or None if nothing can have them all."""
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


def _cursor(text: str) -> tuple[int, int]:
    try:
        value, number = map(int, text.split(":"))
    except ValueError:
        raise ValueError("before is the `next` of the page before") from None
    if max(abs(value), abs(number)) >= 2**63:
        raise ValueError("before is the `next` of the page before")
    return value, number


def _row(db: sqlite3.Connection, number: int) -> dict[str, Any]:
    (text,) = db.execute("SELECT row FROM traces WHERE id = ?", (number,)).fetchone()
    row: dict[str, Any] = json.loads(text)
    if row["status"] == "waiting" and row["spans"] <= MOST_SPANS_ANEW:
        return summarise(read_trace(db, number, time.time_ns())).row
    return row


def facets(db: sqlite3.Connection) -> dict[str, list[str]]:
    """Return the names that there are to search by."""
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
