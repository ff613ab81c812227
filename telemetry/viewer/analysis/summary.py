"""A trace in a few words and numbers: its row in the list, what it is found by, what it counts."""

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from opentelemetry.semconv._incubating.attributes.db_attributes import DB_SYSTEM, DB_SYSTEM_NAME
from opentelemetry.semconv._incubating.attributes.http_attributes import HTTP_ROUTE

from ...otlp.decode import ReceivedSpan
from .hops import Trace
from .messaging import is_doctors, queue_of, retries_of, state_of, task_of, text

__all__ = ["Summary", "summarise"]

#: A name that is longer is cut, and a list of them ends after so many.
LONGEST_NAME, MOST_NAMES = 200, 100

#: What is counted. From WAITS and DURATIONS on, one metric for each bin of a histogram.
SENT, TOTAL, FAILURES, RETRIES, WAITS, DURATIONS = 0, 1, 2, 3, 1000, 3000

#: Bins of a histogram to a doubling: within 2.2 % of the truth.
BINS = 16

#: Seconds to a bucket at the finest.
BUCKET = 10

#: A thing that is counted: ("flow", queue, task), ("node", id) or ("edge", from, to).
Key = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Summary:
    """One trace summed up. *counts* are by time (Unix seconds), key and metric."""

    row: dict[str, Any]
    terms: frozenset[tuple[str, str]]
    counts: Counter[tuple[int, Key, int]]
    waiting: list[tuple[str, str]]
    complete: bool


def summarise(trace: Trace) -> Summary:
    """Sum up *trace*, which has a span at least."""
    first = next((span for span in trace.roots if not span.parent_id), trace.roots[0])
    found = {
        "service": _names(span.service for span in trace.spans),
        "task": _names(task_of(span) for span in (*trace.runs, *trace.sends)),
        "queue": _names(queue_of(span) for span in (*trace.runs, *trace.sends)),
        "route": _names(
            text(span.attributes, HTTP_ROUTE) for span in trace.spans if span.kind == "SERVER"
        ),
    }
    row = {
        "trace_id": first.trace_id,
        "name": first.name[:LONGEST_NAME],
        "service": first.service[:LONGEST_NAME],
        "start_ns": str(trace.start_ns),
        "duration_ms": trace.duration_ns / 1e6,
        "wait_ms": trace.critical_ns["queue"] / 1e6,
        "spans": len(trace.spans),
        "services": found["service"],
        "tasks": found["task"],
        "queues": found["queue"],
        "status": trace.status,
        "errors": sum(span.status == "ERROR" for span in trace.spans),
        "states": Counter(_cut(state) for run in trace.runs if (state := state_of(run))),
        "sentence": trace.sentence,
    }
    return Summary(
        row=row,
        terms=frozenset((kind, name) for kind, names in found.items() for name in names),
        counts=Counter(_counted(trace)),
        waiting=[
            (queue_of(wait.send), task_of(wait.send))
            for wait in trace.live
            if wait.send and not is_doctors(wait.send)
        ],
        complete=not trace.orphans and not trace.live and not trace.circular,
    )


def _cut(name: str) -> str:
    return name[:LONGEST_NAME]


def _names(names: Iterable[str]) -> list[str]:
    return [_cut(name) for name in dict.fromkeys(names) if name][:MOST_NAMES]


def _counted(trace: Trace) -> Iterator[tuple[int, Key, int]]:
    for span in trace.spans:
        if is_doctors(span):
            continue
        for key, metrics in _facts(trace, span):
            bucket = span.start_ns // (BUCKET * 10**9) * BUCKET
            for metric in metrics:
                yield bucket, tuple(map(_cut, key)), metric


def _facts(trace: Trace, span: ReceivedSpan) -> Iterator[tuple[Key, list[int]]]:
    """Yield what *span* says of queues, and of the map of services, queues and stores."""
    service = f"service:{span.service}"
    failed = [FAILURES] if span.status == "ERROR" else []
    role = trace.roles[span.span_id]
    queue = queue_of(span)
    if role == "send":
        task = task_of(span)
        yield ("flow", queue, task), [SENT]
        # A retry is another attempt at the same message, published by the worker.
        yield ("edge", service, f"queue:{queue}"), [TOTAL, *failed, _duration(span)]
        yield ("node", f"queue:{queue}"), [TOTAL, *failed]
    elif role == "run":
        state = state_of(span)
        outcome = [FAILURES] if (failed or state == "FAILURE") and state != "RETRY" else []
        outcome += [RETRIES] if state == "RETRY" or (not state and retries_of(span)) else []
        wait = trace.waits.get(span.span_id)
        waited = [WAITS + bin_of(wait.queue_ns + wait.prefetch_ns)] if wait else []
        queue = queue or (wait.queue if wait else "")
        yield ("flow", queue, task_of(span)), [TOTAL, *outcome, *waited, _duration(span)]
        yield ("edge", f"queue:{queue}", service), [TOTAL, *outcome, *waited]
        yield ("node", service), [TOTAL, *outcome]
    elif store := text(span.attributes, DB_SYSTEM_NAME, DB_SYSTEM):
        yield ("edge", service, f"store:{store}"), [TOTAL, *failed, _duration(span)]
        yield ("node", f"store:{store}"), [TOTAL, *failed]
    parent = trace.known.get(span.parent_id)
    if role:
        return
    if parent is None:
        yield ("node", service), [TOTAL, *failed]
    elif parent.service != span.service:
        caller = f"service:{parent.service}"
        yield ("edge", caller, service), [TOTAL, *failed, _duration(span)]
        yield ("node", service), [TOTAL, *failed]


def _duration(span: ReceivedSpan) -> int:
    return DURATIONS + bin_of(span.end_ns - span.start_ns)


def bin_of(nanoseconds: int) -> int:
    """Return the bin of a histogram that a duration belongs to; all up to 1 µs are in the first."""
    return int(math.log2(max(nanoseconds, 1000) / 1000) * BINS)


def middle_of(number: int) -> float:
    """Return the middle of a bin, in milliseconds."""
    return float(2 ** ((number + 0.5) / BINS) / 1000)


def to_text(value: object) -> str:
    """Return JSON, as compact as it can be."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
