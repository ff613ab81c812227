"""Where the time of one trace went: the hops between its spans, derived and never made up.

Pure functions over spans. Times inside are integer nanoseconds; ``Trace.hops`` is what the API
gives out, in milliseconds.
"""

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE
from opentelemetry.semconv.attributes.exception_attributes import (
    EXCEPTION_MESSAGE,
    EXCEPTION_TYPE,
)

from .messaging import (
    consumer_of,
    message_id_of,
    number,
    queue_of,
    retries_of,
    role_of,
    state_of,
)
from .sentence import sentence
from .spans import Span

__all__ = ["Elsewhere", "Status", "Trace", "Wait"]

Status = Literal["ok", "error", "waiting", "broken"]

#: For so long a message without a run is taken to wait, in nanoseconds: an hour.
PLAUSIBLE = 3600 * 10**9

#: For so long after the last span arrived a missing one may still come: the SDKs send every 5 s.
GRACE = 15 * 10**9

#: Clocks that differ by less are not worth a word.
SKEW = 10**6

#: A wait that is said to be longer is nonsense: ten years, in seconds.
LONGEST_WAIT = 3.2e8

#: States of a message that was to run and never did.
NEVER_RAN = ("EXPIRED", "REJECTED", "UNKNOWN")

#: How far up the ancestors of a span are looked at, against circles.
MOST_ANCESTORS = 2000

MOST_PROBLEMS = 20

SCHEDULED, QUEUE, PREFETCH = "celery.wait.scheduled", "celery.wait.queue", "celery.wait.prefetch"
SKEWED = "celery.wait.skewed"
#: What Sentry says on a run, in milliseconds.
RECEIVE_LATENCY = "messaging.message.receive.latency"

# Bits of OTLP's span flags: whether the parent is known to be remote, and whether it is.
_KNOWS_REMOTE, _IS_REMOTE = 0x100, 0x200


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """What other traces know of this one.

    *picked_up* are the sends of this trace whose runs are in others, *sends* those of others, by
    span id, that runs of this trace link to.
    """

    picked_up: frozenset[str] = frozenset()
    sends: Mapping[str, Span] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Wait:
    """The time of a message between its send and its run; a live one has no run yet."""

    send: Span | None
    run: Span | None
    start_ns: int
    end_ns: int
    scheduled_ns: int
    queue_ns: int
    prefetch_ns: int
    queue: str
    skewed: bool = False
    skew_ns: int | None = None
    estimated: bool = False

    @property
    def live(self) -> bool:
        return self.run is None

    @property
    def id(self) -> str:
        of = self.run or self.send
        assert of is not None
        return f"wait:{of.span_id}"

    def as_dict(self) -> dict[str, Any]:
        """Return it as the API has it, in milliseconds."""
        return {
            "scheduled_ms": self.scheduled_ns / 1e6,
            "queue_ms": self.queue_ns / 1e6,
            "prefetch_ms": self.prefetch_ns / 1e6,
            "skewed": self.skewed,
            "skew_ms": None if self.skew_ns is None else self.skew_ns / 1e6,
            "queue": self.queue,
            "live": self.live,
            "estimated": self.estimated,
        }


Node = Span | Wait

#: A part of the critical path: on what, from when to when.
Segment = tuple[Node | None, int, int]


