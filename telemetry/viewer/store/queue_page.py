"""The page of one queue, or of one task in it."""

import heapq
import json
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import starmap
from operator import itemgetter
from typing import Any, NamedTuple

from ..analysis import counts
from ..analysis.counts import DURATIONS, WAITS, Flow, queue_node
from ..analysis.messaging import error_of
from .database import rows_of
from .queues import Backlog, backlogs, facts, flows, queue_state, series_of, sum_of
from .read import read_spans
from .stored_counts import Metrics, Range, percentiles, points, terms, totals
from .waiting import STATE, times

#: The most runs that are read, the newest first, and the most flows in one query.
MOST_RUNS, MOST_SELECTS = 5_000, 400

#: The most dots in the scatter plot besides the maxima, rows in each list, and workers.
MOST_DOTS, MOST_ROWS, MOST_WORKERS = 500, 10, 100

#: The outcome of a run, by its metric.
OUTCOMES = {
    0: "ok",
    counts.FAILURES: "failed",
    counts.RETRIES: "retried",
    counts.EXPIRED: "expired",
    counts.REJECTED: "rejected",
    counts.REVOKED: "revoked",
}


@dataclass(frozen=True, slots=True)
class Asked:
    """A queue, or a task in it if *task* is not None. If *broker* is None, on all brokers."""

    queue: str
    task: str | None = None
    broker: str | None = None

    def matches(self, flow: Flow) -> bool:
        """Return whether *flow* belongs to the queue or task."""
        broker, queue, task = flow
        return queue == self.queue and self.task in (None, task) and self.broker in (None, broker)


class Ran(NamedTuple):
    """A row of the table of runs."""

    start_ns: int
    wait_ns: int | None
    prefetch_ns: int
    duration_ns: int
    outcome: int
    worker: int
    producer: int
    trace: int
    span_id: str


def queue_page(
    db: sqlite3.Connection, asked: Asked, since_s: float, stuck_after_ns: int
) -> dict[str, Any]:
    """Return the content of the page of a queue or task."""
    during = Range.last(db, since_s)
    names = {number: flow for number, flow in flows(db).items() if asked.matches(flow)}
    waiting = {
        flow: backlog
        for flow, backlog in backlogs(db, during, stuck_after_ns, asked.queue).items()
        if asked.matches(flow)
    }
    backlog = Backlog.sum_of(waiting.values())
    over_time = points(db, during, names)
    counted = {number: sum_of(found.values()) for number, found in over_time.items()}
    series = series_of(during, list(over_time.values()), backlog)
    runs = _runs(db, during, names)
    last_ns = runs[0].start_ns if runs else None
    return {
        "since_s": during.since_s,
        "bucket_s": during.step,
        "now": during.now,
        "queue": asked.queue,
        "task": asked.task,
        "brokers": sorted({flow[0] for flow in (*names.values(), *waiting)}),
        "state": queue_state(during, backlog, series, last_ns, stuck_after_ns),
        "last_run_ns": None if last_ns is None else str(last_ns),
        **facts(during, sum_of(counted.values()), backlog),
        "series": [
            {**point, **_times(sum_of(found[point["t"]] for found in over_time.values()))}
            for point in series
        ],
        "tasks": [] if asked.task is not None else _tasks(during, names, counted, waiting),
        "producers": _producers(db, during, asked, names, runs),
        "looked_at": len(runs),
        "complete": len(runs) < MOST_RUNS,
        "workers": _workers(db, runs),
        "workers_in_all": len({run.worker for run in runs}),
        "exceptions": _exceptions(db, during, names),
        "scatter": _scatter(db, during, runs),
        "slowest": _slowest(db, runs),
        "oldest": _oldest(db, asked, int(during.now * 1e9), stuck_after_ns),
    }


def _times(metrics: Metrics) -> dict[str, float | None]:
    return {
        f"{name}_{percent[1:]}": value
        for name, base in (("wait", WAITS), ("run", DURATIONS))
        for percent, value in percentiles(metrics, base).items()
    }


def _tasks(
    during: Range,
    names: dict[int, Flow],
    counted: dict[int, Metrics],
    waiting: dict[Flow, Backlog],
) -> list[dict[str, Any]]:
    by_task: dict[str, list[Flow]] = defaultdict(list)
    numbers = {flow: number for number, flow in names.items()}
    for flow in {*waiting, *(names[number] for number in counted)}:
        by_task[flow[2]].append(flow)
    found = []
    for task, of_task in by_task.items():
        backlog = Backlog.sum_of(waiting[flow] for flow in of_task if flow in waiting)
        metrics = sum_of(counted.get(numbers.get(flow, 0), Counter()) for flow in of_task)
        found.append({"task": task, **facts(during, metrics, backlog)})
    return sorted(found, key=lambda task: (-task["depth"], -task["runs"], task["task"]))


