"""Send a task through each queue, and wait for its result."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from celery import Celery, uuid
from celery.app.routes import Router
from opentelemetry import trace

from ..propagation.configured import configured_propagators
from ..selfcheck import Process
from .broker import is_lost, reason, refusal
from .finding import Finding
from .mailbox import Mailbox
from .nobody import nobody
from .origin import origin
from .publishing import check_send
from .results import check_result
from .spool_directory import check_directory
from .web_process import check_process
from .workers import SET_UP, Workers


@dataclass
class _Probe:
    """A message to *queue*, in the trace of *origin*, and the answer of the task if it ran."""

    queue: str
    origin: trace.SpanContext
    id: str = field(default_factory=uuid)
    result: Any = None
    answer: dict[str, Any] | None = None


def check_probes(
    app: Celery, mailbox: Mailbox, queues: Iterable[str], workers: Workers, timeout: float,
    *, results: bool, counted: bool,
) -> Iterator[Finding]:  # fmt: skip
    """Send a probe to each of *queues*, and wait *timeout* seconds for the answers.

    With *results*, check that the result of each probe arrives too.
    """
    # A sampler by ratio drops this id, unless its ratio is 1.
    probes = [_Probe(queue, origin((1 << 64) - 1, counted)) for queue in queues]
    deadline = time.monotonic() + timeout
    try:
        _send(app, mailbox, probes, workers, timeout, results)
        mailbox.wait(timeout, lambda: all(probe.id in mailbox.answers for probe in probes))
    except Exception as exc:
        yield not_published(exc)
        return
    for probe in probes:
        probe.answer = mailbox.answers.get(probe.id)
    lost = ", ".join(probe.queue for probe in probes if probe.answer is None)
    if lost and not workers:
        yield nobody(app)
    elif lost:
        # A probe without headers does not name the queue for its answer.
        yield from check_send(app, mailbox, counted)
        yield Finding(
            "probe-unanswered", "worker",
            f"no worker ran the probe sent to {lost} within {timeout:g} s{_busy(workers)}",
            "wait until the workers are free, or give --timeout; otherwise see the worker's log",
        )  # fmt: skip
    answered = [probe for probe in probes if probe.answer is not None]
    yield from _check_answers(app, answered, workers, deadline, results)
    if answered and not workers:
        yield Finding(
            "remote-control-off", "worker",
            "the workers run tasks and do not answer remote control: their tasks, clocks and "
            "queues were not checked",
            "set worker_enable_remote_control to true and the same control_exchange on both sides",
            hint=True,
        )  # fmt: skip


def _send(
    app: Celery, mailbox: Mailbox, probes: Iterable[_Probe], workers: Workers, timeout: float,
    results: bool,
) -> None:  # fmt: skip
    # A worker whose clock is ahead must not discard the probes as expired.
    ahead = max([0.0, *(a.get("time", 0.0) - a["received"] for a in workers.values())])
    # Not the application's own router, which may read arguments that a probe does not have.
    router = Router((), app.amqp.queues, create_missing=True, app=app)
    for probe in probes:
        probe.result = mailbox.send(
            probe.origin, probe.id, queue=probe.queue, router=router,
            expires=timeout + ahead, ignore_result=not results,
        )  # fmt: skip


def _check_answers(
    app: Celery, answered: Iterable[_Probe], workers: Workers, deadline: float, results: bool
) -> Iterable[Finding]:
    """Return what the answers show. Queues of one worker have the same problems."""
    found: dict[str, Finding] = {}
    backends = {answer.get("backend") or "no result backend" for answer in workers.values()}
    for probe in answered:
        assert probe.answer is not None
        for finding in _check_answer(probe, probe.answer, workers):
            found.setdefault(finding.code, finding)
        if results and "result-missing" not in found:
            for finding in check_result(app, probe.result, deadline, backends):
                found.setdefault(finding.code, finding)
    return found.values()


def _busy(workers: Workers) -> str:
    busy = [
        f"{name} runs {_tasks(answer['running'])} and has {answer['waiting']} more"
        for name, answer in sorted(workers.items())
        if answer.get("running")
    ]
    return f": {'; '.join(busy)}" if busy else ""


def _tasks(count: int) -> str:
    return "1 task" if count == 1 else f"{count} tasks"


def _check_answer(sent: _Probe, answer: dict[str, Any], workers: Workers) -> Iterator[Finding]:
    child = Process.of(answer["process"])
    # Two workers may have one name.
    name = str(answer.get("worker"))
    mains = [w for n, w in workers.items() if n.partition(" (process ")[0] == name]
    has_main = mains[0]["process"]["provider"] if len(mains) == 1 else child.provider
    if child.provider and not has_main:
        yield _only("children")
    for finding in check_process(child, "worker", SET_UP):
        yield _only("parent") if finding.code == "no-provider" and has_main else finding
    if any(module.endswith(".celery") for module in child.doubled):
        yield doubled("worker")
    if unwritable := check_directory(child, "worker"):
        yield unwritable
    yield from _check_arrival(sent, answer, child)


def _check_arrival(sent: _Probe, answer: dict[str, Any], child: Process) -> Iterator[Finding]:
    trace_id = trace.format_trace_id(sent.origin.trace_id)
    arrived = answer["traceparent"]
    # Other propagators carry the trace without a traceparent.
    if (
        trace_id not in str(arrived)
        and (arrived or "traceparent" in configured_propagators().fields)
        and (answer["trace_id"] != trace_id)
    ):
        yield Finding(
            "header-stripped", "queue",
            f"the probe sent to {sent.queue} in trace {trace_id[:8]}… arrived "
            + (f"with traceparent {arrived}" if arrived else "without a traceparent"),
            "look for a before_task_publish handler, a serializer or a proxy that drops headers",
        )  # fmt: skip
    elif answer["trace_id"] != trace_id:
        yield Finding(
            "run-apart", "worker", "the run starts another trace than that of its message",
            "set the same OTEL_PROPAGATORS on both sides, and relation to 'child'",
        )  # fmt: skip
    elif child.provider and not answer["recording"] and not str(arrived).endswith("-00"):
        yield Finding(
            "sampler-drops-all", "worker",
            "the worker's sampler drops runs that the sender has sampled",
            "set OTEL_TRACES_SAMPLER to parentbased_always_on in the worker",
        )  # fmt: skip
    elif not answer["delivered"]:
        why = answer.get("last_export_error")
        yield Finding(
            "worker-export-failed", "export", "the worker's spans do not reach the collector"
            + (f": {why}" if why else ""),
            "start the collector, or correct the settings in the worker's environment" if why
            else "run the doctor on the worker's host and in its environment, for the reason",
        )  # fmt: skip


def not_published(exc: Exception) -> Finding:
    """Report that publishing, or a wait for an answer, raised *exc*."""
    if is_lost(exc):
        return Finding(
            "broker-unreachable", "queue", f"the broker no longer answers ({reason(exc)})",
            "start it, or see its log; then run the doctor again",
        )  # fmt: skip
    return Finding(
        "not-published", "queue",
        f"the broker refuses a message of this Celery app: {reason(exc)}",
        known if (known := refusal(exc)) else "correct that: delay() and apply_async() raise it",
    )  # fmt: skip


def _only(where: str) -> Finding:
    who = {"parent": "main process has", "children": "child processes have"}[where]
    return Finding(
        f"set-up-only-in-{where}", "worker", f"only the worker's {who} a tracer provider", SET_UP
    )


def doubled(hop: str) -> Finding:
    """Report that contrib's CeleryInstrumentor is active at *hop* too."""
    return Finding(
        "celery-doubled", hop,
        "OpenTelemetry's CeleryInstrumentor is active too: each task has two spans on each side",
        "remove CeleryInstrumentor or instrument_celery()",
    )  # fmt: skip
