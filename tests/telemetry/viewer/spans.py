"""Spans made by hand, of a web side and a worker, for tests of the analysis."""

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from telemetry.otlp.decode import Event, Link, ReceivedSpan
from telemetry.viewer.analysis import rows
from telemetry.viewer.analysis.hops import Elsewhere, Trace

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
BEGIN = 1_700_000_000_000_000_000
WEB, WORKER = "shop", "shop-worker"

#: The sentence of an order.
SENTENCE = "412 ms: 6 web, 380 waiting in `celery`, 26 worker"

#: Milliseconds from the beginning of the trace to its analysis, by default.
LATER = 60_000

Rows = dict[str, dict[str, Any]]


def ms(value: float) -> int:
    """Return the Unix time in nanoseconds of *value* milliseconds after the trace's begin."""
    return BEGIN + round(value * 1e6)


def span(
    span_id: str,
    parent_id: str,
    kind: str,
    times: tuple[float, float],
    service: str = WEB,
    name: str = "",
    links: tuple[str, ...] = (),
    error: str = "",
    **attributes: Any,
) -> ReceivedSpan:
    """Make a span; *attributes* have ``__`` for each dot, *links* are span ids of its trace."""
    events = ()
    if error:
        kind_of, _, message = error.partition(": ")
        said = {"exception.type": kind_of, "exception.message": message}
        events = (Event("exception", ms(times[1]), said),)
    return ReceivedSpan(
        trace_id=TRACE,
        span_id=span_id,
        parent_id=parent_id,
        name=name or span_id,
        kind=kind,
        start_ns=ms(times[0]),
        end_ns=ms(times[1]),
        status="ERROR" if error else "UNSET",
        status_message="",
        attributes={key.replace("__", "."): value for key, value in attributes.items()},
        events=events,
        links=tuple(Link(TRACE, link, {}) for link in links),
        trace_state="",
        flags=1,
        scope="tests",
        resource={"service.name": service, "service.instance.id": service},
    )


def send(span_id: str, parent_id: str, times: tuple[float, float], **more: Any) -> ReceivedSpan:
    """Make a send; the id of its message is ``m`` by default."""
    facts = {
        "messaging__operation__type": "send",
        "messaging__destination__name": "celery",
        "messaging__message__id": "m",
        "celery__task__name": "charge",
        **more,
    }
    kind = facts.pop("kind", "PRODUCER")
    return span(span_id, parent_id, kind, times, name="send charge", **facts)


def run(
    span_id: str,
    parent_id: str,
    times: tuple[float, float],
    waited: tuple[float, float, float] | None = (0, 0, 0),
    state: str = "SUCCESS",
    **more: Any,
) -> ReceivedSpan:
    """Make a run; *waited* is scheduled, queue and prefetch in ms, None if it records none."""
    facts: dict[str, Any] = {
        "service": WORKER,
        "messaging__operation__type": "process",
        "messaging__destination__name": "celery",
        "messaging__message__id": "m",
        "celery__task__name": "charge",
        **({"celery__task__state": state} if state else {}),
    }
    for name, value in zip(("scheduled", "queue", "prefetch"), waited or (), strict=False):
        facts[f"celery__wait__{name}"] = value / 1e3
    return span(span_id, parent_id, "CONSUMER", times, name="process charge", **{**facts, **more})


def derived(
    *spans: ReceivedSpan, now: float = LATER, arrived: float | None = None, **elsewhere: Any
) -> Trace:
    """Return the trace as it is *now*.

    Its last span arrived at *arrived* (milliseconds), by default as soon as it had ended.
    """
    came = max((span.end_ns for span in spans), default=BEGIN) if arrived is None else ms(arrived)
    return Trace(spans, ms(now), came, Elsewhere(**elsewhere))


def hops(trace: Trace, stored: int | None = None) -> dict[str, Any]:
    """Return the whole answer of the API for *trace*."""
    return {**rows.head_of(trace, stored), "rows": [*rows.rows_of(trace)]}


def rows_of(trace: Trace) -> Rows:
    """Return the rows by their ids, in their order."""
    return {row["id"]: row for row in rows.rows_of(trace)}


def in_other_trace(it: ReceivedSpan) -> ReceivedSpan:
    """Return the same span in another trace."""
    return replace(it, trace_id="f" * 32)


def order(trace_id: str = TRACE, at: float = 0, **more: Any) -> list[ReceivedSpan]:
    """Return the spans of an order that was placed *at* milliseconds after a moment ago."""
    shift = time.time_ns() - BEGIN - 10**9 + int(at * 1e6)
    spans = [
        span("web", "", "SERVER", (0, 8), name="POST /orders", http__route="/orders"),
        send("send", "web", (4, 6.5)),
        run("run", "send", (386, 412), (0, 380, 0), links=("send",), **more),
        span("store", "run", "CLIENT", (390, 392), WORKER, db__system__name="redis"),
    ]
    return [
        replace(
            s,
            trace_id=trace_id,
            start_ns=s.start_ns + shift,
            end_ns=s.end_ns + shift,
            links=tuple(replace(link, trace_id=trace_id) for link in s.links),
        )
        for s in spans
    ]


def many(count: int) -> Iterator[list[ReceivedSpan]]:
    """Yield *count* orders, each a trace of its own."""
    for number in range(1, count + 1):
        yield order(f"{number:032x}")
