"""The head and the rows of a trace on its page, in the format of the API: times in milliseconds."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from opentelemetry.semconv._incubating.attributes.http_attributes import HTTP_ROUTE
from opentelemetry.trace import TraceFlags

from ...otlp.decode import ReceivedSpan
from .hops import Trace
from .messaging import consumer_of, error_of, state_of, task_of, text
from .problems import missing_parent, problems
from .wait import Node, Wait

#: If a message has more attempts than this, all but the last are folded into one row.
FOLDED = 2

#: The most other traces that are listed.
MOST_LINKED = 10


class Attempt(NamedTuple):
    """The attempt that a run is: the message, its number, and the number of all attempts."""

    key: object
    number: int
    of: int


@dataclass(frozen=True, slots=True, eq=False)
class Attempts:
    """All attempts at a message except the last, as one row."""

    runs: list[ReceivedSpan]

    @property
    def id(self) -> str:
        return f"attempts:{self.runs[0].span_id}"

    @property
    def start_ns(self) -> int:
        return self.runs[0].start_ns

    @property
    def end_ns(self) -> int:
        return max(run.end_ns for run in self.runs)


#: A node to draw, its depth, and the id of its parent row.
Drawn = tuple[Node | Attempts, int, str | None]


def head_of(trace: Trace, stored: int | None = None) -> dict[str, Any]:
    """Return the summary of *trace*, and the links between its rows.

    *stored* is the number of stored spans if *trace* does not have them all.
    """
    return {
        "trace_id": trace.spans[0].trace_id if trace.spans else "",
        "root": _root(trace),
        "error": _first_error(trace),
        **_linked(trace),
        "spans": len(trace.spans),
        "stored_spans": stored or len(trace.spans),
        "sentence": trace.sentence,
        "start_ns": str(trace.start_ns),
        "duration_ms": trace.duration_ns / 1e6,
        "status": trace.status,
        "live": trace.live_states,
        "changes_in_ms": in_ms(trace.changes_ns, trace.now_ns),
        "services": [{"name": name, "index": at} for name, at in trace.services.items()],
        "links": _links(trace),
        "problems": problems(trace),
        "parts": [
            {
                "kind": part.kind,
                "name": part.name,
                "ms": part.ns / 1e6,
                "shown_ms": (part.shown_ns or part.ns) / 1e6,
                "service": part.service,
                "service_index": trace.services.get(part.service),
                "queue": part.queue,
                "prefetch_ms": part.prefetch_ns / 1e6,
            }
            for part in trace.parts
            if part.ns > 0 and (part.shown_ns or part.kind != "gap")
        ],
        "critical_ms": {name: length / 1e6 for name, length in trace.critical_ns.items()},
    }


def _root(trace: Trace) -> dict[str, str] | None:
    """Return the span that names the trace: its root, or else its first span."""
    first = next((span for span in trace.roots if not span.parent_id), None)
    first = first or next(iter(trace.roots), None)
    if first is None:
        return None
    served = [span for span in trace.spans if span.kind == "SERVER"]
    routes = (text(span.attributes, HTTP_ROUTE) for span in served)
    return {
        "id": first.span_id,
        "name": first.name,
        "service": first.service,
        "route": next(filter(None, routes), ""),
    }


def _first_error(trace: Trace) -> dict[str, str] | None:
    span = trace.first_error
    if span is None:
        return None
    return {
        "id": span.span_id,
        "name": span.name,
        "service": span.service,
        "message": error_of(span) or "",
    }


def _linked(trace: Trace) -> dict[str, Any]:
    """Return the longest links from messages to other traces, one for each trace."""
    batched = (wait for batch in trace.batches.values() for wait in batch)
    links = [link for w in (*trace.all_waits, *batched) if (link := _link_of(trace, w))]
    by_trace: dict[tuple[str, str], dict[str, Any]] = {}
    for link in links:
        by_trace.setdefault((link["relation"], link["trace_id"]), link)
    found = sorted(by_trace.values(), key=lambda link: -link["later_ms"])
    return {"linked": found[:MOST_LINKED], "more_linked": len(found[MOST_LINKED:])}


def _link_of(trace: Trace, wait: Wait) -> dict[str, Any] | None:
    """Return the other end of *wait* if it is in another trace, or None."""
    if wait.run is not None and wait.run.span_id not in trace.known:
        other, relation = wait.run, "picked up by"
    elif wait.send is not None and wait.send.span_id not in trace.known:
        other, relation = wait.send, "sent by"
    else:
        return None
    sent = wait.send.end_ns if wait.send else wait.start_ns
    started = wait.run.start_ns if wait.run else wait.end_ns
    return {
        "relation": relation,
        "trace_id": other.trace_id,
        "span_id": other.span_id,
        "name": other.name,
        "service": other.service,
        "later_ms": max(0, started - sent) / 1e6,
    }


def in_ms(time_ns: int | None, now_ns: int) -> float | None:
    """Return the time from *now_ns* to *time_ns* in milliseconds, or None."""
    return None if time_ns is None else (time_ns - now_ns) / 1e6


def _links(trace: Trace) -> list[dict[str, str]]:
    """Return the links between spans of *trace*, except those to the parent."""
    links = []
    for span in trace.spans:
        for link in span.links:
            target = trace.known.get(link.span_id)
            if target is None or target is span or link.trace_id != span.trace_id:
                continue
            if target.span_id != span.parent_id:
                kind = _link_kind(trace, span, target)
                links.append({"from": span.span_id, "to": target.span_id, "kind": kind})
    return links


def _link_kind(trace: Trace, span: ReceivedSpan, target: ReceivedSpan) -> str:
    message = trace.message_ids.get(span.span_id)
    if message and message == trace.message_ids.get(target.span_id):
        return "retry"
    roles = trace.roles[span.span_id], trace.roles[target.span_id]
    return "chord" if roles == ("run", "run") else "link"


def rows_of(trace: Trace) -> Iterator[dict[str, Any]]:
    """Yield the rows of *trace* in drawing order: depth first, by start."""
    return _Rows(trace).in_order()


class _Rows:
    """Makes the rows of a trace."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._critical: dict[int, list[list[float]]] = defaultdict(list)
        for node, start, end in reversed(trace.path):
            if node is not None and end > node.start_ns:
                self._critical[id(node)].append([self._ms(start), self._ms(end)])
        self._attempts = _attempts(trace)
        self._live: dict[str, list[Wait]] = defaultdict(list)
        for wait in trace.live:
            self._live[_place(trace, wait.of)].append(wait)
        for wait in trace.picked_up:
            if wait.send is not None:
                self._live[wait.send.span_id].append(wait)
        self._orphans = {orphan.span_id for orphan in trace.orphans}

    def _ms(self, time_ns: int) -> float:
        return (time_ns - self._trace.start_ns) / 1e6

    def in_order(self) -> Iterator[dict[str, Any]]:
        roots = (row for root in self._trace.roots for row in self._with_wait(root, 0, None))
        pending = [*roots][::-1]
        while pending:
            node, depth, parent = pending.pop()
            below: list[Drawn] = []
            if isinstance(node, Attempts):
                for run in node.runs:
                    below += self._with_wait(run, depth + 1, node.id)
            elif isinstance(node, ReceivedSpan):
                earlier = self._earlier_attempts(node) if self._attempts else {}
                for child in self._trace.children.get(node.span_id, ()):
                    group = earlier.get(child.span_id)
                    if group is None:
                        below += self._with_wait(child, depth + 1, node.span_id)
                    elif child is group.runs[0]:
                        below.append((group, depth + 1, node.span_id))
                below += [(wait, depth + 1, node.span_id) for wait in self._live[node.span_id]]
            row = self._row(node)
            row |= {
                "depth": depth,
                "parent": parent,
                "start_ms": self._ms(node.start_ns),
                "end_ms": self._ms(max(node.start_ns, node.end_ns)),
                "critical": self._critical.get(id(node), []),
                "has_children": bool(below),
                "children": len(below),
            }
            yield row
            pending += reversed(below)

    def _row(self, node: Node | Attempts) -> dict[str, Any]:
        match node:
            case ReceivedSpan():
                return self._span_row(node)
            case Wait():
                return self._wait_row(node)
        return self._attempts_row(node)

    def _earlier_attempts(self, send: ReceivedSpan) -> dict[str, Attempts]:
        """Return the folded attempts at a message of *send*, by the id of each run."""
        groups: dict[object, list[ReceivedSpan]] = defaultdict(list)
        for child in self._trace.children.get(send.span_id, ()):
            attempt = self._attempts.get(child.span_id)
            if attempt is not None and FOLDED < attempt.of > attempt.number:
                groups[attempt.key].append(child)
        found = (Attempts(runs) for runs in groups.values() if len(runs) > 1)
        return {run.span_id: group for group in found for run in group.runs}

    def _attempts_row(self, node: Attempts) -> dict[str, Any]:
        return {
            "id": node.id,
            "kind": "attempts",
            "name": f"{len(node.runs)} earlier attempts",
            **self._service_of(node.runs[0]),
            "open": node.runs[0].span_id,
            "span_kind": None,
            "self_ms": 0.0,
            "status": "unset",
            "state": None,
            "message": error_of(node.runs[-1]),
            "attempt": None,
            "wait": None,
            "link": None,
            "missing_parent": None,
        }

    def _with_wait(self, span: ReceivedSpan, depth: int, parent: str | None) -> list[Drawn]:
        wait = self._trace.waits.get(span.span_id)
        row: Drawn = (span, depth, parent)
        return [row] if wait is None else [(wait, depth, parent), row]

    def _service_of(self, span: ReceivedSpan) -> dict[str, Any]:
        return {"service": span.service, "service_index": self._trace.services[span.service]}

    def _span_row(self, span: ReceivedSpan) -> dict[str, Any]:
        orphaned = span.span_id in self._orphans
        return {
            "id": span.span_id,
            "kind": "span",
            "name": span.name,
            **self._service_of(span),
            "open": span.span_id,
            "span_kind": span.kind,
            "flags": flags_of(span),
            "self_ms": self._self_ms(span),
            "status": span.status.lower(),
            "state": state_of(span) or None,
            "message": error_of(span),
            "attempt": self._number_of(span),
            "wait": None,
            "link": None,
            "missing_parent": missing_parent(self._trace, span) if orphaned else None,
        }

    def _wait_row(self, wait: Wait) -> dict[str, Any]:
        return {
            "id": self._id_of(wait),
            "kind": "wait",
            "name": f"waiting in {wait.queue}" if wait.queue else "waiting",
            **self._service_of(wait.of),
            "open": next(
                span.span_id
                for span in (wait.run, wait.send)
                if span is not None and span.span_id in self._trace.known
            ),
            "span_kind": None,
            "self_ms": (wait.end_ns - wait.start_ns) / 1e6,
            "status": "unset",
            "state": None,
            "message": None,
            "attempt": self._number_of(wait.of),
            "wait": wait.as_dict(),
            "link": _link_of(self._trace, wait),
            "missing_parent": None,
        }

    def _id_of(self, wait: Wait) -> str:
        """Return the id of the row of *wait*. A run of another trace may take several messages."""
        found = f"wait:{wait.of.span_id}"
        if wait.run is None or wait.send is None or wait.run.span_id in self._trace.known:
            return found
        return f"{found}:{wait.send.span_id}"

    def _number_of(self, run: ReceivedSpan) -> int | None:
        attempt = self._attempts.get(run.span_id)
        return None if attempt is None else attempt.number

    def _self_ms(self, span: ReceivedSpan) -> float:
        """Return the time of *span* in which none of its children was active."""
        covered, until = 0, span.start_ns
        for child in self._trace.children.get(span.span_id, ()):
            begin, end = max(child.start_ns, until), min(child.end_ns, span.end_ns)
            if end > begin:
                covered += end - begin
                until = end
        return max(0, span.end_ns - span.start_ns - covered) / 1e6


