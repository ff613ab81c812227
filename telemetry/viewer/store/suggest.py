"""Suggestions for the search field: completions of the part at the cursor."""

import re
import sqlite3
from collections.abc import Iterator
from typing import Any

from .database import rows_of
from .query import CELERY_STATES, FIELDS, LONGEST, NAMES_OF_MESSAGES, STATUSES

MOST = 10

#: The prefixes of a part, and their meanings.
_BEGINNINGS = {
    "status:": "state of the trace or its messages",
    "wait>": "longest wait, for example wait>2s",
    "duration>": "duration, for example duration>200ms",
    "task:": "task",
    "queue:": "queue",
    "broker:": "broker",
    "service:": "service",
    "route:": "route",
    "exception:": "type of an exception",
    "log:": "text of a log record",
}

_LAST = re.compile(r'(?:"[^"]*"|[^\s"])*(?:"[^"]*)?$')


def suggest(db: sqlite3.Connection, text: str) -> dict[str, Any]:
    """Return completions of *text*, which ends at the cursor.

    Each suggestion replaces the characters from ``from`` on.
    """
    text = text[:LONGEST]
    found = _LAST.search(text)
    start = found.start() if found else len(text)
    seen: dict[str, str] = {}
    for suggestion, kind in _suggestions(db, text[start:]):
        if suggestion != text[start:]:
            seen.setdefault(suggestion, kind)
        if len(seen) == MOST:
            break
    return {
        "from": start,
        "suggestions": [{"text": suggestion, "kind": kind} for suggestion, kind in seen.items()],
    }


def _suggestions(db: sqlite3.Connection, typed: str) -> Iterator[tuple[str, str]]:
    name, colon, value = typed.partition(":")
    wanted = value.replace('"', "").casefold()
    if colon and name.lower() == "status":
        yield from _states(wanted)
        return
    if colon and name.lower() in (*FIELDS, "call"):
        kind = name.lower()
        if kind in NAMES_OF_MESSAGES and not wanted and _is_missing(db, kind):
            yield f'{kind}:""', f"no {kind} name"
        yield from ((f'{kind}:"{v}"', kind) for _, v in _names(db, (kind,), wanted))
        return
    wanted = typed.replace('"', "").casefold()
    for beginning, means in _BEGINNINGS.items():
        if beginning.startswith(wanted):
            yield beginning, means
    if not wanted:
        return
    yield from _states(wanted)
    for kind, value in _names(db, (*FIELDS, "name"), wanted):
        if kind != "name":
            yield f'{kind}:"{value}"', kind
        else:
            yield (f'"{value}"' if re.search(r"\s", value) else value), "span"
    for _, key in _names(db, ("key",), wanted):
        yield f"{key}=", "attribute"


def _is_missing(db: sqlite3.Connection, kind: str) -> bool:
    """Return whether there are messages without a name of this *kind*."""
    at = NAMES_OF_MESSAGES.index(kind)
    query = "SELECT 1 FROM terms WHERE kind = 'flow' AND json_extract(value, ?) = '' LIMIT 1"
    return db.execute(query, (f"$[{at}]",)).fetchone() is not None


def _states(wanted: str) -> Iterator[tuple[str, str]]:
    for state in dict.fromkeys((*STATUSES, *CELERY_STATES)):
        if state.startswith(wanted):
            yield f"status:{state}", "status"


def _names(
    db: sqlite3.Connection, kinds: tuple[str, ...], wanted: str
) -> Iterator[tuple[str, str]]:
    """Yield the kind and value of names that contain *wanted*, first those that begin with it."""
    marks = ", ".join(f"'{kind}'" for kind in kinds)
    query = f"SELECT kind, value FROM terms WHERE kind IN ({marks}) ORDER BY value"
    rows = rows_of(db, "kind, value", query)
    found = [(k, v) for k, v in rows if wanted in v.casefold() and '"' not in v]
    found.sort(key=lambda row: (not row[1].casefold().startswith(wanted), kinds.index(row[0])))
    yield from found[:MOST]
