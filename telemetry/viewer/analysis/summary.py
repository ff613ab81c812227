"""The summary of a trace: its row in the list, its search terms and its counts."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
from opentelemetry.semconv._incubating.attributes.http_attributes import HTTP_ROUTE

from .counts import LONGEST_NAME, Key, Run, counted, cut, exception_of, runs_of
from .hops import Trace
from .messaging import is_doctors, queue_of, task_of, text
from .rows import in_ms
from .wait import Wait

#: The most names in a list.
MOST_NAMES = 100

#: The most span names of one trace that a search finds.
MOST_SEARCHED = 1_000


@dataclass(frozen=True, slots=True)
class Summary:
    """The summary of one trace.

    *terms* are the values of the filters of the list. *names* are further search terms: names of
    spans, states of runs and exceptions. *keys* are the keys of attributes. *counts* are by bucket
    (Unix seconds), key and metric.
    """

    row: dict[str, Any]
    terms: frozenset[tuple[str, str]]
    names: frozenset[tuple[str, str]]
    message_ids: frozenset[str]
    keys: frozenset[str]
    counts: Counter[tuple[int, Key, int]]
    runs: list[Run]
    untaken: list[Wait]
    complete: bool


def summarize(trace: Trace) -> Summary:
    """Return the summary of *trace*, which has at least one span."""
    first = next((span for span in trace.roots if not span.parent_id), trace.roots[0])
    found = {
        "service": _names(span.service for span in trace.spans),
        "task": _names(task_of(span) for span in (*trace.runs, *trace.sends)),
        "queue": _names(queue_of(span) for span in (*trace.runs, *trace.sends)),
        "route": _names(
            text(span.attributes, HTTP_ROUTE) for span in trace.spans if span.kind == "SERVER"
        ),
    }
    waited = [wait.waited_ns for wait in trace.all_waits]
    row = {
        "trace_id": first.trace_id,
        "name": first.name[:LONGEST_NAME],
        "service": first.service[:LONGEST_NAME],
        "start_ns": str(trace.start_ns),
        "duration_ms": trace.duration_ns / 1e6,
        "wait_ms": max(waited, default=0) / 1e6,
        "wait_sum_ms": sum(waited) / 1e6,
        "scheduled_ms": max((w.scheduled_ns for w in trace.all_waits), default=0) / 1e6,
        "spans": len(trace.spans),
        "services": found["service"],
        "tasks": found["task"],
        "queues": found["queue"],
        "status": trace.status,
        "live": trace.live_states,
        "changes_in_ms": in_ms(trace.changes_ns, trace.now_ns),
        "errors": sum(span.status == "ERROR" for span in trace.spans),
        "states": Counter(cut(state) for state in trace.states.values() if state),
        "sentence": trace.sentence,
        "parts": _lengths(trace),
    }
    return Summary(
        row=row,
        terms=frozenset((kind, name) for kind, names in found.items() for name in names),
        names=frozenset(_searched(trace)),
        message_ids=frozenset(cut(found) for found in trace.message_ids.values() if found),
        keys=frozenset(cut(key) for span in trace.spans for key in span.attributes),
        counts=Counter(counted(trace)),
        runs=runs_of(trace),
        untaken=[wait for wait in trace.live if not is_doctors(wait.of)],
        complete=not trace.orphans and not trace.live and not trace.circular,
    )


def _lengths(trace: Trace) -> dict[str, float]:
    """Return the length of each kind of part of the critical path, in milliseconds."""
    lengths: Counter[str] = Counter()
    for part in trace.parts:
        lengths[part.kind] += max(0, part.ns)
    return {kind: ns / 1e6 for kind, ns in lengths.items() if ns}


def _searched(trace: Trace) -> Iterator[tuple[str, str]]:
    spans = dict.fromkeys(cut(span.name) for span in trace.spans)
    yield from (("name", name) for name in [*spans][:MOST_SEARCHED] if name)
    yield from (("state", cut(state)) for state in trace.states.values() if state)
    if any(send.status == "ERROR" for send in trace.sends):
        yield "state", "UNSENT"
    yield from (("exception", found) for found in _names(map(exception_of, trace.spans)))


def _names(names: Iterable[str]) -> list[str]:
    return [cut(name) for name in dict.fromkeys(names) if name][:MOST_NAMES]


def to_text(value: object) -> str:
    """Return *value* as compact JSON."""
    return msgspec.json.encode(value).decode()
