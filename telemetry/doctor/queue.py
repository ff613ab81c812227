"""From the producer through the broker to the code of a task: a message really goes there."""

import secrets
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from celery import Celery, _state
from celery.app.routes import Router
from kombu import entity
from opentelemetry import context as otel_context
from opentelemetry import trace

from ..celery import probe
from ..selfcheck import Process, describe_process
from .broker import address, check_broker
from .directory import not_writable
from .finding import Finding
from .web_process import check_process

__all__ = ["check_queue"]

#: Seconds for workers to answer to remote control.
CALL = 2.0

#: Clocks further apart than this, in seconds, make waits wrong.
SKEW = 0.5

_POOLS = {"prefork": "prefork", "solo": "solo", "thread": "threads", "gevent": "gevent"}

Workers = Mapping[str, dict[str, Any]]


def check_queue(app: Celery, timeout: float) -> Iterator[Finding]:
    """Ask every worker of *app*, then send each of their queues a probe; wait *timeout* seconds."""
    yield from _check_publisher(app)
    if app.conf.task_always_eager:
        yield Finding(
            "tasks-eager", "queue", "task_always_eager is on: tasks run where they are called",
            "set it in tests alone: with it no message is sent",
        )  # fmt: skip
        return
    if broken := check_broker(app):
        yield broken
        return
    asked = time.time()
    try:
        workers = _ask(app)
    except Exception as exc:
        yield _not_published(exc)
        return
    if not workers and app.conf.worker_enable_remote_control:
        yield _nobody(app, CALL)
        return
    for name, answer in sorted(workers.items()):
        yield from _check_worker(name, answer)
        yield from _check_clock(name, answer, asked)
    if not all(answer.get("probed") for answer in workers.values()):
        return
    wanted = _wanted(app)
    # Without remote control nobody says which queues are taken from: the probes do.
    told = {queue for answer in workers.values() for queue in answer["queues"]}
    taken = told if workers else set(wanted)
    for queue in sorted(set(wanted) - taken):
        task = wanted[queue]
        yield Finding(
            "queue-not-consumed", "queue",
            f"no worker takes messages from queue {queue}" + (task and f", where {task} goes"),
            f"start a worker with -Q {queue}" + ("" if task else ", or remove it from task_queues"),
        )  # fmt: skip
    ahead = max([0.0, *(answer.get("time", asked) - asked for answer in workers.values())])
    yield from _check_probes(
        app, [_Probe(queue) for queue in sorted(taken)], workers, timeout, ahead
    )


def _check_publisher(app: Celery) -> Iterator[Finding]:
    instrumented = hasattr(app, "queuehop")
    contrib = any(module.endswith(".celery") for module in describe_process().doubled)
    if instrumented and contrib:
        yield _doubled("queue")
    elif not instrumented and not contrib:  # contrib's messages carry a trace as well
        other = any(hasattr(each, "queuehop") for each in _state._get_active_apps())
        yield Finding(
            "celery-not-instrumented", "queue", "no message of this Celery app carries a trace"
            + (": instrument_celery() was called on another one" if other else ""),
            "call telemetry.celery.instrument_celery(app) where the Celery app is made",
        )  # fmt: skip


def _ask(app: Celery) -> Workers:
    """Return what each worker of *app* answers, by its name."""
    if not app.conf.worker_enable_remote_control:
        return {}
    answers = app.control.broadcast(probe.COMMAND, reply=True, timeout=CALL) or []
    return {name: answer for reply in answers for name, answer in reply.items()}


def _nobody(app: Celery, waited: float) -> Finding:
    """Say why nobody has answered for *waited* seconds: perhaps the serializer, so ask in JSON."""
    with app.connection_for_write() as connection:
        uri = address(connection)
        serializer = app.conf.task_serializer
        if serializer != "json":
            mailbox = app.control.mailbox(connection)
            mailbox.accept = ["json", serializer]
            if mailbox._broadcast(probe.COMMAND, reply=True, timeout=CALL, serializer="json"):
                return Finding(
                    "serializer-refused", "worker", f"the workers take no message in {serializer}",
                    f"let accept_content name {serializer}, or set task_serializer to another",
                )  # fmt: skip
    return Finding(
        "no-worker", "worker", f"no worker on {uri} answered within {waited:g} s",
        "start one; if one runs, it has another broker_url, or its main process is busy or stopped",
    )  # fmt: skip