class Trace:
    """One trace, as far as its spans have come at *now_ns*.

    *arrived_ns* is when the last of them came. Spans may be in any order and there several times.
    """

    def __init__(
        self,
        spans: Iterable[Span],
        now_ns: int,
        arrived_ns: int = 0,
        elsewhere: Elsewhere | None = None,
    ) -> None:
        self.now_ns = now_ns
        self.arrived_ns = arrived_ns
        self.elsewhere = elsewhere or Elsewhere()
        by_id = {span.span_id: span for span in spans}
        self.spans = sorted(by_id.values(), key=lambda span: (span.start_ns, -span.end_ns))
        self.known = {span.span_id: span for span in self.spans}
        self.roles = {span.span_id: role_of(span) for span in self.spans}
        self.runs = [span for span in self.spans if self.roles[span.span_id] == "run"]
        self.sends = [span for span in self.spans if self.roles[span.span_id] == "send"]
        self._ids = {span.span_id: message_id_of(span) for span in (*self.runs, *self.sends)}
        self._find_children()
        self._find_causes()
        self.waits = {run.span_id: wait for run in self.runs if (wait := self._wait(run))}
        self.live = [self._live_wait(send) for send in self._unmatched if self._may_wait(send)]
        starts = [node.start_ns for node in (*self.spans, *self.waits.values())]
        self.start_ns = min(starts, default=0)
        ends = [max(node.end_ns, node.start_ns) for node in (*self.spans, *self.live)]
        self.end_ns = max(ends, default=0)

    # The tree

    def _find_children(self) -> None:
        self.children: dict[str, list[Span]] = defaultdict(list)
        self.roots: list[Span] = []
        self.orphans: list[Span] = []
        for span in self.spans:
            if span.parent_id in self.known:
                self.children[span.parent_id].append(span)
                continue
            self.roots.append(span)
            if span.parent_id:
                self.orphans.append(span)
        self.circular = False
        self.working: dict[str, bool] = {}  # whether a span is part of a run, for all in the tree
        for root in self.roots:
            self._reach(root)
        for span in self.spans:  # what is left goes round in circles
            if span.span_id not in self.working:
                self.circular = True
                self.children[span.parent_id].remove(span)
                self.roots.append(span)
                self._reach(span)

    def _reach(self, root: Span) -> None:
        pending = [(root, False)]
        while pending:
            span, working = pending.pop()
            working = working or self.roles[span.span_id] == "run"
            self.working[span.span_id] = working
            pending += [(child, working) for child in self.children.get(span.span_id, ())]

    # Messages

    def _find_causes(self) -> None:
        """Find for each run the send that published it, and the sends that nobody took."""
        attempts: dict[tuple[str, int], Span] = {}
        for send in self.sends:
            if message := self._ids[send.span_id]:
                attempts.setdefault((message, retries_of(send)), send)
        self.causes: dict[str, Span] = {}
        taken: set[str] = set()
        for run in self.runs:
            linked = self._sends_of(run)
            taken.update(send.span_id for send in linked)
            attempt = attempts.get((self._ids[run.span_id], retries_of(run)))
            if attempt is not None and attempt.parent_id != run.span_id:
                taken.add(attempt.span_id)
                linked.insert(0, attempt)
            if linked:
                self.causes[run.span_id] = linked[0]
        self._unmatched = [s for s in self.sends if s.span_id not in taken and self._is_own(s)]

    def _sends_of(self, run: Span) -> list[Span]:
        ids = [run.parent_id, *(link.span_id for link in run.links)]
        return [self.known[i] for i in dict.fromkeys(ids) if self.roles.get(i) == "send"]

    def _is_own(self, send: Span) -> bool:
        """Say whether what *send* published is to be followed in this trace.

        A send that is no PRODUCER put another's context into the message; that one is followed if
        it is here too, as that of a retry is.
        """
        if send.kind == "PRODUCER":
            return True
        message = self._ids[send.span_id]
        return bool(message) and any(
            self._ids[link.span_id] == message for link in send.links if link.span_id in self._ids
        )

    def _may_wait(self, send: Span) -> bool:
        return (
            send.status != "ERROR"
            and send.span_id not in self.elsewhere.picked_up
            and self.now_ns - send.end_ns < PLAUSIBLE
            and not any(
                child.service != send.service for child in self.children.get(send.span_id, ())
            )
        )

    def _live_wait(self, send: Span) -> Wait:
        end = max(self.now_ns, send.end_ns)
        length = end - send.end_ns
        return Wait(
            send, None, send.end_ns, end, 0, length, 0, queue_of(send), estimated=True
        )  # fmt: skip

    def _wait(self, run: Span) -> Wait | None:
        send = self.causes.get(run.span_id) or next(
            (s for link in run.links if (s := self.elsewhere.sends.get(link.span_id))), None
        )
        early = send.start_ns - run.start_ns if send is not None else 0
        skewed = run.attributes.get(SKEWED) is True or early > 0
        skew = early if early > 0 else None
        queue = queue_of(run) or (queue_of(send) if send else "")
        parts = [_nanoseconds(run, key) for key in (SCHEDULED, QUEUE, PREFETCH)]
        estimated = False
        if parts == [None, None, None]:
            if (latency := number(run.attributes, RECEIVE_LATENCY)) is not None:
                parts[1] = int(min(latency / 1e3, LONGEST_WAIT) * 1e9)
            elif send is not None and not _is_inside(run, send):
                estimated = True
                parts[1] = max(0, run.start_ns - max(send.end_ns, send.start_ns))
            else:
                return None
        scheduled, queued, prefetched = (part or 0 for part in parts)
        start = run.start_ns - scheduled - queued - prefetched
        return Wait(
            *(send, run, max(0, start), run.start_ns, scheduled, queued, prefetched, queue),
            *(skewed, skew, estimated),
        )

    # The critical path

    @cached_property
    def path(self) -> list[Segment]:
        """The critical path, last part first: what the trace's end was waiting for, back to its start.

        From the end of a span one goes back to the last of those below it that it may have waited
        for, and so on. A run is waited for by whoever above its send was still there when it
        ended; through its wait one goes back to its send. The parts do not overlap and add up to
        the trace's duration; on None nothing is known to have happened.
        """
        waited = self._waited_for()
        segments: list[Segment] = []
        now = self.end_ns
        # What is under way at *now*, innermost last; None is the trace as a whole.
        stack: list[Node | None] = [None]
        entered: set[int] = set()

        def emit(node: Node | None, start: int) -> None:
            nonlocal now
            end = now
            if node is not None and node.end_ns < end:
                if max(start, node.end_ns) < end:
                    segments.append((None, max(start, node.end_ns), end))
                end = node.end_ns
            if start < end:
                segments.append((node, start, end))
            now = min(now, start)

        while stack:
            node = stack[-1]
            candidates = waited.get(id(node), [])
            start = self.start_ns if node is None else node.start_ns
            at = bisect_right(candidates, now, key=lambda c: c[0]) - 1
            while at >= 0 and id(candidates[at][1]) in entered:
                at -= 1
            del candidates[at + 1 :]
            if at < 0 or candidates[at][0] < start:
                emit(node, start)
                stack.pop()
                continue
            end, last = candidates.pop()
            emit(node, end)
            chain: list[Node] = []
            above: Node | None = last
            while above is not None and above is not node and id(above) not in entered:
                entered.add(id(above))
                chain.append(above)
                above = self._above(above)
            stack += reversed(chain)
        return segments

    def _waited_for(self) -> dict[int, list[tuple[int, Node]]]:
        """Return by node what it may have waited for, with when that ended, in that order."""
        waited: dict[int, list[tuple[int, Node]]] = defaultdict(list)
        for node in (*self.spans, *self.live):
            end = max(node.end_ns, node.start_ns)
            above = self._above(node)
            if isinstance(above, Span) and isinstance(node, Span):
                # What answers a request ends before the request does, whatever its clock says.
                if node.kind == "SERVER" and above.kind == "CLIENT":
                    end = min(end, max(above.end_ns, above.start_ns))
            for _ in range(MOST_ANCESTORS):
                if above is None or (isinstance(above, Span) and above.end_ns >= end):
                    break
                above = self._above(above)
            else:
                above = None
            waited[id(above)].append((end, node))
        for candidates in waited.values():
            candidates.sort(key=lambda candidate: candidate[0])
        return waited

    def _above(self, node: Node) -> Node | None:
        """Return what led to *node*: from a run to its wait, from there to its send, and so on."""
        if isinstance(node, Wait):
            if node.send is not None and node.send.span_id in self.known:
                return node.send
            return self.known.get(node.run.parent_id) if node.run else None
        wait = self.waits.get(node.span_id)
        return wait or self.causes.get(node.span_id) or self.known.get(node.parent_id)

    @cached_property
    def critical_ns(self) -> Counter[str]:
        """What the critical path consists of, by the API's names."""
        total: Counter[str] = Counter(web=0, scheduled=0, queue=0, prefetch=0, worker=0)
        for node, start, end in self.path:
            if isinstance(node, Wait):
                for name, (begin, until) in _phases(node).items():
                    total[name] += max(0, min(end, until) - max(start, begin))
            elif node is not None:
                total["worker" if self.working[node.span_id] else "web"] += end - start
        return total

    @cached_property
    def queues_ns(self) -> Counter[str]:
        """How long the critical path was in which queue."""
        total: Counter[str] = Counter()
        for node, start, end in self.path:
            if isinstance(node, Wait):
                begin, until = _phases(node)["queue"]
                total[node.queue] += max(0, min(end, until) - max(start, begin))
        return total

    # In words

    @property
    def duration_ns(self) -> int:
        return self.end_ns - self.start_ns

    @property
    def sentence(self) -> str:
        """The trace in one sentence: ``412 ms: 6 web, 380 waiting in `celery`, 26 worker``."""
        web = any(s.kind == "SERVER" and not self.working[s.span_id] for s in self.spans)
        parts = [("web" if web else "client", self.critical_ns["web"])]
        parts += [("scheduled", self.critical_ns["scheduled"])]
        parts += [
            (f"waiting in {f'`{queue}`' if queue else 'the queue'}", length)
            for queue, length in self.queues_ns.most_common()
        ]
        parts += [("waiting for a free process", self.critical_ns["prefetch"])]
        parts += [("worker", self.critical_ns["worker"])]
        rest = self.duration_ns - sum(length for _, length in parts)
        return sentence(self.duration_ns, [*parts, ("unaccounted for", rest)], bool(self.live))

    @cached_property
    def status(self) -> Status:
        if any(self._counts_as_error(span) for span in self.spans):
            return "error"
        if self.live:
            return "waiting"
        return "broken" if self.circular or any(map(self._is_lost, self.orphans)) else "ok"

    def _counts_as_error(self, span: Span) -> bool:
        """Say whether *span* is an error that nobody made good: not if it was tried again."""
        if state_of(span) in NEVER_RAN:
            return True
        if span.status != "ERROR":
            return False
        above: Span | None = span
        for _ in range(MOST_ANCESTORS):
            if above is None:
                return True
            if state_of(above) == "RETRY":
                return False
            above = self.known.get(above.parent_id)
        return True

    def _is_lost(self, orphan: Span) -> bool:
        return self.now_ns - self.arrived_ns >= GRACE

    @property
    def revisit_ns(self) -> int | None:
        """When this trace will look different though nothing more arrives, or None."""
        times = [wait.start_ns + PLAUSIBLE for wait in self.live]
        if self.orphans and self.now_ns - self.arrived_ns < GRACE:
            times.append(self.arrived_ns + GRACE)
        return min(times, default=None)

    @cached_property
    def problems(self) -> list[str]:
        """What is wrong with the trace, in words."""
        problems = [
            f"{orphan.name} ({_named(orphan)}): {self._missing(orphan)}"
            for orphan in self.orphans[:MOST_PROBLEMS]
        ]
        if len(self.orphans) > MOST_PROBLEMS:
            problems.append(f"{len(self.orphans) - MOST_PROBLEMS} more have no parent here")
        if self.circular:
            problems.append("some spans are their own ancestors; the circle is cut at the earliest")
        problems += self._disagreements()
        problems += [
            f"nobody is known to have taken the message of {send.name} ({_named(send)})"
            for send in self._given_up()
        ]
        return problems

    def _given_up(self) -> Iterator[Span]:
        live = {wait.send.span_id for wait in self.live if wait.send}
        for send in self._unmatched:
            if (
                send.span_id not in live
                and send.status != "ERROR"
                and self.now_ns - send.end_ns >= PLAUSIBLE
                and send.span_id not in self.elsewhere.picked_up
                and not self.children.get(send.span_id)
            ):
                yield send

    def _disagreements(self) -> Iterator[str]:
        """Yield which services' clocks disagree, and by how much at least."""
        worst: dict[tuple[str, str], int] = {}
        for span in self.spans:
            above = self.causes.get(span.span_id) or self.known.get(span.parent_id)
            if above is None or (early := above.start_ns - span.start_ns) < SKEW:
                continue
            pair = (_named(span), _named(above))
            worst[pair] = max(early, worst.get(pair, 0))
        for (behind, ahead), early in list(worst.items())[:MOST_PROBLEMS]:
            yield (
                f"the clock of {behind} is at least {early / 1e6:.1f} ms behind that of {ahead}: "
                "something there starts before what caused it"
            )

    def _missing(self, orphan: Span) -> str:
        """Return why the parent of *orphan* is not here, as far as one can tell."""
        if self.now_ns - self.arrived_ns < GRACE:
            return "its parent has not arrived yet"
        local = orphan.flags & _KNOWS_REMOTE and not orphan.flags & _IS_REMOTE
        if self.roles[orphan.span_id] == "run":
            return (
                "its send did not arrive: the producer's spans go elsewhere, were sampled out, "
                "or were lost with it"
            )
        if not local and orphan.kind == "SERVER":
            return "its caller did not arrive: its spans go elsewhere, or were sampled out"
        if not local and orphan.flags & _IS_REMOTE:
            return "its parent, in another process, did not arrive: sampled out or sent elsewhere"
        return (
            "its parent, in the same process, did not arrive: it never ended, or was lost when "
            "the process did"
        )

    # As the API has it

    def hops(self) -> dict[str, Any]:
        """Return the rows, the links between them and what there is to say, in milliseconds."""
        rows = _Rows(self)
        return {
            "trace_id": self.spans[0].trace_id if self.spans else "",
            "sentence": self.sentence,
            "start_ns": str(self.start_ns),
            "duration_ms": self.duration_ns / 1e6,
            "status": self.status,
            "services": [{"name": name, "index": at} for name, at in rows.services.items()],
            "rows": rows.rows,
            "links": self._links(),
            "problems": self.problems,
            "critical_ms": {name: ns / 1e6 for name, ns in self.critical_ns.items()},
        }

    def _links(self) -> list[dict[str, str]]:
        """Return the links inside of the trace, each from the span that has it to the one named."""
        links = []
        for span in self.spans:
            for link in span.links:
                target = self.known.get(link.span_id)
                if target is None or link.trace_id != span.trace_id or target is span:
                    continue
                if target.span_id != span.parent_id:
                    kind = self._link_kind(span, target)
                    links.append({"from": span.span_id, "to": target.span_id, "kind": kind})
        return links

    def _link_kind(self, span: Span, target: Span) -> str:
        message = self._ids.get(span.span_id)
        if message and message == self._ids.get(target.span_id):
            return "retry"
        roles = (self.roles[span.span_id], self.roles[target.span_id])
        return "chord" if roles == ("run", "run") else "link"


