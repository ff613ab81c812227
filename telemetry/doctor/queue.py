"""From the producer through the broker to the code of a task: a message really goes there."""

import secrets
import time
from collections.abc import Iterator
from typing import Any

from celery import Celery
from kombu import entity
from kombu.exceptions import OperationalError
from opentelemetry import context as otel_context
from opentelemetry import trace

from ..celery import probe
from ..propagation import traceparent
from .finding import Finding
from .process import Process, describe
from .web import check_process

__all__ = ["check_queue"]

#: Seconds for workers to answer to remote control.
CALL = 2.0

#: Clocks further apart than this, in seconds, make waits wrong.
SKEW = 0.5

_POOLS = ("prefork", "solo", "thread", "gevent")


def check_queue(app: Celery, timeout: float) -> Iterator[Finding]:
    """Ask every worker of *app*, then send each of their queues a probe; wait *timeout* seconds."""
    if not hasattr(app, "queuehop"):
        yield Finding(
            "celery-not-instrumented", "queue", "no message of this Celery app carries a trace",
            "call telemetry.celery.instrument_celery(app) where the Celery app is made",
        )  # fmt: skip
    if any(module.endswith(".celery") for module in describe().doubled):
        yield _doubled("queue")
    asked = time.time()
    try:
        answers = app.control.broadcast(probe.COMMAND, reply=True, timeout=CALL) or []
    except (OperationalError, OSError) as exc:
        yield Finding(
            "broker-unreachable", "queue", f"the broker does not answer ({type(exc).__name__})",
            "start it, or correct the Celery app's broker_url",
        )  # fmt: skip
        return
    workers = {name: answer for reply in answers for name, answer in reply.items()}
    if not workers:
        yield Finding(
            "no-worker", "worker", f"no worker answered within {CALL:g} s",
            "start one with this broker_url, with remote control enabled",
        )  # fmt: skip
        return
    for name, answer in sorted(workers.items()):
        yield from _check_worker(name, answer)
        yield from _check_clock(name, answer, asked)
    if not all(answer.get("probed") for answer in workers.values()):
        return
    queues = {queue for answer in workers.values() for queue in answer["queues"]}
    for queue in sorted(set(app.amqp.queues) - queues):
        yield Finding(
            "queue-not-consumed", "queue", f"no worker takes messages from queue {queue}",
            f"start a worker with -Q {queue}, or remove the queue",
        )  # fmt: skip
    for queue in sorted(queues):
        yield from _probe(app, queue, workers, timeout)


_SET_UP = "call instrument_celery(app) at import: it sets up the main process and its children"


def _check_worker(name: str, answer: dict[str, Any]) -> Iterator[Finding]:
    if "process" not in answer or not answer["probed"]:
        yield Finding(
            "worker-not-instrumented", "worker", f"{name} does not know the doctor's probe",
            "call instrument_celery(app) in the module that the worker's -A names; restart it",
        )  # fmt: skip
        return
    if not answer["pool"].startswith(tuple(f"celery.concurrency.{pool}." for pool in _POOLS)):
        yield Finding(
            "pool-not-covered", "worker", f"{name} runs the pool {answer['pool']}",
            f"use one of --pool {', '.join(_POOLS)}s",
        )  # fmt: skip
    for finding in check_process(Process(**answer["process"]), "worker", _SET_UP):
        if finding.code != "no-provider":  # the probe says which processes lack it
            yield finding


def _check_clock(name: str, answer: dict[str, Any], asked: float) -> Iterator[Finding]:
    now = time.time()
    told = answer.get("time", now)
    if not asked - SKEW <= told <= now + SKEW:
        yield Finding(
            "clocks-apart", "worker", f"the clock of {name} is {told - asked:+.0f} s from this one",
            "keep the clocks of both hosts by NTP: waits and the order of spans are wrong",
        )  # fmt: skip


def _probe(app: Celery, queue: str, workers: dict[str, Any], timeout: float) -> Iterator[Finding]:
    origin = trace.SpanContext(
        secrets.randbits(128) | 1, secrets.randbits(64) | 1, True, trace.TraceFlags(1)
    )
    answer = _travel(app, queue, origin, timeout)
    if answer is None:
        yield Finding(
            "probe-unanswered", "worker", f"the probe sent to {queue} was not run in {timeout:g} s",
            "see whether the workers are busy (--timeout), and the worker's log",
        )  # fmt: skip
        return
    child = Process(**answer["process"])
    mains = {worker["process"]["pid"]: worker["process"] for worker in workers.values()}
    set_up = {main["provider"] for main in mains.values()}
    if child.provider and set_up == {False}:
        yield _only("children")
    for finding in check_process(child, "worker", _SET_UP):
        if finding.code == "no-provider":
            yield _only("parent") if True in set_up else finding
        elif child.pid not in mains and not any(
            m["carries"] == child.carries and m["service"] == child.service for m in mains.values()
        ):
            yield finding
    if any(module.endswith(".celery") for module in child.doubled):
        yield _doubled("worker")
    yield from _check_arrival(answer, origin, queue, child)


def _check_arrival(
    answer: dict[str, Any], origin: trace.SpanContext, queue: str, child: Process
) -> Iterator[Finding]:
    trace_id = trace.format_trace_id(origin.trace_id)
    if trace_id not in str(answer["traceparent"]):
        yield Finding(
            "header-stripped", "queue",
            f"the probe sent to {queue} in trace {traceparent(origin)[3:11]}… arrived with "
            f"traceparent {answer['traceparent']}",
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
        yield Finding(
            "worker-export-failed", "export", "the worker's own spans do not reach the collector",
            "run the doctor in the worker's host and environment to see why",
        )  # fmt: skip


#: kombu is half typed.
_Queue: Any = entity.Queue


def _travel(
    app: Celery, queue: str, origin: trace.SpanContext, timeout: float
) -> dict[str, Any] | None:
    """Send the probe to *queue* in the trace of *origin*; return what it reports."""
    name = f"queuehop.doctor.{secrets.token_hex(8)}"
    answers: list[dict[str, Any]] = []
    reply = _Queue(name, exchange="", routing_key=name, durable=False, exclusive=True)
    with app.connection_for_read() as connection:
        bound = reply(connection.default_channel)
        bound.queue_declare()
        consumer = connection.Consumer(
            [bound], callbacks=[lambda body, message: answers.append(body)],
            no_ack=True, auto_declare=False, accept=["json"],
        )  # fmt: skip
        with consumer:
            token = otel_context.attach(trace.set_span_in_context(trace.NonRecordingSpan(origin)))
            try:
                app.send_task(
                    probe.TASK, queue=queue, reply_to=name, expires=timeout, ignore_result=True
                )
            finally:
                otel_context.detach(token)
            deadline = time.monotonic() + timeout
            while not answers and (left := deadline - time.monotonic()) > 0:
                try:
                    connection.drain_events(timeout=left)
                except TimeoutError:
                    break
        bound.delete()
    return answers[0] if answers else None


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