def _wanted(app: Celery) -> dict[str, str]:
    """Return the queues that messages may go to, each with a task that goes there."""
    declared = list(app.amqp.queues.values()) if app.conf.task_queues else []
    wanted = {queue.name: "" for queue in declared if not _is_broadcast(queue)}
    router = app.amqp.router
    named = [name for route in router.routes for name in getattr(route, "map", ())]
    for name in [*app.tasks, *named]:
        if name.startswith("celery.") or name == probe.TASK:
            continue
        queue = getattr(app.tasks.get(name), "queue", None)
        try:
            route = router.route({"queue": queue} if queue else {}, name)
        except Exception:
            continue  # a router of the application's own, which wants to see arguments
        if "queue" in route and not _is_broadcast(route["queue"]):
            wanted[route["queue"].name] = wanted.get(route["queue"].name) or name
    return wanted or {app.conf.task_default_queue: ""}


def _is_broadcast(queue: Any) -> bool:
    return bool(queue.exchange and queue.exchange.type == "fanout")


_SET_UP = "call instrument_celery(app) at import: it sets up the main process and its children"


def _check_worker(name: str, answer: dict[str, Any]) -> Iterator[Finding]:
    if "process" not in answer or not answer["probed"]:
        yield Finding(
            "worker-not-instrumented", "worker",
            f"{name} runs without instrument_celery: it does not know the doctor's probe",
            "call instrument_celery(app) in the module that the worker's -A names; restart it",
        )  # fmt: skip
        return
    if not answer["pool"].startswith(tuple(f"celery.concurrency.{pool}." for pool in _POOLS)):
        yield Finding(
            "pool-not-covered", "worker", f"{name} runs the pool {answer['pool']}",
            f"use one of --pool {', '.join(_POOLS.values())}",
        )  # fmt: skip
    process = Process.of(answer["process"])
    for finding in check_process(process, "worker", _SET_UP):
        if finding.code != "no-provider":  # the probe says which processes lack it
            yield finding
    if process.unwritable:
        yield not_writable("worker", process.unwritable)


def _check_clock(name: str, answer: dict[str, Any], asked: float) -> Iterator[Finding]:
    now = time.time()
    told = answer.get("time", now)
    if not asked - SKEW <= told <= now + SKEW:
        yield Finding(
            "clocks-apart", "worker", f"the clock of {name} is {told - asked:+.0f} s from this one",
            "keep the clocks of both hosts by NTP: waits and the order of spans are wrong",
        )  # fmt: skip


@dataclass
class _Probe:
    """A message to *queue*, in the trace of *origin*; what was answered from a task, if it was."""

    queue: str
    origin: trace.SpanContext = field(
        # With this low half a sampler that goes by a ratio keeps nothing, unless it keeps all.
        default_factory=lambda: trace.SpanContext(
            secrets.randbits(64) << 64 | (1 << 64) - 1,
            secrets.randbits(64) | 1,
            True,
            trace.TraceFlags(1),
        )
    )
    id: str = field(default_factory=lambda: secrets.token_hex(16))
    answer: dict[str, Any] | None = None


def _check_probes(
    app: Celery, probes: list[_Probe], workers: Workers, timeout: float, ahead: float
) -> Iterator[Finding]:
    """Send all *probes*; workers whose clock is *ahead* must not take them for expired."""
    try:
        _travel(app, probes, timeout, timeout + ahead)
    except Exception as exc:
        yield _not_published(exc)
        return
    lost = ", ".join(each.queue for each in probes if each.answer is None)
    if lost and not workers:
        yield _nobody(app, timeout)
    elif lost:
        yield Finding(
            "probe-unanswered", "worker",
            f"no task ran in {timeout:g} s for the probe sent to {lost}{_busy(workers.items())}",
            "wait until the workers are free, or give --timeout; else see the worker's log",
        )  # fmt: skip
    found: dict[str, Finding] = {}
    for each in probes:
        if each.answer is not None:
            for finding in _check_answer(each, each.answer, workers):
                # What one queue has is not said for each of the others again.
                found.setdefault(finding.code, finding)
    yield from found.values()


def _busy(workers: Iterable[tuple[str, dict[str, Any]]]) -> str:
    busy = [
        f"{name} is busy with {answer['running']} and holds {answer['waiting']} more"
        for name, answer in sorted(workers)
        if answer.get("running")
    ]
    return f": {'; '.join(busy)}" if busy else ""