def _nanoseconds(run: Span, key: str) -> int | None:
    seconds = number(run.attributes, key)
    return None if seconds is None or seconds > LONGEST_WAIT else round(seconds * 1e9)


def _is_inside(run: Span, send: Span) -> bool:
    """Say whether *run* happened within its send: eagerly, without a queue."""
    return (
        run.instance == send.instance
        and run.service == send.service
        and send.start_ns <= run.start_ns
        and run.end_ns <= send.end_ns
    )


def _phases(wait: Wait) -> dict[str, tuple[int, int]]:
    """Return from when to when *wait* was what."""
    due = wait.end_ns - wait.prefetch_ns - wait.queue_ns
    taken = wait.end_ns - wait.prefetch_ns
    return {
        "scheduled": (wait.start_ns, due),
        "queue": (due, taken),
        "prefetch": (taken, wait.end_ns),
    }


def _named(span: Span) -> str:
    return span.service or "a service without a name"


def error_message(span: Span) -> str | None:
    """Return what went wrong in *span*, in its own words, or None."""
    for event in reversed(span.events):
        if kind := event.attributes.get(EXCEPTION_TYPE):
            return f"{kind}: {event.attributes.get(EXCEPTION_MESSAGE, '')}".rstrip(": ")
    if span.status != "ERROR":
        return None
    return span.status_message or str(span.attributes.get(ERROR_TYPE) or "") or None


