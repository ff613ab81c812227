"""Queues and tasks over time, and the map of who feeds whom: from counts, never from spans."""

import json
import sqlite3
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

from ..analysis.summary import DURATIONS, FAILURES, RETRIES, SENT, TOTAL, WAITS, middle_of
from ..analysis.wait import STUCK_AFTER
from .trace_store import RESOLUTIONS
from .waiting import BACKLOG, times

__all__ = ["queues", "service_map"]

#: As many points in time at most.
MOST_POINTS = 120

PERCENTILES = (50, 95, 99)

Metrics = Counter[int]


def queues(
    db: sqlite3.Connection, since_s: float, queue: str = "", task: str = ""
) -> dict[str, Any]:
    """Return what happened in each queue, by task, in the last *since_s* seconds."""
    since_s = _sane(since_s)
    resolution, step = _steps(since_s)
    flows: dict[tuple[str, str], dict[int, Metrics]] = defaultdict(lambda: defaultdict(Counter))
    for bucket, key, metric, n in _read(db, "flow", resolution, since_s):
        if (not queue or key[0] == queue) and (not task or key[1] == task):
            flows[key[0], key[1]][bucket // step * step][metric] += n
    waiting = _waiting(db)
    for name in waiting:
        if (not queue or name[0] == queue) and (not task or name[1] == task):
            flows[name]  # one that waits is listed, whenever it was sent
    return {
        "since_s": since_s,
        "bucket_s": step,
        "queues": [
            _flow(name, points, since_s, waiting[name]) for name, points in sorted(flows.items())
        ],
    }


def _flow(
    name: tuple[str, str], points: dict[int, Metrics], since_s: float, waiting: int
) -> dict[str, Any]:
    total: Metrics = Counter()
    for metrics in points.values():
        total.update(metrics)
    return {
        "queue": name[0],
        "task": name[1],
        "sent": total[SENT],
        "runs": total[TOTAL],
        "per_s": total[TOTAL] / since_s,
        "failures": total[FAILURES],
        "retries": total[RETRIES],
        "waiting": waiting,
        "wait_ms": _percentiles(total, WAITS),
        "run_ms": _percentiles(total, DURATIONS),
        "series": [_point(at, metrics) for at, metrics in sorted(points.items())],
    }


def _point(at: int, metrics: Metrics) -> dict[str, Any]:
    point: dict[str, Any] = {
        "t": at,
        "runs": metrics[TOTAL],
        "failures": metrics[FAILURES],
        "retries": metrics[RETRIES],
    }
    for name, base in (("wait", WAITS), ("run", DURATIONS)):
        point |= {f"{name}_{p}": value for p, value in _percentiles(metrics, base).items()}
    return point


def _percentiles(metrics: Metrics, base: int) -> dict[str, float | None]:
    """Return p50, p95 and p99 of the histogram that begins at *base*, in milliseconds."""
    bins = sorted((m - base, n) for m, n in metrics.items() if base <= m < base + 2000 and n > 0)
    count = sum(n for _, n in bins)
    result: dict[str, float | None] = {}
    for percent in PERCENTILES:
        seen, value = 0, None
        for number, n in bins:
            seen += n
            if seen * 100 >= count * percent:
                value = round(middle_of(number), 3)
                break
        result[f"p{percent}"] = value
    return result


def service_map(db: sqlite3.Connection, since_s: float) -> dict[str, Any]:
    """Return services, queues and stores, and how often one calls or feeds another."""
    since_s = _sane(since_s)
    resolution, _ = _steps(since_s)
    nodes: dict[str, Metrics] = defaultdict(Counter)
    edges: dict[tuple[str, str], Metrics] = defaultdict(Counter)
    for _, key, metric, n in _read(db, "node", resolution, since_s):
        nodes[key[0]][metric] += n
    for _, key, metric, n in _read(db, "edge", resolution, since_s):
        edges[key[0], key[1]][metric] += n
    for edge in edges:
        for end in edge:
            nodes[end]
    return {
        "nodes": [
            {
                "id": node,
                "kind": node.partition(":")[0],
                "name": node.partition(":")[2],
                "count": metrics[TOTAL],
                "errors": metrics[FAILURES],
            }
            for node, metrics in sorted(nodes.items())
        ],
        "edges": [
            {
                "from": start,
                "to": end,
                "count": metrics[TOTAL],
                "per_s": metrics[TOTAL] / since_s,
                "errors": metrics[FAILURES],
                # Out of a queue it is the wait, else how long the call took.
                "p50_ms": _percentiles(metrics, WAITS if start[:6] == "queue:" else DURATIONS)[
                    "p50"
                ],
            }
            for (start, end), metrics in sorted(edges.items())
        ],
    }


def _sane(since_s: float) -> float:
    return max(60.0, min(since_s, 366 * 86_400.0))


def _steps(since_s: float) -> tuple[int, int]:
    """Return which resolution to read, and the seconds from one point in time to the next."""
    resolution = next(r for r, kept in RESOLUTIONS if kept is None or since_s <= kept)
    points = since_s / resolution
    return resolution, resolution * max(1, -int(-points // MOST_POINTS))


def _read(
    db: sqlite3.Connection, kind: str, resolution: int, since_s: float
) -> Iterable[tuple[int, list[str], int, int]]:
    keys = {
        number: json.loads(value)
        for number, value in db.execute("SELECT id, value FROM terms WHERE kind = ?", (kind,))
    }
    first = int(time.time() - since_s) // resolution * resolution
    for bucket, term, metric, n in db.execute(
        "SELECT bucket, term, metric, n FROM counts WHERE resolution = ? AND bucket >= ?",
        (resolution, first),
    ):
        if term in keys and n > 0:
            yield bucket, keys[term], metric, n


def _waiting(db: sqlite3.Connection) -> Counter[tuple[str, str]]:
    found = db.execute(
        f"SELECT queue, task, count(*) FROM waiting WHERE {BACKLOG} GROUP BY queue, task",
        times(time.time_ns(), STUCK_AFTER),
    )
    return Counter({(queue, task): count for queue, task, count in found})
