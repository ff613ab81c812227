"""Write the counts, and read those of a range of time."""

import json
import sqlite3
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..analysis.counts import BUCKET, DURATIONS, WAITS, middle_of
from .database import rows_of

#: The length of a bucket and the age limit of its counts, in seconds. None: that of traces.
RESOLUTIONS: tuple[tuple[int, int | None], ...] = ((BUCKET, 3600), (60, 6 * 3600), (900, None))

#: The most points of a series, and the fewest that make a line.
MOST_POINTS, FEWEST_POINTS = 120, 48

PERCENTILES = (50, 95, 99)

#: The count of each metric of analysis/counts.py.
Metrics = Counter[int]

#: A key of a count: the bucket in Unix seconds, the number of a term, and a metric.
Change = tuple[int, int, int]


def add_counts(db: sqlite3.Connection, changes: Counter[Change]) -> None:
    """Add *changes* to the counts of each resolution."""
    rows: Counter[tuple[int, int, int, int]] = Counter()
    for (bucket, term, metric), n in changes.items():
        for resolution, _ in RESOLUTIONS:
            rows[resolution, bucket // resolution * resolution, term, metric] += n
    db.executemany(
        "INSERT INTO counts VALUES (?, ?, ?, ?, ?) "
        "ON CONFLICT (resolution, bucket, term, metric) DO UPDATE SET n = n + excluded.n",
        [(*key, n) for key, n in rows.items() if n],
    )


def delete_counts(db: sqlite3.Connection, oldest_ns: int) -> None:
    """Delete the counts that are older than their resolution keeps, or than *oldest_ns*."""
    now = time.time()
    for resolution, kept in RESOLUTIONS:
        db.execute(
            "DELETE FROM counts WHERE resolution = ? AND bucket < ?",
            (resolution, int(oldest_ns / 1e9 if kept is None else now - kept)),
        )


@dataclass(frozen=True, slots=True)
class Range:
    """The last *since_s* seconds until *now*, in buckets of *step* seconds, from *first* on.

    *counted_s* is the part since the first count of anything, which rates are averaged over: a
    viewer that was just started knows nothing of the time before.
    """

    since_s: float
    counted_s: float
    now: float
    resolution: int
    step: int
    first: int

    @classmethod
    def last(cls, db: sqlite3.Connection, since_s: float) -> "Range":
        """Return the range of the last *since_s* seconds, a minute to a year."""
        since_s = max(60.0, min(since_s, 366 * 86_400.0))
        kept = [r for r, seconds in RESOLUTIONS if seconds is None or since_s <= seconds]
        # Use the coarsest resolution that still makes a line: it has the fewest rows.
        resolution = next((r for r in reversed(kept) if since_s / r >= FEWEST_POINTS), kept[0])
        step = resolution * max(1, -int(-since_s / resolution // MOST_POINTS))
        now = time.time()
        first = int(now - since_s) // step * step
        (counted,) = db.execute(
            "SELECT min(bucket) FROM counts WHERE resolution = ? AND bucket >= ?",
            (resolution, first),
        ).fetchone()
        counted_s = since_s if counted is None else min(since_s, max(now - counted, resolution))
        return cls(since_s, counted_s, now, resolution, step, first)

    @property
    def buckets(self) -> range:
        """The start of each bucket, in Unix seconds."""
        return range(self.first, int(self.now) + 1, self.step)

    @property
    def first_ns(self) -> int:
        """The start of the range, in Unix nanoseconds."""
        return int((self.now - self.since_s) * 1e9)


def terms(db: sqlite3.Connection, kind: str) -> dict[int, list[str]]:
    """Return the terms of a *kind* whose values are lists, by their ids."""
    query = "SELECT id, value FROM terms WHERE kind = :kind"
    found = rows_of(db, "id, value", query, {"kind": kind})
    return {number: json.loads(value) for number, value in found}


def totals(
    db: sqlite3.Connection, asked: Range, numbers: Iterable[int], most_metric: int = 2**31
) -> dict[int, Metrics]:
    """Return the counts of each term in *numbers* over the whole range."""
    found: dict[int, Metrics] = defaultdict(Counter)
    for term, metric, n in _seek(db, asked, numbers, "0", most_metric):
        found[term][metric] += n
    return found


def points(
    db: sqlite3.Connection, asked: Range, numbers: Iterable[int], most_metric: int = 2**31
) -> dict[int, dict[int, Metrics]]:
    """Return the counts of each term in *numbers*, by bucket."""
    found: dict[int, dict[int, Metrics]] = defaultdict(lambda: defaultdict(Counter))
    for term, bucket, metric, n in _seek(db, asked, numbers, "at.bucket", most_metric):
        found[term][bucket // asked.step * asked.step][metric] += n
    return found


def _seek(
    db: sqlite3.Connection,
    asked: Range,
    numbers: Iterable[int],
    by: str,
    most_metric: int,
) -> Iterable[tuple[int, ...]]:
    """Return sums of counts. The query seeks each term in each bucket that has any."""
    first = (
        "SELECT min(bucket) FROM counts "
        "WHERE resolution = :resolution AND bucket {} AND bucket <= :now"
    )
    columns = "term, metric" if by == "0" else f"term, {by}, metric"
    found: list[tuple[int, ...]] = rows_of(
        db,
        f"{columns.replace('at.', '')}, n",
        f"WITH RECURSIVE at (bucket) AS ({first.format('>= :first')} UNION ALL "
        f"SELECT ({first.format('> at.bucket')}) FROM at WHERE at.bucket IS NOT NULL), "
        "one (id) AS (SELECT value FROM json_each(:terms)) "
        f"SELECT {columns}, sum(n) AS n FROM at CROSS JOIN one CROSS JOIN counts "
        "WHERE resolution = :resolution AND counts.bucket = at.bucket AND term = one.id "
        f"AND metric < :most GROUP BY {columns} HAVING sum(n) > 0",
        {
            "first": asked.first // asked.resolution * asked.resolution,
            "resolution": asked.resolution,
            "now": int(asked.now),
            "terms": json.dumps(list(numbers)),
            "most": most_metric,
        },
    )
    return found


def percentiles(
    metrics: Metrics, base: int, wanted: Sequence[int] = PERCENTILES
) -> dict[str, float | None]:
    """Return percentiles, as ``p50``, of the histogram that begins at *base*, in milliseconds."""
    width = DURATIONS - WAITS
    bins = sorted((m - base, n) for m, n in metrics.items() if base <= m < base + width and n > 0)
    count = sum(n for _, n in bins)
    result: dict[str, float | None] = {}
    for percent in wanted:
        seen, value = 0, None
        for number, n in bins:
            seen += n
            if seen * 100 >= count * percent:
                value = round(middle_of(number), 3)
                break
        result[f"p{percent}"] = value
    return result
