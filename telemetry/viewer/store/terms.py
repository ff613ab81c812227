"""Store each name once: services, tasks, queues, spans, workers. Other tables have its number."""

import sqlite3

import msgspec

from ..analysis.summary import to_text

#: The most names in each pool. Further names are stored as OTHER. Spans and workers can have many
#: names, so they have their own pools and do not displace services, tasks and queues.
POOLS = {"names": 20_000, "searched": 50_000, "workers": 20_000}
POOL_OF = {
    **dict.fromkeys(("name", "state", "key", "exception"), "searched"),
    "worker": "workers",
}
OTHER = "(other)"

#: The kind of names that is deleted from a full pool, and the condition of an unused one.
UNUSED = {
    "searched": ("name", "NOT EXISTS (SELECT 1 FROM named WHERE term = terms.id)"),
    "workers": ("worker", "id NOT IN (SELECT worker FROM runs)"),
}

#: The kinds whose names are JSON lists of names.
LISTS = frozenset({"flow", "node", "edge", "worker"})

#: The most attribute keys that are suggested.
MOST_KEYS = 1_000


class TermTable:
    """Writes names. Only the writing thread may use it."""

    def __init__(self) -> None:
        self._known: dict[str, dict[tuple[str, str], int]] = {pool: {} for pool in POOLS}
        self._keys: set[str] = set()

    def number_of(self, db: sqlite3.Connection, kind: str, value: str) -> int:
        """Return the number of a name, and write it if it is new."""
        pool = POOL_OF.get(kind, "names")
        known = self._known[pool]
        number = known.get((kind, value))
        if number is not None:
            return number
        if len(known) >= POOLS[pool]:
            value = to_text([OTHER] * len(msgspec.json.decode(value))) if kind in LISTS else OTHER
        (number,) = db.execute(
            "INSERT INTO terms (kind, value) VALUES (?, ?) "
            "ON CONFLICT (kind, value) DO UPDATE SET kind = kind RETURNING id",
            (kind, value),
        ).fetchone()
        known[kind, value] = int(number)
        return int(number)

    def note_key(self, db: sqlite3.Connection, key: str) -> None:
        """Write the key of an attribute, for the suggestions."""
        if len(self._keys) < MOST_KEYS and key not in self._keys:
            self._keys.add(key)
            self.number_of(db, "key", key)

    def forget(self) -> None:
        """Clear the cache after numbers were rolled back."""
        for pool in self._known.values():
            pool.clear()
        self._keys.clear()

    def prune(self, db: sqlite3.Connection) -> None:
        """Delete the unused names of full pools."""
        for pool, (kind, is_unused) in UNUSED.items():
            if len(self._known[pool]) >= POOLS[pool]:
                db.execute(f"DELETE FROM terms WHERE kind = ? AND {is_unused}", (kind,))
                self._known[pool].clear()
