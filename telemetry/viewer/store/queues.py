"""The list of queues: their depth, waits, throughput and failures."""

import json
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..analysis import counts
from ..analysis.counts import DURATIONS, WAITS, Flow
from .database import rows_of
from .stored_counts import Metrics, Range, percentiles, points, terms, totals
from .waiting import BACKLOG, STATES, times

#: The most exceptions shown of a queue.
MOST_GROUPS = 20

#: The metrics by their names in the API.
NAMES = {
    "sent": counts.SENT,
    "unsent": counts.UNSENT,
    "runs": counts.TOTAL,
    "failures": counts.FAILURES,
    "retries": counts.RETRIES,
    "expired": counts.EXPIRED,
    "rejected": counts.REJECTED,
    "revoked": counts.REVOKED,
}

#: States of a queue, the most urgent first.
STALLED, GROWING, WAITING, OK = "stalled", "growing", "waiting", "ok"
ORDER = (STALLED, GROWING, WAITING, OK)

#: A queue is growing if its depth rose by at least this in the last tenth of the range.
GROWTH = 10


@dataclass(slots=True)
class Backlog:
    """The messages of a flow that no worker has taken: their number, and the oldest due time."""

    depth: int = 0
    oldest_ns: int | None = None
    scheduled: int = 0
    stuck: int = 0
    expired: int = 0
    #: The number that became due in each bucket. Those before the range are in the first.
    due: Counter[int] = field(default_factory=Counter)

    @classmethod
    def sum_of(cls, found: Iterable["Backlog"]) -> "Backlog":
        """Return the messages of several flows together."""
        total = cls()
        for backlog in found:
            total.add(backlog)
        return total

    def add(self, other: "Backlog") -> None:
        """Add the messages of another flow."""
        self.depth += other.depth
        self.scheduled += other.scheduled
        self.stuck += other.stuck
        self.expired += other.expired
        self.due.update(other.due)
        oldest = [ns for ns in (self.oldest_ns, other.oldest_ns) if ns is not None]
        self.oldest_ns = min(oldest, default=None)


def queues(db: sqlite3.Connection, since_s: float, stuck_after_ns: int) -> dict[str, Any]:
    """Return each queue with its tasks, the most urgent first."""
    asked = Range.last(db, since_s)
    names = flows(db)
    waiting = backlogs(db, asked, stuck_after_ns)
    counted = totals(db, asked, names)
    over_time = points(db, asked, names, WAITS)
    failed = failures(db, asked, names)
    grouped: dict[tuple[str, str], list[Flow]] = defaultdict(list)
    number_of = {flow: number for number, flow in names.items()}
    for flow in {*(names[number] for number in counted), *waiting}:
        grouped[flow[0], flow[1]].append(flow)
    found = []
    for (broker, queue), of_queue in grouped.items():
        numbers = [number_of[flow] for flow in of_queue if flow in number_of]
        backlog = Backlog.sum_of(waiting[flow] for flow in of_queue if flow in waiting)
        metrics = sum_of(counted.get(number, Counter()) for number in numbers)
        last_ns = _last_run(db, numbers)
        series = series_of(asked, [over_time.get(number, {}) for number in numbers], backlog)
        found.append(
            {
                "queue": queue,
                "broker": broker,
                "tasks": sorted(flow[2] for flow in of_queue),
                "state": queue_state(asked, backlog, series, last_ns, stuck_after_ns),
                "last_run_ns": None if last_ns is None else str(last_ns),
                **facts(asked, metrics, backlog),
                "exceptions": _merge([failed.get(number, Counter()) for number in numbers]),
                "series": series,
            }
        )
    found.sort(key=_urgency)
    return {"since_s": asked.since_s, "bucket_s": asked.step, "now": asked.now, "queues": found}


def _urgency(queue: Mapping[str, Any]) -> tuple[Any, ...]:
    waits = queue["wait_ms"]["p95"] or 0
    age = queue["oldest_ms"] or 0
    urgent = ORDER.index(queue["state"]), -age, -queue["depth"], -queue["failures"]
    return *urgent, -waits, queue["queue"]


def flows(db: sqlite3.Connection) -> dict[int, Flow]:
    """Return every broker, queue and task by its term."""
    return {n: (v[0], v[1], v[2]) for n, v in terms(db, "flow").items() if len(v) == 3}


def facts(asked: Range, metrics: Metrics, backlog: Backlog) -> dict[str, Any]:
    """Return the numbers of a queue or a task in the format of the API."""
    now_ns = int(asked.now * 1e9)
    oldest = backlog.oldest_ns
    return {
        "depth": backlog.depth,
        "oldest_ms": None if oldest is None else max(0, now_ns - oldest) / 1e6,
        "scheduled": backlog.scheduled,
        "stuck": backlog.stuck,
        "expired_waiting": backlog.expired,
        **{name: metrics[metric] for name, metric in NAMES.items()},
        "in_per_s": metrics[counts.SENT] / asked.counted_s,
        # A run may take several messages.
        "out_per_s": max(metrics[counts.TOTAL], metrics[counts.TAKEN]) / asked.counted_s,
        "wait_ms": percentiles(metrics, WAITS),
        "run_ms": percentiles(metrics, DURATIONS),
    }


