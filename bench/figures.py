"""The figures: how each is measured, once, for one variant. Times are in seconds."""

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from .stand import Run, Stand, await_that
from .variants import BARE, CONTRIB, OURS, UNSAMPLED, Variant

__all__ = ["Figure", "Size", "figures"]

#: Messages, or requests, before those that count.
WARM = 300

Sample = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Size:
    """How much is done for one sample of a figure."""

    tasks: int
    prefork: int
    requests: int
    away: int
    #: 0 where it is not measured: less than tens of thousands say nothing.
    growth: int


FULL = Size(tasks=4_000, prefork=10_000, requests=5_000, away=3_000, growth=100_000)
QUICK = Size(tasks=800, prefork=1_500, requests=1_200, away=600, growth=0)


@dataclass(frozen=True, slots=True)
class Figure:
    """What is measured together, in so many rounds, of which variants.

    Each is a name for the variant and how to take one sample of it.
    """

    title: str
    takes: Mapping[str, Callable[[Stand], Sample]]
    rounds: int


def figures(size: Size, rounds: int) -> Sequence[Figure]:
    """Return all of them."""

    def each(
        take: Callable[[Run, int], Sample], count: int, *variants: Variant
    ) -> Mapping[str, Callable[[Stand], Sample]]:
        return {one.name: _in_a_run(take, count, one) for one in variants}

    latency = {
        **each(_latency, size.away, BARE, OURS),
        "ours, collector away": _in_a_run(_latency, size.away, OURS, away=True),
    }
    made = [
        Figure("publish and run", each(_cpu, size.tasks, BARE, CONTRIB, OURS), rounds),
        Figure(
            "tasks a second", each(_tasks, size.prefork, BARE, CONTRIB, OURS, UNSAMPLED), rounds
        ),
        Figure("requests a second", each(_requests, size.requests, BARE, CONTRIB, OURS), rounds),
        Figure("collector away", latency, rounds),
    ]
    if size.growth:
        growth = each(_growth, size.growth, BARE, OURS)
        made.append(Figure("growth", growth, max(1, rounds // 3)))
    return made


def _in_a_run(
    take: Callable[[Run, int], Sample], count: int, variant: Variant, *, away: bool = False
) -> Callable[[Stand], Sample]:
    def taken(stand: Stand) -> Sample:
        with stand.run(variant, away=away) as run:
            return take(run, count)

    return taken


def _cpu(run: Run, count: int) -> Sample:
    """CPU of a publish, and of a run in a solo worker, the sending of their spans included."""
    received = run.stand.receiver.spans
    traced = 0 if run.variant is BARE else 1
    lines = run.publish(f"nothing={WARM}", "mark=begin", f"nothing={count}", "mark=end")
    published = lines[-1]
    sent = received + traced * (WARM + count)
    after_publish = run.helpers(sent)
    worker = run.work("solo")
    begin, end = run.marks(2, worker)
    after_run = run.helpers(sent + traced * (WARM + count))
    return {
        "publish": published["cpu"] / count,
        "publish, helpers": (after_publish - published["helpers_before"]) / count,
        "run": (end["cpu"] - begin["cpu"]) / count,
        "run, helpers": (after_run - begin["helpers"]) / count,
    }


def _tasks(run: Run, count: int) -> Sample:
    """Tasks a second of a prefork worker with two processes."""
    run.publish(f"nothing={count}")
    worker = run.work("prefork", 2)
    warm = count - WARM
    await_that("the worker is warm", lambda: run.waiting() < warm, worker)
    began, left = time.perf_counter(), run.waiting()
    before = run.usage()
    await_that("the queue is empty", lambda: run.waiting() == 0, worker, 600.0)
    took = time.perf_counter() - began
    after = run.usage()
    return {
        "rate": left / took,
        "cpu": (after.cpu - before.cpu) / left,
        "cpu, helpers": (after.helpers - before.helpers) / left,
    }


def _requests(run: Run, count: int) -> Sample:
    """Requests a second of a page that publishes, under gunicorn."""
    port = run.serve()
    [line] = run.ask("bench.load", *map(str, (port, count, WARM, 2)))
    return {"rate": line["rate"]}


def _latency(run: Run, count: int) -> Sample:
    """The 99th percentile of a request, one after the other, and of a task in a solo worker."""
    port = run.serve()
    [line] = run.ask("bench.load", *map(str, (port, count, WARM, 1)))
    run.stand.broker.flushall()
    run.publish("mark=away", f"timed={count}", "mark=away")
    _, end = run.marks(2, run.work("solo"))
    gaps = sorted(after - before for before, after in itertools.pairwise(end["starts"]))
    return {"request": line["p99"], "task": gaps[int(len(gaps) * 0.99)]}


def _growth(run: Run, count: int) -> Sample:
    """CPU of a run and resident memory of a solo worker: early, and after *count* tasks."""
    early, piece = count // 100, count // 25
    between = count - early - 2 * piece
    run.publish(
        *(f"nothing={early}", "mark=a", f"nothing={piece}", "mark=b"),
        *(f"nothing={between}", "mark=c", f"nothing={piece}", "mark=d"),
    )
    a, b, c, d = run.marks(4, run.work("solo"))
    return {
        "cpu early": (b["cpu"] - a["cpu"]) / piece,
        "cpu late": (d["cpu"] - c["cpu"]) / piece,
        "resident early": a["resident"] / 1e6,
        "resident late": d["resident"] / 1e6,
    }
