"""Server-sent events: new trace rows and statistics for every open page."""

import sqlite3
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

from ..analysis.summary import Summary, to_text
from ..store.trace_store import Store

#: The most open streams (a browser opens one for all of its tabs), and the most traces that wait
#: for a slow stream.
MOST_LISTENERS, MOST_WAITING = 32, 500

#: The time between two messages to a stream, in seconds. Traces in between are sent together.
PACE = 0.25

#: The time between two statistics, in seconds. They also keep the connection alive.
STATS_EVERY = 3.0


class Events:
    """Sends the new rows of traces in *store* to listeners."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._listeners: set[_Listener] = set()
        self._closed = False
        self._last = (time.monotonic(), store.received)
        self._rate = 0.0
        store.listen(self._tell)

    def subscribe(self) -> "_Listener | None":
        """Return a new listener, or None if there are too many streams."""
        with self._lock:
            if self._closed or len(self._listeners) >= MOST_LISTENERS:
                return None
            listener = _Listener(self)
            self._listeners.add(listener)
            return listener

    def unsubscribe(self, listener: "_Listener") -> None:
        """Close *listener*."""
        listener.close()
        with self._lock:
            self._listeners.discard(listener)

    def close(self) -> None:
        """End every stream."""
        with self._lock:
            self._closed = True
            listeners = list(self._listeners)
        for listener in listeners:
            self.unsubscribe(listener)

    def stats(self) -> dict[str, Any]:
        """Return the numbers of stored spans, traces and log records, and the rate of arrival."""
        store = self._store
        now = time.monotonic()
        with self._lock:
            then, received = self._last
            if now - then >= 1.0:
                self._rate = (store.received - received) / (now - then)
                self._last = (now, store.received)
        try:
            stored = {"pending": store.pending(), "db_bytes": store.size()}
        except sqlite3.Error:
            stored = {"pending": 0, "db_bytes": 0}
        return {
            "spans": store.spans,
            "traces": store.traces,
            "logs": store.logs,
            "received": store.received,
            "received_per_s": round(self._rate, 1),
            "dropped": store.dropped,
            **stored,
            "failing": store.failing,
            "streams": len(self._listeners),
        }

    def _tell(self, summary: Summary) -> None:
        with self._lock:
            listeners = list(self._listeners)
        for listener in listeners:
            listener.put(summary.row)


class _Listener:
    """One open stream, as an iterator. Only the newest row of each trace waits to be sent."""

    def __init__(self, events: Events) -> None:
        self._events = events
        self._changed = threading.Condition()
        self._rows: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._closed = False

    def put(self, row: dict[str, Any]) -> None:
        with self._changed:
            self._rows[row["trace_id"]] = row
            if len(self._rows) > MOST_WAITING:
                self._rows.popitem(last=False)
            self._changed.notify()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()

    def __iter__(self) -> Iterator[str]:
        yield f"retry: 2000\n\n{self._stats()}"
        due = time.monotonic() + STATS_EVERY
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._rows or self._closed, max(0.0, due - time.monotonic())
                )
                if self._closed:
                    return
                rows = list(self._rows.values())
                self._rows.clear()
            yield "".join(f"event: trace\ndata: {to_text(row)}\n\n" for row in rows)
            with self._changed:
                if self._changed.wait_for(lambda: self._closed, PACE):
                    return
            if time.monotonic() >= due:
                due = time.monotonic() + STATS_EVERY
                yield self._stats()

    def _stats(self) -> str:
        return f"event: stats\ndata: {to_text(self._events.stats())}\n\n"