def _runs(db: sqlite3.Connection, during: Range, numbers: Iterable[int]) -> list[Ran]:
    """Return the newest runs of these flows, the newest first."""
    # The primary key sorts the runs of a flow. SQLite merges the flows, and stops after MOST_RUNS.
    flows = list(numbers)
    found: list[list[Any]] = []
    for at in range(0, len(flows), MOST_SELECTS):
        of_flows = " UNION ALL ".join(
            f"SELECT * FROM runs WHERE flow = {int(flow)} AND start_ns >= :first"
            for flow in flows[at : at + MOST_SELECTS]
        )
        found += rows_of(
            db,
            "start_ns, wait_ns, prefetch_ns, duration_ns, outcome, worker, producer, trace, "
            "lower(hex(span_id))",
            f"{of_flows} ORDER BY start_ns DESC LIMIT :most",
            {"first": during.first_ns, "most": MOST_RUNS},
        )
    found.sort(key=itemgetter(0), reverse=True)
    return list(starmap(Ran, found[:MOST_RUNS]))


def _producers(
    db: sqlite3.Connection,
    during: Range,
    asked: Asked,
    names: dict[int, Flow],
    runs: list[Ran],
) -> list[dict[str, Any]]:
    """Return the services that send the most: for a task, only messages that ran count."""
    sent: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    if asked.task is None:
        nodes = {queue_node(flow[0], flow[1]) for flow in names.values()}
        edges = {n: ends for n, ends in terms(db, "edge").items() if ends[1] in nodes}
        for number, metrics in totals(db, during, edges, WAITS).items():
            service = edges[number][0].partition(":")[2]
            sent[service] += metrics[counts.TOTAL]
            failed[service] += metrics[counts.FAILURES]
    else:
        known = _names(db, (run.producer for run in runs))
        sent.update(known[run.producer] for run in runs if run.producer)
    return [
        {"service": service, "sent": count, "failures": failed[service]}
        for service, count in sent.most_common(MOST_ROWS)
    ]


def _workers(db: sqlite3.Connection, runs: list[Ran]) -> list[dict[str, Any]]:
    by_worker: dict[int, list[Ran]] = defaultdict(list)
    for run in runs:
        by_worker[run.worker].append(run)
    names = _names(db, by_worker)
    found = []
    for worker, its in sorted(by_worker.items(), key=lambda w: -len(w[1]))[:MOST_WORKERS]:
        service, host = json.loads(names[worker])
        found.append(
            {
                "service": service,
                "worker": host,
                "runs": len(its),
                "share": len(its) / len(runs),
                "failures": sum(run.outcome == counts.FAILURES for run in its),
                "run_p50_ms": _percentile([r.duration_ns for r in its if r.duration_ns], 50),
                "prefetch_p50_ms": _percentile([run.prefetch_ns for run in its], 50),
                "prefetch_p95_ms": _percentile([run.prefetch_ns for run in its], 95),
                "last_run_ns": str(its[0].start_ns),
            }
        )
    return found


