"""The counts of one trace, by queue, task, service and store, and a record of each of its runs."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

from opentelemetry.semconv._incubating.attributes.db_attributes import DB_SYSTEM, DB_SYSTEM_NAME
from opentelemetry.semconv._incubating.attributes.host_attributes import HOST_NAME
from opentelemetry.semconv._incubating.attributes.process_attributes import PROCESS_PID
from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE
from opentelemetry.semconv.attributes.exception_attributes import EXCEPTION_TYPE

from ...otlp.decode import ReceivedSpan
from .hops import Trace
from .messaging import broker_of, is_doctors, number, queue_of, retries_of, state_of, task_of, text

#: Longer names are cut.
LONGEST_NAME = 200

#: The metrics. UNSENT counts messages that could not be sent. For a message that a worker took,
#: ARRIVED counts when it was due, and TAKEN when it was taken. The numbers from WAITS and DURATIONS
#: on are the bins of two histograms.
SENT, TOTAL, FAILURES, RETRIES, ARRIVED, TAKEN, EXPIRED, REJECTED, REVOKED, UNSENT = range(10)
WAITS, DURATIONS = 1000, 3000

#: Histogram bins per doubling. The error of a bin is at most 2.2 %.
BINS = 16

#: The length of the finest bucket, in seconds.
BUCKET = 10

#: The subject of a count: ("flow", broker, queue, task), ("node", id) or ("edge", from, to).
Key = tuple[str, ...]

#: A task in a queue of a broker, each "" if unknown.
Flow = tuple[str, str, str]

#: The metric of each final Celery state, except success.
OUTCOMES = {
    "EXPIRED": EXPIRED,
    "REJECTED": REJECTED,
    "UNKNOWN": REJECTED,
    "REVOKED": REVOKED,
    "RETRY": RETRIES,
    "FAILURE": FAILURES,
}

#: The attribute with the worker's name in opentelemetry-instrumentation-celery.
CELERY_HOSTNAME = "celery.hostname"

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.I)


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a task.

    *wait_ns* is the time in the queue and in the prefetch buffer, or None if unknown. *outcome* is
    a metric, or 0 for success. *failure* is the type of the exception. *worker* is the service, and
    the host with the process.
    """

    span_id: str
    flow: Flow
    start_ns: int
    wait_ns: int | None
    prefetch_ns: int
    duration_ns: int
    outcome: int
    failure: str
    worker: tuple[str, str]
    producer: str


def counted(trace: Trace) -> Iterator[tuple[int, Key, int]]:
    """Yield each count of *trace*: the bucket in Unix seconds, the key and the metric."""
    flows = _Flows(trace)
    for span in trace.spans:
        if is_doctors(span):
            continue
        for time_ns, key, metrics in _facts(trace, span, flows):
            bucket = time_ns // (BUCKET * 10**9) * BUCKET
            key = tuple(map(cut, key))
            for metric in metrics:
                yield bucket, key, metric


def runs_of(trace: Trace) -> list[Run]:
    """Return the runs of *trace*."""
    flows = _Flows(trace)
    found = []
    for span in trace.runs:
        if is_doctors(span):
            continue
        wait = trace.waits.get(span.span_id)
        send = flows.send_of(span)
        outcome = _outcome(span)
        found.append(
            Run(
                span_id=span.span_id,
                flow=flows.of(span),
                start_ns=_start_of(trace, span),
                wait_ns=wait.waited_ns if wait else None,
                prefetch_ns=wait.prefetch_ns if wait else 0,
                duration_ns=max(0, span.end_ns - span.start_ns),
                outcome=outcome,
                failure=exception_of(span) if outcome in (FAILURES, RETRIES) else "",
                worker=(cut(span.service), cut(_worker(span))),
                producer=cut(send.service) if send else "",
            )
        )
    return found