def _travel(app: Celery, probes: list[_Probe], timeout: float, expires: float) -> None:
    """Send *probes*, each to its queue; put into each what it reports."""
    name = f"queuehop.doctor.{secrets.token_hex(8)}"
    by_id = {each.id: each for each in probes}

    def on_answer(body: dict[str, Any], message: Any) -> None:
        if (found := by_id.get(message.properties.get("correlation_id"))) is not None:
            found.answer = body

    # Without the application's own routes, which may want arguments that no probe has.
    router = Router((), app.amqp.queues, create_missing=True, app=app)
    reply = _Queue(name, exchange="", routing_key=name, durable=False, exclusive=True)
    with app.connection_for_read() as connection:
        bound = reply(connection.default_channel)
        bound.queue_declare()
        consumer = connection.Consumer(
            [bound], callbacks=[on_answer], no_ack=True, auto_declare=False, accept=["json"]
        )
        with consumer:
            for each in probes:
                context = trace.set_span_in_context(trace.NonRecordingSpan(each.origin))
                token = otel_context.attach(context)
                try:
                    app.send_task(
                        probe.TASK, task_id=each.id, queue=each.queue, router=router,
                        reply_to=name, expires=expires, ignore_result=True,
                    )  # fmt: skip
                finally:
                    otel_context.detach(token)
            deadline = time.monotonic() + timeout
            while any(each.answer is None for each in probes):
                if (left := deadline - time.monotonic()) <= 0:
                    break
                try:
                    connection.drain_events(timeout=left)
                except TimeoutError:
                    break
        bound.delete()


#: kombu is half typed.
_Queue: Any = entity.Queue


def _check_answer(sent: _Probe, answer: dict[str, Any], workers: Workers) -> Iterator[Finding]:
    child = Process.of(answer["process"])
    set_up = {worker["process"]["provider"] for worker in workers.values()}
    if child.provider and set_up == {False}:
        yield _only("children")
    for finding in check_process(child, "worker", _SET_UP):
        yield _only("parent") if finding.code == "no-provider" and True in set_up else finding
    if any(module.endswith(".celery") for module in child.doubled):
        yield _doubled("worker")
    yield from _check_arrival(sent, answer, child)


def _check_arrival(sent: _Probe, answer: dict[str, Any], child: Process) -> Iterator[Finding]:
    trace_id = trace.format_trace_id(sent.origin.trace_id)
    if trace_id not in str(answer["traceparent"]):
        arrived = answer["traceparent"]
        yield Finding(
            "header-stripped", "queue",
            f"the probe sent to {sent.queue} in trace {trace_id[:8]}… arrived "
            + (f"with traceparent {arrived}" if arrived else "without a traceparent"),
            "look for a before_task_publish handler, a serializer or a proxy that drops headers",
        )  # fmt: skip
    elif answer["trace_id"] != trace_id:
        yield Finding(
            "run-apart", "worker", "the run does not go on in the trace that its message brought",
            "let OTEL_PROPAGATORS be the same on both sides, and relation be 'child'",
        )  # fmt: skip
    elif child.provider and not answer["recording"]:
        yield Finding(
            "sampler-drops-all", "worker", "the worker's sampler drops what the sender sampled",
            "set OTEL_TRACES_SAMPLER to parentbased_always_on in the worker",
        )  # fmt: skip
    elif not answer["delivered"]:
        why = answer.get("last_export_error")
        yield Finding(
            "worker-export-failed", "export", "the worker's own spans do not reach the collector"
            + (f": {why}" if why else ""),
            "run the doctor in the worker's host and environment to see why",
        )  # fmt: skip


def _not_published(exc: Exception) -> Finding:
    return Finding(
        "not-published", "queue",
        f"a message of this Celery app cannot be published: {type(exc).__name__}: {exc}",
        "mend that first: every delay() and apply_async() meets it",
    )  # fmt: skip


def _only(where: str) -> Finding:
    who = {"parent": "main process has", "children": "children have"}[where]
    return Finding(
        f"set-up-only-in-{where}", "worker", f"only the worker's {who} a tracer provider", _SET_UP
    )


def _doubled(hop: str) -> Finding:
    return Finding(
        "celery-doubled", hop, "OpenTelemetry's CeleryInstrumentor is active as well",
        "remove one of the two: each task makes two spans at each end",
    )  # fmt: skip