def backlogs(
    db: sqlite3.Connection, asked: Range, stuck_after_ns: int, queue: str | None = None
) -> dict[Flow, Backlog]:
    """Return the messages that no worker has taken, by flow: of one *queue*, or of all.

    Of the expired, those of the range are returned.
    """
    states = ", ".join(
        f"sum({STATES[state]}) AS {state}" for state in ("scheduled", "stuck", "expired")
    )
    rows = rows_of(
        db,
        "broker, queue, task, bucket, depth, oldest, scheduled, stuck, expired",
        "SELECT broker, queue, task, max(due_ns / 1000000000 / :step * :step, :first) AS bucket, "
        f"sum({BACKLOG}) AS depth, min(iif({BACKLOG}, due_ns, NULL)) AS oldest, {states} "
        f"FROM waiting WHERE {'TRUE' if queue is None else 'queue = :queue'} "
        "AND expires_ns >= :begin GROUP BY broker, queue, task, bucket",
        {
            "step": asked.step,
            "first": asked.first,
            "begin": asked.first_ns,
            "queue": queue,
            **times(int(asked.now * 1e9), stuck_after_ns),
        },
    )
    found: dict[Flow, Backlog] = defaultdict(Backlog)
    for broker, queue, task, bucket, depth, oldest, scheduled, stuck, expired in rows:
        due = Counter({bucket: depth}) if depth else Counter[int]()
        found[broker, queue, task].add(Backlog(depth, oldest, scheduled, stuck, expired, due))
    return found


def depths(asked: Range, over_time: Iterable[Mapping[int, Metrics]], backlog: Backlog) -> list[int]:
    """Return the number of messages that waited at the end of each bucket.

    Those are the messages that were due and still wait, and those that were taken later. The number
    of the latter is 0 now, so it is counted backward from the end.
    """
    net: Counter[int] = Counter()
    for found in over_time:
        for bucket, metrics in found.items():
            net[bucket] += metrics[counts.ARRIVED] - metrics[counts.TAKEN]
    taken_later, later = [], 0
    for bucket in reversed(asked.buckets):
        taken_later.append(later)
        later -= net[bucket]
    depth, still = [], 0
    for bucket, of_taken in zip(asked.buckets, reversed(taken_later), strict=True):
        still += backlog.due[bucket]
        depth.append(max(0, still + of_taken))
    return depth


def series_of(
    asked: Range, over_time: Sequence[Mapping[int, Metrics]], backlog: Backlog
) -> list[dict[str, Any]]:
    """Return for each bucket the messages sent, the runs, and the depth at its end."""
    merged: dict[int, Metrics] = defaultdict(Counter)
    for found in over_time:
        for bucket, metrics in found.items():
            merged[bucket].update(metrics)
    none: Metrics = Counter()
    return [
        {
            "t": bucket,
            "depth": depth,
            **{
                name: merged.get(bucket, none)[NAMES[name]] for name in ("sent", "runs", "failures")
            },
        }
        for bucket, depth in zip(asked.buckets, depths(asked, over_time, backlog), strict=True)
    ]


def queue_state(
    asked: Range,
    backlog: Backlog,
    series: list[dict[str, Any]],
    last_ns: int | None,
    stuck_after_ns: int,
) -> str:
    """Return the state. A queue is stalled if messages are stuck and no worker takes any."""
    if not backlog.depth:
        return OK
    idle_ns = asked.now * 1e9 - last_ns if last_ns is not None else float("inf")
    if backlog.stuck and idle_ns >= stuck_after_ns:
        return STALLED
    tail = series[-max(2, len(series) // 10) :]
    if tail[-1]["depth"] - tail[0]["depth"] >= GROWTH:
        return GROWING
    return WAITING


def _last_run(db: sqlite3.Connection, numbers: Iterable[int]) -> int | None:
    """Return the start of the last run of these flows, in Unix nanoseconds."""
    found: int | None = db.execute(
        "SELECT max((SELECT max(start_ns) FROM runs WHERE flow = value)) FROM json_each(?)",
        (json.dumps(list(numbers)),),
    ).fetchone()[0]
    return found


def failures(
    db: sqlite3.Connection, asked: Range, numbers: Iterable[int]
) -> dict[int, Counter[str]]:
    """Return for each flow the number of runs that each exception ended."""
    rows = rows_of(
        db,
        "flow, kind, n",
        "SELECT flow, terms.value AS kind, count(*) AS n FROM json_each(:flows) AS one "
        "CROSS JOIN runs CROSS JOIN terms WHERE flow = one.value AND start_ns >= :first "
        "AND failure <> 0 AND terms.id = failure GROUP BY flow, failure",
        {"flows": json.dumps(list(numbers)), "first": asked.first_ns},
    )
    found: dict[int, Counter[str]] = defaultdict(Counter)
    for flow, kind, count in rows:
        found[flow][kind] += count
    return found


def _merge(found: Iterable[Counter[str]]) -> list[dict[str, Any]]:
    merged: Counter[str] = Counter()
    for one in found:
        merged.update(one)
    return [{"type": kind, "count": count} for kind, count in merged.most_common(MOST_GROUPS)]


def sum_of(found: Iterable[Metrics]) -> Metrics:
    """Return the sum of *found*."""
    total: Metrics = Counter()
    for metrics in found:
        total.update(metrics)
    return total