class _Flows:
    """The flows of the messages of a trace, merged from both ends: each may lack an attribute."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._runs = {send.span_id: run for run in trace.runs if (send := self.send_of(run))}

    def send_of(self, run: ReceivedSpan) -> ReceivedSpan | None:
        """Return the send of *run*, even if it is in another trace."""
        wait = self._trace.waits.get(run.span_id)
        return self._trace.causes.get(run.span_id) or (wait.send if wait else None)

    def of(self, span: ReceivedSpan) -> Flow:
        """Return the flow of a send or a run. The broker has the name that the producer uses."""
        is_run = self._trace.roles[span.span_id] == "run"
        other = self.send_of(span) if is_run else self._runs.get(span.span_id)
        both = (other, span) if is_run else (span, other)
        ends = [end for end in both if end is not None]

        def first(values: Iterator[str]) -> str:
            return cut(next(filter(None, values), ""))

        return (
            first(map(broker_of, ends)),
            first(map(queue_of, reversed(ends))),
            first(map(task_of, reversed(ends))),
        )


def queue_node(broker: str, queue: str) -> str:
    """Return the id of a queue on the map."""
    return f"queue:{queue}\n{broker}" if broker else f"queue:{queue}"


def name_of(node: str) -> str:
    """Return the name of a node of the map, without its kind and its broker."""
    return node.partition(":")[2].partition("\n")[0]


def _facts(trace: Trace, span: ReceivedSpan, flows: _Flows) -> Iterator[tuple[int, Key, list[int]]]:
    """Yield the counts of *span*: time in nanoseconds, key and metrics."""
    at = _start_of(trace, span)
    service = f"service:{span.service}"
    failed = [FAILURES] if span.status == "ERROR" else []
    role = trace.roles[span.span_id]
    if role:
        flow = flows.of(span)
        node = queue_node(flow[0], flow[1])
    if role == "send":
        yield at, ("flow", *flow), [SENT, *([UNSENT] if failed else [])]
        # A worker publishes a retry itself, so the retry is also an edge from worker to queue.
        yield at, ("edge", service, node), [TOTAL, *failed, _duration(span)]
        yield at, ("node", node), [TOTAL, *failed]
    elif role == "run":
        outcome = [found] if (found := _outcome(span)) else []
        waits = trace.messages_of(span)
        for wait in waits:
            yield max(0, at - wait.waited_ns), ("flow", *flow), [ARRIVED]
        waited = [WAITS + bin_of(wait.waited_ns) for wait in waits]
        taken = [TAKEN] * len(waits)
        # A message that expired, was revoked or rejected has a run of no length.
        lasted = [_duration(span)] if span.end_ns > span.start_ns else []
        yield at, ("flow", *flow), [TOTAL, *outcome, *taken, *waited, *lasted]
        yield at, ("edge", node, service), [TOTAL, *outcome, *waited]
        yield at, ("node", service), [TOTAL, *outcome]
    elif store := text(span.attributes, DB_SYSTEM_NAME, DB_SYSTEM):
        yield at, ("edge", service, f"store:{store}"), [TOTAL, *failed, _duration(span)]
        yield at, ("node", f"store:{store}"), [TOTAL, *failed]
    parent = trace.known.get(span.parent_id)
    if role:
        return
    if parent is None:
        yield at, ("node", service), [TOTAL, *failed]
    elif parent.service != span.service:
        caller = f"service:{parent.service}"
        yield at, ("edge", caller, service), [TOTAL, *failed, _duration(span)]
        yield at, ("node", service), [TOTAL, *failed]


def _start_of(trace: Trace, span: ReceivedSpan) -> int:
    """Return the start of *span*, or when it arrived if the clock of its host is ahead."""
    return min(span.start_ns, trace.arrived_ns)


def _outcome(run: ReceivedSpan) -> int:
    """Return the metric for the outcome of *run*, or 0 if it succeeded."""
    state = state_of(run)
    if state in OUTCOMES:
        return OUTCOMES[state]
    if run.status == "ERROR":
        return FAILURES
    return RETRIES if not state and retries_of(run) else 0


def exception_of(span: ReceivedSpan) -> str:
    """Return the type of the last exception of *span*, or else its ``error.type``, or ``""``."""
    for event in reversed(span.events):
        if kind := text(event.attributes, EXCEPTION_TYPE):
            return cut(kind)
    return cut(text(span.attributes, ERROR_TYPE))


def _worker(run: ReceivedSpan) -> str:
    """Return the host and process of *run*. One host may run several workers of a service."""
    host = text(run.attributes, CELERY_HOSTNAME) or text(run.resource, HOST_NAME)
    pid = number(run.resource, PROCESS_PID)
    # A process id is only unique on its host.
    process = f"pid {int(pid)}" if host and pid is not None else _instance(run.instance)
    return " ".join(filter(None, (host, process)))


def _instance(name: str) -> str:
    """Return the name of an instance of a service as it is shown. A UUID is cut."""
    return f"instance {name[:8] if UUID.fullmatch(name) else name}" if name else ""


def _duration(span: ReceivedSpan) -> int:
    return DURATIONS + bin_of(span.end_ns - span.start_ns)


def cut(name: str) -> str:
    """Return *name*, cut to the longest length."""
    return name[:LONGEST_NAME]


def bin_of(nanoseconds: int) -> int:
    """Return the histogram bin of a duration. The first bin holds everything up to 1 µs."""
    return int(math.log2(max(nanoseconds, 1000) / 1000) * BINS)


def middle_of(number: int) -> float:
    """Return the middle of a bin, in milliseconds. That of the first bin is 0."""
    return float(2 ** ((number + 0.5) / BINS) / 1000) if number else 0.0
