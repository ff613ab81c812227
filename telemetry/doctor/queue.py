"""From the producer through the broker to the code of a task: a message really goes there."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

from celery import Celery, _state

from ..celery.producer import PRODUCER
from ..propagation.doctor import DOCTOR_TASK
from ..selfcheck import Process, describe_process
from .broker import check_broker
from .finding import Finding
from .mailbox import Mailbox
from .names import check_names
from .probes import check_probes, doubled, not_published
from .publishing import check_shared_tasks, check_task_classes
from .results import check_result_backend, wants_results
from .web_process import check_unused_names
from .workers import Workers, ask, check_worker

__all__ = ["check_queue"]

#: Seconds for a probe where no worker has answered to remote control.
_BLIND = 3.0


def check_queue(
    app: Celery, timeout: float, *, web: Process | None, used: Celery, counted: bool,
    step: Callable[[str], None],
) -> Iterator[Finding]:  # fmt: skip
    """Ask every worker of *app*, then send each of their queues a probe; wait *timeout* seconds.

    *web* describes the web side, if it was loaded; threads there have *used* as their Celery app.
    """
    yield from _check_publisher(app)
    yield from check_shared_tasks(app, used)
    if app.conf.task_always_eager:
        yield Finding(
            "tasks-eager", "queue", "task_always_eager is on: tasks run where they are called",
            "set it in tests alone: with it no message is sent",
        )  # fmt: skip
        return
    step("connecting to the broker")
    if broken := check_broker(app):
        yield broken
        return
    step("looking up a result in the result backend")
    backend = check_result_backend(app)
    if backend is not None:
        yield backend
    step("asking the workers, for up to 3 s")
    try:
        workers = ask(app)
    except Exception as exc:
        yield not_published(exc)
        return
    for name, answer in sorted(workers.items()):
        yield from check_worker(name, answer)
    yield from check_names(app, web, workers)
    for answer in workers.values():
        if "process" in answer:
            yield from check_unused_names(Process.of(answer["process"]), "worker")
    if not all(answer.get("probed") for answer in workers.values()):
        return
    yield from _check_queues_and_probe(
        app, workers, timeout if workers else min(timeout, _BLIND), step,
        results=backend is None and wants_results(app), counted=counted,
    )  # fmt: skip


def _check_queues_and_probe(
    app: Celery, workers: Workers, timeout: float, step: Callable[[str], None],
    *, results: bool, counted: bool,
) -> Iterator[Finding]:  # fmt: skip
    wanted = _wanted(app)
    # Without remote control nobody says which queues are taken from: the probes do.
    served = {queue for answer in workers.values() for queue in answer["queues"]}
    queues = served if workers else set(wanted)
    for queue in sorted(set(wanted) - queues):
        task = min(wanted[queue], default="")
        yield Finding(
            "queue-not-consumed", "queue",
            f"no worker takes messages from queue {queue}" + (task and f", where {task} goes"),
            f"start a worker with -Q {queue}" + ("" if task else ", or remove it from task_queues"),
        )  # fmt: skip
    yield from _check_tasks(app, wanted, workers)
    try:
        with Mailbox(app) as mailbox:
            step("publishing by the project's own Task classes")
            yield from check_task_classes(app, mailbox, counted)
            step(f"sending a probe to {', '.join(sorted(queues))}, for up to {timeout:g} s")
            yield from check_probes(
                app, mailbox, sorted(queues), workers, timeout, results=results, counted=counted
            )
    except OSError as exc:
        yield not_published(exc)


def _check_publisher(app: Celery) -> Iterator[Finding]:
    instrumented = hasattr(app, PRODUCER)
    contrib = any(module.endswith(".celery") for module in describe_process().doubled)
    if instrumented and contrib:
        yield doubled("queue")
    elif not instrumented and not contrib:  # contrib's messages carry a trace as well
        other = any(hasattr(each, PRODUCER) for each in _state._get_active_apps())
        yield Finding(
            "celery-not-instrumented", "queue", "no message of this Celery app carries a trace"
            + (": instrument_celery() was called on another one" if other else ""),
            "call telemetry.celery.instrument_celery(app) where the Celery app is made",
        )  # fmt: skip


def _wanted(app: Celery) -> dict[str, list[str]]:
    """Return the queues that messages may go to, each with the tasks that go there."""
    declared = list(app.amqp.queues.values()) if app.conf.task_queues else []
    wanted: dict[str, list[str]] = defaultdict(list)
    for queue in declared:
        if not _is_broadcast(queue):
            wanted[queue.name]
    router = app.amqp.router
    named = [name for route in router.routes for name in getattr(route, "map", ())]
    for name in [*app.tasks, *named]:
        if name.startswith("celery.") or name == DOCTOR_TASK:
            continue
        queue = getattr(app.tasks.get(name), "queue", None)
        try:
            route = router.route({"queue": queue} if queue else {}, name)
        except Exception:
            continue  # a router of the application's own, which wants to see arguments
        if "queue" in route and not _is_broadcast(route["queue"]):
            wanted[route["queue"].name].append(name)
    return wanted or {app.conf.task_default_queue: []}


def _is_broadcast(queue: Any) -> bool:
    return bool(queue.exchange and queue.exchange.type == "fanout")


def _check_tasks(app: Celery, wanted: dict[str, list[str]], workers: Workers) -> Iterator[Finding]:
    """Check that each worker knows the tasks of *app* whose messages go to its queues."""
    for worker, answer in sorted(workers.items()):
        if "tasks" not in answer:
            continue  # an older release, which does not list them
        known = {*answer["tasks"]}
        coming = {task for queue in answer["queues"] for task in wanted.get(queue, ())}
        missing = sorted((coming & set(app.tasks)) - known)
        if missing:
            yield Finding(
                "worker-lacks-task", "worker",
                f"{worker} takes messages of {', '.join(missing[:5])}"
                + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
                + " and has no such task: it rejects them",
                "restart the worker with the code of this project, and let its app import the "
                "modules of these tasks (include=…, autodiscover_tasks)",
            )  # fmt: skip
