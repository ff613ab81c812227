"""Store each resource and scope once, for all spans and log records that have it."""

import sqlite3
from collections import OrderedDict
from collections.abc import Iterable

from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans

from ...otlp.decode import Attributes, decode_attributes

SCHEMA = """
-- A resource and a scope: ResourceSpans of OTLP without spans, or ResourceLogs without log records,
-- which have the same bytes. newest_trace and newest_log are the last that have it, or 0.
CREATE TABLE sources (
    id INTEGER PRIMARY KEY,
    body BLOB NOT NULL UNIQUE,
    newest_trace INTEGER NOT NULL DEFAULT 0,
    newest_log INTEGER NOT NULL DEFAULT 0
);
"""

#: The most sources cached in memory, so that most spans need no query.
MOST_KNOWN = 4096


class SourceTable:
    """Writes sources. Only the writing thread may use it."""

    def __init__(self) -> None:
        self._known: OrderedDict[bytes, int] = OrderedDict()

    def number_of(self, db: sqlite3.Connection, body: bytes) -> int:
        """Return the number of a source, and write it if it is new."""
        number = self._known.get(body)
        if number is None:
            (number,) = db.execute(
                "INSERT INTO sources (body) VALUES (?) "
                "ON CONFLICT (body) DO UPDATE SET body = body RETURNING id",
                (body,),
            ).fetchone()
            self._known[body] = number
            if len(self._known) > MOST_KNOWN:
                self._known.popitem(last=False)
        return number

    def note(self, db: sqlite3.Connection, column: str, used: Iterable[tuple[int, int]]) -> None:
        """Note the newest trace or log record of each source. *used* has pairs of both numbers."""
        newest: dict[int, int] = {}
        for number, source in used:
            newest[source] = max(number, newest.get(source, 0))
        db.executemany(
            f"UPDATE sources SET {column} = max({column}, ?) WHERE id = ?",
            [(number, source) for source, number in newest.items()],
        )

    def forget(self) -> None:
        """Clear the cache after numbers were rolled back or deleted."""
        self._known.clear()

    def prune(self, db: sqlite3.Connection) -> None:
        """Delete the sources that no trace and no log record has."""
        oldest = "(SELECT coalesce(min(id), 9223372036854775807) FROM {})"
        db.execute(
            f"DELETE FROM sources WHERE newest_trace < {oldest.format('traces')} "
            f"AND newest_log < {oldest.format('logs')}"
        )
        self.forget()


def decode_source(body: bytes) -> tuple[Attributes, str]:
    """Return the attributes of a resource, and the name of the scope."""
    source = ResourceSpans.FromString(body)
    return decode_attributes(source.resource.attributes), source.scope_spans[0].scope.name
