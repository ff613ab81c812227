"""Check the path of a message: publisher, broker, workers, result backend."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any

from celery import Celery, _state
from kombu import compression

from ..celery.producer import SEND_TRACER
from ..propagation.doctor import DOCTOR_TASK
from ..selfcheck import Process, describe_process
from .broker import check_broker, is_lost, is_permission, reason
from .finding import Finding
from .mailbox import Mailbox
from .names import check_names
from .probes import check_probes, doubled, not_published
from .publishing import check_shared_tasks, check_task_classes
from .results import check_result_backend, wants_results
from .web_process import check_unused_names
from .workers import Workers, ask, check_worker

#: kombu has no types for it.
_get_encoder: Any = compression.get_encoder

#: Seconds to wait for probes if no worker has answered remote control.
_BLIND = 3.0


def check_queue(
    app: Celery, timeout: float, *, web: Process | None, used: Celery,
    published: Mapping[str, str], counted: bool, step: Callable[[str], None],
) -> Iterator[Finding]:  # fmt: skip
    """Ask the workers of *app*, then send a probe to each of their queues; wait *timeout* seconds.

    *web* describes the web side if it was loaded. *used* is the current Celery app of its threads,
    *published* has the queues to which its views publish, each with a task.
    """
    yield from _check_publisher(app)
    yield from check_shared_tasks(app, used)
    if unsendable := _check_settings(app):
        yield unsendable
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
        if not is_permission(exc):
            yield not_published(exc)
            return
        workers = {}  # as if remote control were off
    yield from _check_workers(app, web, workers)
    if not all(answer.get("probed") for answer in workers.values()):
        return
    try:
        yield from _check_queues_and_probe(
            app, workers, timeout if workers else min(timeout, _BLIND), step, published=published,
            results=backend is None and wants_results(app), counted=counted,
        )  # fmt: skip
    except Exception as exc:
        if not is_lost(exc):
            raise
        yield not_published(exc)


def _check_workers(app: Celery, web: Process | None, workers: Workers) -> Iterator[Finding]:
    for name, answer in sorted(workers.items()):
        yield from check_worker(name, answer)
    yield from check_names(app, web, workers)
    for answer in workers.values():
        if "process" in answer:
            yield from check_unused_names(Process.of(answer["process"]), "worker")


def _check_settings(app: Celery) -> Finding | None:
    """Report a setting of *app* that keeps it from publishing."""
    if app.conf.task_always_eager:
        return Finding(
            "tasks-eager", "queue",
            "task_always_eager is on: tasks run in the caller, and no message is sent",
            "set it in tests only",
        )  # fmt: skip
    name = app.conf.task_compression
    try:
        _get_encoder(name or "gzip")
    except KeyError:
        return Finding(
            "not-published", "queue",
            f"task_compression {name!r} is not installed: delay() and apply_async() raise",
            "install it on both sides (celery[zstd], celery[brotli]), or set gzip",
        )  # fmt: skip
    return None


def _check_queues_and_probe(
    app: Celery, workers: Workers, timeout: float, step: Callable[[str], None],
    *, published: Mapping[str, str], results: bool, counted: bool,
) -> Iterator[Finding]:  # fmt: skip
    wanted = _wanted(app)
    for queue, task in published.items():
        wanted.setdefault(queue, [task])
    # Without remote control, the probes find out which queues are consumed.
    served = {queue for answer in workers.values() for queue in answer["queues"]}
    queues = served if workers else set(wanted)
    for queue in sorted(set(wanted) - queues):
        task = min(wanted[queue], default="")
        yield Finding(
            "queue-not-consumed", "queue",
            f"no worker consumes the queue {queue}"
            + (f", and {task} is sent to it" if task else ""),
            f"start a worker with -Q {queue}" + ("" if task else ", or remove it from task_queues"),
        )  # fmt: skip
    yield from _check_tasks(app, wanted, workers)
    with ExitStack() as stack:
        mailbox = Mailbox(app)
        try:
            stack.enter_context(mailbox)
        except Exception as exc:
            yield _no_mailbox(mailbox, exc)
            return
        step("publishing by the project's own Task classes")
        yield from check_task_classes(app, mailbox, counted)
        step(f"sending a probe to {', '.join(sorted(queues))}, for up to {timeout:g} s")
        yield from check_probes(
            app, mailbox, sorted(queues), workers, timeout, results=results, counted=counted
        )


def _no_mailbox(mailbox: Mailbox, exc: Exception) -> Finding:
    if not is_permission(exc):
        return not_published(exc)
    return Finding(
        "probe-not-permitted", "queue",
        f"the broker's user may not use {mailbox.name}, where the doctor waits for answers, so no "
        f"task was tried ({reason(exc)})",
        "let the user declare, write and read queues with .reply.celery.pidbox in their names, "
        "which Celery's remote control needs too; or run the doctor with a user who may",
    )  # fmt: skip


def _check_publisher(app: Celery) -> Iterator[Finding]:
    instrumented = hasattr(app, SEND_TRACER)
    contrib = any(module.endswith(".celery") for module in describe_process().doubled)
    if instrumented and contrib:
        yield doubled("queue")
    elif not instrumented and not contrib:  # messages of contrib carry a trace too
        other = any(hasattr(each, SEND_TRACER) for each in _state._get_active_apps())
        yield Finding(
            "celery-not-instrumented", "queue",
            "the Celery app is not instrumented: its messages carry no trace"
            + (". instrument_celery() was called with another app" if other else ""),
            "call telemetry.celery.instrument_celery(app) right after you create the Celery app",
        )  # fmt: skip


def _wanted(app: Celery) -> dict[str, list[str]]:
    """Return the queues of *app*, each with the tasks that are routed to it."""
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
            continue  # a router of the application, which reads the arguments
        if "queue" in route and not _is_broadcast(route["queue"]):
            wanted[route["queue"].name].append(name)
    return wanted or {app.conf.task_default_queue: []}


def _is_broadcast(queue: Any) -> bool:
    return bool(queue.exchange and queue.exchange.type == "fanout")


def _check_tasks(app: Celery, wanted: dict[str, list[str]], workers: Workers) -> Iterator[Finding]:
    """Check that each worker has registered the tasks of *app* that are routed to its queues."""
    for worker, answer in sorted(workers.items()):
        if "tasks" not in answer:
            continue  # it is not instrumented
        known = {*answer["tasks"]}
        coming = {task for queue in answer["queues"] for task in wanted.get(queue, ())}
        missing = sorted((coming & set(app.tasks)) - known)
        if missing:
            yield Finding(
                "worker-lacks-task", "worker",
                f"{worker} has not registered {', '.join(missing[:5])}"
                + (f" and {len(missing) - 5} more tasks" if len(missing) > 5 else "")
                + ", and discards such messages",
                "restart the worker with the current code, and let its Celery app import the "
                "modules of these tasks (include=…, autodiscover_tasks)",
            )  # fmt: skip