def _percentile(values: list[int], percent: int) -> float | None:
    """Return a percentile of *values*, which are nanoseconds, in milliseconds."""
    if not values:
        return None
    values.sort()
    return values[min(len(values) - 1, len(values) * percent // 100)] / 1e6


def _exceptions(
    db: sqlite3.Connection, during: Range, numbers: Iterable[int]
) -> list[dict[str, Any]]:
    """Return the exceptions, the most frequent first, each with its newest run."""
    # Of the columns without an aggregate, SQLite returns those of the row with max(start_ns).
    rows = db.execute(
        "SELECT failure, count(*) AS n, sum(outcome = :retried) AS retried, "
        "max(start_ns) AS newest, trace, span_id FROM json_each(:flows) AS one CROSS JOIN runs "
        "WHERE flow = one.value AND start_ns >= :first AND failure <> 0 "
        "GROUP BY failure ORDER BY n DESC, failure LIMIT :most",
        {
            "retried": counts.RETRIES,
            "flows": json.dumps(list(numbers)),
            "first": during.first_ns,
            "most": MOST_ROWS,
        },
    ).fetchall()
    names = _names(db, (row[0] for row in rows))
    trace_ids = _trace_ids(db, (row[4] for row in rows))
    found = []
    for failure, count, retried, _, trace, span_id in rows:
        spans = list(read_spans(db, trace, span_id))
        found.append(
            {
                "type": names[failure],
                "count": count,
                "retried": retried,
                "message": (error_of(spans[0]) or "")[:300] if spans else "",
                "trace_id": trace_ids.get(trace, ""),
                "span_id": span_id.hex(),
            }
        )
    return found


def _scatter(db: sqlite3.Connection, during: Range, runs: list[Ran]) -> list[dict[str, Any]]:
    """Return the dots of some runs: the longest wait of each bucket, and an even sample."""
    waited = [run for run in runs if run.wait_ns is not None]
    longest: dict[int, Ran] = {}
    for run in waited:
        bucket = run.start_ns // (during.step * 10**9)
        best = longest.get(bucket)
        if best is None or (run.wait_ns or 0) > (best.wait_ns or 0):
            longest[bucket] = run
    step = max(1, len(waited) // MOST_DOTS)
    # The sample must not change with every new run, or the plot would flicker.
    others = [run for run in waited if run.start_ns // 1000 % step == 0]
    shown = dict.fromkeys([*longest.values(), *others])
    ids = _trace_ids(db, (run.trace for run in shown))
    return [
        {
            "t": run.start_ns / 1e9,
            "wait_ms": (run.wait_ns or 0) / 1e6,
            "outcome": OUTCOMES.get(run.outcome, "ok"),
            "trace_id": ids[run.trace],
        }
        for run in sorted(shown, key=lambda run: run.start_ns)
        if run.trace in ids
    ]


def _slowest(db: sqlite3.Connection, runs: list[Ran]) -> dict[str, list[dict[str, Any]]]:
    def row(run: Ran) -> dict[str, Any]:
        return {
            "start_ns": str(run.start_ns),
            "wait_ms": None if run.wait_ns is None else run.wait_ns / 1e6,
            "run_ms": run.duration_ns / 1e6,
            "outcome": OUTCOMES.get(run.outcome, "ok"),
            **_link(db, run),
        }

    by_wait = heapq.nlargest(MOST_ROWS, runs, key=lambda run: run.wait_ns or 0)
    ran = [run for run in runs if run.duration_ns]
    by_run = heapq.nlargest(MOST_ROWS, ran, key=lambda run: run.duration_ns)
    return {"wait": [row(run) for run in by_wait], "run": [row(run) for run in by_run]}


def _oldest(
    db: sqlite3.Connection, asked: Asked, now_ns: int, stuck_after_ns: int
) -> list[dict[str, Any]]:
    """Return the messages that wait longest or are due next."""
    rows = db.execute(
        f"SELECT traces.trace_id, oldest.span_id, task, due_ns, {STATE} FROM ("
        "SELECT * FROM waiting WHERE queue = :queue AND (:task IS NULL OR task = :task) "
        "AND (:broker IS NULL OR broker = :broker) AND expires_ns > :now "
        "ORDER BY due_ns LIMIT :most"
        ") AS oldest JOIN traces ON traces.id = oldest.trace ORDER BY due_ns",
        {
            "queue": asked.queue,
            "task": asked.task,
            "broker": asked.broker,
            "most": MOST_ROWS,
            **times(now_ns, stuck_after_ns),
        },
    )
    return [
        {
            "trace_id": trace_id.hex(),
            "span_id": span_id.hex(),
            "task": task,
            "due_ns": str(due),
            "waited_ms": max(0, now_ns - due) / 1e6,
            "state": state,
        }
        for trace_id, span_id, task, due, state in rows
    ]


def _names(db: sqlite3.Connection, numbers: Iterable[int]) -> dict[int, str]:
    return _by_number(db, "id, value", "SELECT id, value FROM terms", numbers)


def _trace_ids(db: sqlite3.Connection, numbers: Iterable[int]) -> dict[int, str]:
    return _by_number(db, "id, lower(hex(trace_id))", "SELECT id, trace_id FROM traces", numbers)


def _by_number(
    db: sqlite3.Connection, columns: str, select: str, numbers: Iterable[int]
) -> dict[int, str]:
    """Return the second of *columns* of the rows with *numbers*, by number."""
    where = " WHERE id IN (SELECT value FROM json_each(:numbers))"
    return dict(rows_of(db, columns, select + where, {"numbers": json.dumps(list(set(numbers)))}))


def _link(db: sqlite3.Connection, run: Ran) -> dict[str, str]:
    return {
        "trace_id": _trace_ids(db, [run.trace]).get(run.trace, ""),
        "span_id": run.span_id,
    }