def _place(trace: Trace, send: ReceivedSpan) -> str:
    """Return the parent that the run of *send* will have: for a retry, the first send."""
    if send.kind == "PRODUCER":
        return send.span_id
    named = [link.span_id for link in send.links]
    return next((i for i in named if trace.roles.get(i) == "send"), send.span_id)


def _attempts(trace: Trace) -> dict[str, Attempt]:
    """Return the attempt of each run whose message ran several times.

    Several consumer groups that each receive the message are not attempts.
    """
    messages: dict[str, list[ReceivedSpan]] = defaultdict(list)
    for run in trace.runs:
        sent_by = run.parent_id if trace.roles.get(run.parent_id) == "send" else run.span_id
        messages[trace.message_ids[run.span_id] or sent_by].append(run)
    tries: dict[object, list[ReceivedSpan]] = defaultdict(list)
    for message, runs in messages.items():
        for run in runs if len(runs) > 1 else ():
            tries[message, task_of(run), consumer_of(run)].append(run)
    return {
        run.span_id: Attempt(key, at, len(runs))
        for key, runs in tries.items()
        if len(runs) > 1
        for at, run in enumerate(runs, 1)
    }


def flags_of(span: ReceivedSpan) -> int:
    """Return the flags of the traceparent of *span*.

    Most exporters leave them out of OTLP. But a span that was exported was sampled.
    """
    return span.flags & 0xFF | TraceFlags.SAMPLED