class _Rows:
    """The rows of a trace in the order in which they are drawn: depth first, by start."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self.rows: list[dict[str, Any]] = []
        self.services: dict[str, int] = {}
        self._critical: dict[int, list[list[float]]] = defaultdict(list)
        for node, start, end in reversed(trace.path):
            if node is not None:
                self._critical[id(node)].append([self._ms(start), self._ms(end)])
        self._attempts = _attempts(trace)
        self._live: dict[str, list[Wait]] = defaultdict(list)
        for wait in trace.live:
            assert wait.send is not None
            self._live[self._place(wait.send)].append(wait)
        self._orphans = {orphan.span_id for orphan in trace.orphans}
        for root in trace.roots:
            self._add_tree(root)

    def _place(self, send: Span) -> str:
        """Return under which send the run of *send* will be: for a retry, under the first."""
        if send.kind == "PRODUCER":
            return send.span_id
        named = [link.span_id for link in send.links]
        return next((i for i in named if self._trace.roles.get(i) == "send"), send.span_id)

    def _ms(self, time_ns: int) -> float:
        return (time_ns - self._trace.start_ns) / 1e6

    def _add_tree(self, root: Span) -> None:
        pending: list[tuple[Node, int, str | None]] = [*reversed(self._with_wait(root, 0, None))]
        while pending:
            node, depth, parent = pending.pop()
            if isinstance(node, Wait):
                self.rows.append(self._wait_row(node, depth, parent))
                continue
            children = self._trace.children.get(node.span_id, [])
            below: list[tuple[Node, int, str | None]] = []
            for child in children:
                below += self._with_wait(child, depth + 1, node.span_id)
            below += [(wait, depth + 1, node.span_id) for wait in self._live[node.span_id]]
            self.rows.append(self._span_row(node, depth, parent, len(below)))
            pending += reversed(below)

    def _with_wait(
        self, span: Span, depth: int, parent: str | None
    ) -> list[tuple[Node, int, str | None]]:
        wait = self._trace.waits.get(span.span_id)
        row: tuple[Node, int, str | None] = (span, depth, parent)
        return [row] if wait is None else [(wait, depth, parent), row]

    def _span_row(self, span: Span, depth: int, parent: str | None, below: int) -> dict[str, Any]:
        trace = self._trace
        return self._row(span, span.span_id, depth, parent) | {
            "kind": "span",
            "name": span.name,
            "service": span.service,
            "service_index": self.services.setdefault(span.service, len(self.services)),
            "span_kind": span.kind,
            "self_ms": self._self_ms(span),
            "status": span.status.lower(),
            "state": state_of(span) or None,
            "message": error_message(span),
            "attempt": self._attempts.get(span.span_id),
            "wait": None,
            "missing_parent": trace._missing(span) if span.span_id in self._orphans else None,
            "has_children": bool(below),
            "children": below,
        }

    def _wait_row(self, wait: Wait, depth: int, parent: str | None) -> dict[str, Any]:
        of = wait.run or wait.send
        assert of is not None
        return self._row(wait, wait.id, depth, parent) | {
            "kind": "wait",
            "name": f"waiting in {wait.queue}" if wait.queue else "waiting",
            "service": of.service,
            "service_index": self.services.setdefault(of.service, len(self.services)),
            "span_kind": None,
            "self_ms": (wait.end_ns - wait.start_ns) / 1e6,
            "status": "unset",
            "state": None,
            "message": None,
            "attempt": self._attempts.get(of.span_id) if wait.run else None,
            "wait": wait.as_dict(),
            "missing_parent": None,
            "has_children": False,
            "children": 0,
        }

    def _row(self, node: Node, row_id: str, depth: int, parent: str | None) -> dict[str, Any]:
        return {
            "id": row_id,
            "depth": depth,
            "parent": parent,
            "start_ms": self._ms(node.start_ns),
            "end_ms": self._ms(max(node.start_ns, node.end_ns)),
            "critical": self._critical.get(id(node), []),
        }

    def _self_ms(self, span: Span) -> float:
        """Return how long nothing below *span* was under way within it."""
        covered, until = 0, span.start_ns
        for child in self._trace.children.get(span.span_id, ()):
            begin, end = max(child.start_ns, until), min(child.end_ns, span.end_ns)
            if end > begin:
                covered += end - begin
                until = end
        return max(0, span.end_ns - span.start_ns - covered) / 1e6


def _attempts(trace: Trace) -> dict[str, int]:
    """Return the number of each attempt at a message of which there were several."""
    tries: dict[object, list[Span]] = defaultdict(list)
    for run in trace.runs:
        cause = trace.known.get(run.parent_id)
        under = cause.span_id if cause and trace.roles[cause.span_id] == "send" else run.span_id
        tries[(trace._ids[run.span_id] or under, consumer_of(run))].append(run)
    return {
        run.span_id: at
        for runs in tries.values()
        if len(runs) > 1
        for at, run in enumerate(runs, 1)
    }
