"""A task really goes through each queue, and its result comes back."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from celery import Celery, uuid
from celery.app.routes import Router
from opentelemetry import trace

from ..propagation.configured import configured_propagators
from ..selfcheck import Process
from .broker import reason
from .finding import Finding
from .mailbox import Mailbox
from .origin import origin
from .publishing import check_send
from .results import check_result
from .web_process import check_process
from .workers import SET_UP, Workers, nobody

__all__ = ["check_probes", "doubled", "not_published"]


@dataclass
class _Probe:
    """A message to *queue*, in the trace of *origin*; what was answered from a task, if it was."""

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

    With *results* each probe has a result, which must arrive too.
    """
    # With this low half a sampler that goes by a ratio drops all, unless it takes all.
    probes = [_Probe(queue, origin((1 << 64) - 1, counted)) for queue in queues]
    # Workers whose clock is ahead must not take the probes for expired.
    ahead = max([0.0, *(a.get("time", 0.0) - a["received"] for a in workers.values())])
    # Without the application's own routes, which may want arguments that no probe has.
    router = Router((), app.amqp.queues, create_missing=True, app=app)
    deadline = time.monotonic() + timeout
    try:
        for probe in probes:
            probe.result = mailbox.send(
                probe.origin, probe.id, queue=probe.queue, router=router,
                expires=timeout + ahead, ignore_result=not results,
            )  # fmt: skip
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
        # Without headers a probe does not say where to answer.
        yield from check_send(app, mailbox, counted)
        yield Finding(
            "probe-unanswered", "worker",
            f"no task ran in {timeout:g} s for the probe sent to {lost}{_busy(workers)}",
            "wait until the workers are free, or give --timeout; else see the worker's log",
        )  # fmt: skip
    answered = [probe for probe in probes if probe.answer is not None]
    found: dict[str, Finding] = {}
    backends = {answer.get("backend") or "no result backend" for answer in workers.values()}
    for probe in answered:
        assert probe.answer is not None
        for finding in _check_answer(probe, probe.answer, workers):
            # What one queue has is not reported for each of the others again.
            found.setdefault(finding.code, finding)
        if results and "result-missing" not in found:
            for finding in check_result(app, probe.result, deadline, backends):
                found.setdefault(finding.code, finding)
    yield from found.values()
    if answered and not workers:
        yield Finding(
            "remote-control-off", "worker",
            "the workers run tasks and do not answer to remote control, so their tasks, clocks and "
            "queues were not checked",
            "let worker_enable_remote_control be true, at least while the doctor runs", hint=True,
        )  # fmt: skip


def _busy(workers: Workers) -> str:
    busy = [
        f"{name} is busy with {answer['running']} and holds {answer['waiting']} more"
        for name, answer in sorted(workers.items())
        if answer.get("running")
    ]
    return f": {'; '.join(busy)}" if busy else ""


def _check_answer(sent: _Probe, answer: dict[str, Any], workers: Workers) -> Iterator[Finding]:
    child = Process.of(answer["process"])
    set_up = {worker["process"]["provider"] for worker in workers.values() if "process" in worker}
    if child.provider and set_up == {False}:
        yield _only("children")
    for finding in check_process(child, "worker", SET_UP):
        yield _only("parent") if finding.code == "no-provider" and True in set_up else finding
    if any(module.endswith(".celery") for module in child.doubled):
        yield doubled("worker")
    yield from _check_arrival(sent, answer, child)


def _check_arrival(sent: _Probe, answer: dict[str, Any], child: Process) -> Iterator[Finding]:
    trace_id = trace.format_trace_id(sent.origin.trace_id)
    arrived = answer["traceparent"]
    # Propagators of another format carry the trace without a traceparent.
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
            "run-apart", "worker", "the run does not continue the trace that its message brought",
            "let OTEL_PROPAGATORS be the same on both sides, and relation be 'child'",
        )  # fmt: skip
    elif child.provider and not answer["recording"] and not str(arrived).endswith("-00"):
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


def not_published(exc: Exception) -> Finding:
    """Report that publishing raises *exc*."""
    return Finding(
        "not-published", "queue",
        f"a message of this Celery app cannot be published: {reason(exc, None)}",
        "correct that first: every delay() and apply_async() raises it",
    )  # fmt: skip


def _only(where: str) -> Finding:
    who = {"parent": "main process has", "children": "children have"}[where]
    return Finding(
        f"set-up-only-in-{where}", "worker", f"only the worker's {who} a tracer provider", SET_UP
    )


def doubled(hop: str) -> Finding:
    """Report that contrib's instrumentation of Celery is active at *hop* as well."""
    return Finding(
        "celery-doubled", hop, "OpenTelemetry's CeleryInstrumentor is active as well",
        "remove one of the two: each task makes two spans at each end",
    )  # fmt: skip
