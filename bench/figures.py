"""The figures: how each is measured, turn by turn, for one variant. Times are in seconds."""

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from .stand import Run, await_that
from .variants import BARE, CONTRIB, OURS, UNSAMPLED, Variant

#: Messages, or requests, before those that count: before the first turn, and before each.
WARM, AGAIN = 300, 50

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
    #: The number of samples of the first three from the same processes.
    turns: int


FULL = Size(tasks=1_000, prefork=1_000, requests=600, away=3_000, growth=100_000, turns=6)
QUICK = Size(tasks=250, prefork=200, requests=250, away=300, growth=0, turns=3)


@dataclass(frozen=True, slots=True)
class Take:
    """How one variant is measured: *turns* sets up, and gives a sample each time it is asked."""

    variant: Variant
    turns: Callable[[Run], Iterator[Sample]]
    away: bool = False


@dataclass(frozen=True, slots=True)
class Figure:
    """A measurement of the variants by name, in a number of *rounds* with a number of *turns*.

    A round starts the processes of all variants at once, and measures them in turn. So other work
    of the machine affects all of them, and the layout of their memory differs in each round.
    """

    title: str
    takes: Mapping[str, Take]
    rounds: int
    turns: int = 1


def figures(size: Size, rounds: int) -> Sequence[Figure]:
    """Return all of them."""

    def each(
        turns: Callable[[Run, int], Iterator[Sample]], count: int, *variants: Variant
    ) -> dict[str, Take]:
        return {one.name: Take(one, lambda run: turns(run, count)) for one in variants}

    three = BARE, CONTRIB, OURS
    latency = each(_latency, size.away, BARE, OURS)
    latency["ours, collector away"] = replace(latency[OURS.name], away=True)
    turns = size.turns
    made = [
        Figure("publish and run", each(_cpu, size.tasks, *three), rounds, turns),
        Figure("tasks a second", each(_tasks, size.prefork, *three, UNSAMPLED), rounds, turns),
        Figure("requests a second", each(_requests, size.requests, *three), rounds, turns),
        Figure("collector away", latency, rounds),
    ]
    if size.growth:
        growth = each(_growth, size.growth, BARE, OURS)
        made.append(Figure("growth", growth, max(1, rounds // 3)))
    return made


def _cpu(run: Run, count: int) -> Iterator[Sample]:
    """CPU of a publish, and of a run in a solo worker, the sending of their spans included."""
    run.publish(f"nothing={WARM}")
    run.hand_over()
    worker = run.work("solo")
    while True:
        published = run.publish("mark=begin", f"nothing={count}", "mark=end")[-1]
        run.hand_over()
        begin, end = run.marks(2, worker)
        yield {
            "publish": published["cpu"] / count,
            "publish, helpers": published["helpers"] / count,
            "run": (end["cpu until"] - begin["cpu"]) / count,
            "run, helpers": (end["helpers"] - begin["helpers"]) / count,
        }


def _tasks(run: Run, count: int) -> Iterator[Sample]:
    """Tasks a second of a prefork worker with two processes."""
    worker = run.work("prefork", 2)
    while True:
        run.publish(f"nothing={count + WARM}")
        received = run.stand.receiver.spans
        run.hand_over()
        await_that("the worker is warm", lambda: run.waiting() <= count, worker)
        before, began, left = run.usage(worker), time.perf_counter(), run.waiting()
        await_that("the queue is empty", lambda: run.waiting() == 0, worker, 600.0)
        took, after = time.perf_counter() - began, run.usage(worker)
        run.settle(received, count + WARM)
        yield {
            "rate": left / took,
            "cpu": (after.cpu - before.cpu) / left,
            "cpu, helpers": (after.helpers - before.helpers) / left,
        }


def _requests(run: Run, count: int) -> Iterator[Sample]:
    """Requests a second of a page that publishes, under gunicorn."""
    port = run.serve()
    warm = WARM
    while True:
        received = run.stand.receiver.spans
        [line] = run.ask("bench.load", *map(str, (port, count, warm, 2)))
        run.settle(received, 2 * (count + warm))
        warm = AGAIN
        yield {"rate": line["rate"]}


def _latency(run: Run, count: int) -> Iterator[Sample]:
    """The 99th percentile of a request, one after the other, and of a task in a solo worker."""
    port = run.serve()
    [line] = run.ask("bench.load", *map(str, (port, count, WARM, 1)))
    run.forget()
    run.publish("mark=away", f"timed={count}", "mark=away")
    run.hand_over()
    _, end = run.marks(2, run.work("solo"))
    gaps = sorted(after - before for before, after in itertools.pairwise(end["starts"]))
    yield {"request": line["p99"], "task": gaps[int(len(gaps) * 0.99)]}


def _growth(run: Run, count: int) -> Iterator[Sample]:
    """CPU of a run and resident memory of a solo worker: early, and after *count* tasks."""
    early, piece = count // 100, count // 25
    between = count - early - 2 * piece
    run.publish(
        *(f"nothing={early}", "mark=a", f"nothing={piece}", "mark=b"),
        *(f"nothing={between}", "mark=c", f"nothing={piece}", "mark=d"),
    )
    run.hand_over()
    a, b, c, d = run.marks(4, run.work("solo"))
    yield {
        "cpu early": (b["cpu"] - a["cpu"]) / piece,
        "cpu late": (d["cpu"] - c["cpu"]) / piece,
        "resident early": a["resident"] / 1e6,
        "resident late": d["resident"] / 1e6,
    }
