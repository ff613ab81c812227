"""The analysis of one trace: its tree, its messages with their waits, and its critical path.

Everything here is derived from spans by pure functions, and nothing is exported as a span. Times
are integer nanoseconds.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

from ...otlp.decode import ReceivedSpan
from .critical import Segment, critical_path
from .messaging import Role, message_id_of, retries_of, role_of, state_of, task_of
from .sentence import rounded, sentence
from .wait import NEVER, STUCK_AFTER, LiveState, Node, Wait, live_wait, wait_of

Status = Literal[
    "ok", "error", "stuck", "expired", "overdue", "waiting", "scheduled", "broken", "revoked"
]

#: The states of a message that no worker has taken, the most urgent first.
LIVE_STATES: tuple[LiveState, ...] = ("stuck", "expired", "overdue", "waiting", "scheduled")

PartKind = Literal["web", "client", "scheduled", "waiting", "worker", "gap"]

#: A missing span may still arrive for this long after the last one: SDKs export every 5 s.
GRACE = 15 * 10**9

#: States of a message whose task never ran.
NEVER_RAN = frozenset({"EXPIRED", "REJECTED", "UNKNOWN"})


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the critical path and its name, in nanoseconds.

    There is one part for the waits in each queue, and one for the work of each service.
    *prefetch_ns* is the share of a wait that was spent in the worker. *shown_ns* is *ns* rounded as
    in the sentence.
    """

    kind: PartKind
    name: str
    ns: int
    service: str = ""
    queue: str = ""
    prefetch_ns: int = 0
    shown_ns: int = 0


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Spans of other traces that belong to messages of this one.

    *runs* are runs in other traces, by the span id of their send in this trace. *sends* are sends
    in other traces that runs of this trace link to, by their span id.
    """

    runs: Mapping[str, Sequence[ReceivedSpan]] = field(default_factory=dict)
    sends: Mapping[str, ReceivedSpan] = field(default_factory=dict)


class Trace:
    """One trace as it is known at *now_ns*. Its last span arrived at *arrived_ns*.

    Spans may be in any order and may repeat. *children* are by span id. *roots* are the spans
    without a parent in the trace, and *orphans* those roots that name a parent. *roles* marks sends
    and runs. *states* and *waits* are by run, and *live* are the waits of messages that no worker
    has taken.
    """

    def __init__(
        self,
        spans: Iterable[ReceivedSpan],
        now_ns: int,
        arrived_ns: int = 0,
        elsewhere: Elsewhere | None = None,
        stuck_after_ns: int = STUCK_AFTER,
    ) -> None:
        self.now_ns = now_ns
        self.stuck_after_ns = stuck_after_ns
        self.elsewhere = elsewhere or Elsewhere()
        #: Whether more spans may still arrive.
        self.arriving = now_ns - arrived_ns < GRACE
        self.arrived_ns = arrived_ns or now_ns
        self.known = {span.span_id: span for span in spans}
        self.spans = sorted(self.known.values(), key=lambda span: (span.start_ns, -span.end_ns))
        self.roles = self._find_roles()
        self.runs = [span for span in self.spans if self.roles[span.span_id] == "run"]
        self.sends = [span for span in self.spans if self.roles[span.span_id] == "send"]
        self.states = {run.span_id: state_of(run) for run in self.runs}
        self._find_tree()
        self._find_causes()
        self._find_waits()

    def _find_roles(self) -> dict[str, Role]:
        """Return the roles of spans. A span that receives messages is their run if no other is."""
        roles = {span.span_id: role_of(span) for span in self.spans}
        #: The sends that a span receives without running them.
        self._received: set[str] = set()
        takes = [span for span in self.spans if roles[span.span_id] == "take"]
        if not takes:
            return roles
        runs = [span for span in self.spans if roles[span.span_id] == "run"]
        processed = {i for run in runs for i in (run.parent_id, *(k.span_id for k in run.links))}
        for span in takes:
            sends = {link.span_id for link in span.links}
            if roles.get(span.parent_id) == "send":
                sends.add(span.parent_id)
            self._received |= sends
            is_run = sends and processed.isdisjoint({span.span_id, *sends})
            roles[span.span_id] = "run" if is_run else ""
        return roles

    def _find_tree(self) -> None:
        self.children: dict[str, list[ReceivedSpan]] = defaultdict(list)
        self.roots: list[ReceivedSpan] = []
        self.orphans: list[ReceivedSpan] = []
        for span in self.spans:
            if span.parent_id in self.known:
                self.children[span.parent_id].append(span)
                continue
            self.roots.append(span)
            if span.parent_id:
                self.orphans.append(span)
        self._in_run: dict[str, bool] = {}
        self._made_good: set[str] = set()
        for root in self.roots:
            self._descend(root)
        self.circular = len(self._in_run) < len(self.spans)
        for span in self.spans if self.circular else ():
            if span.span_id not in self._in_run:
                self.children[span.parent_id].remove(span)
                self.roots.append(span)
                self._descend(span)

    def _descend(self, root: ReceivedSpan) -> None:
        """Note which spans from *root* down are part of a run, or of a run that was retried."""
        pending = [(root, False, False)]
        while pending:
            span, in_run, made_good = pending.pop()
            if (state := self.states.get(span.span_id)) is not None:
                # A retry makes good its own attempt. A run below is a later one, or another task.
                in_run, made_good = True, state == "RETRY"
            self._in_run[span.span_id] = in_run
            if made_good:
                self._made_good.add(span.span_id)
            if below := self.children.get(span.span_id):
                pending += [(child, in_run, made_good) for child in below]

    def _find_causes(self) -> None:
        """Find the send of each run, and the sends that no run took."""
        self.message_ids = {s.span_id: message_id_of(s) for s in (*self.runs, *self.sends)}
        self._times_sent = Counter(self.message_ids[send.span_id] for send in self.sends)
        self.causes: dict[str, ReceivedSpan] = {}
        self._batches: dict[str, list[ReceivedSpan]] = {}
        taken = set(self._received)
        for run in self.runs:
            sends = self._sends_of(run)
            for send in sends:
                taken.add(send.span_id)
            batch = [*sends, *self._sends_elsewhere(run)]
            again = self._published(run, batch)
            if again is not None and again.parent_id != run.span_id:
                taken.add(again.span_id)
                sends.insert(0, again)
            else:
                if len(batch) > 1:
                    self._batches[run.span_id] = batch
                # The message that waited longest comes first.
                sends.sort(key=_end)
            if sends:
                self.causes[run.span_id] = sends[0]
        self._taken = taken
        self.untaken = [s for s in self.sends if s.span_id not in taken and self._is_untaken(s)]

    def _published(self, run: ReceivedSpan, batch: list[ReceivedSpan]) -> ReceivedSpan | None:
        """Return the send of this attempt at the message of *run*, or None.

        The parent of a retry is the first send, but another send published it. *batch* are the
        sends that *run* names as its parent and in its links.
        """
        message = self.message_ids[run.span_id]
        if not message:
            return None
        if len(batch) == self._times_sent[message] == 1:
            # Most messages are sent once.
            [send] = batch
            if self.message_ids.get(send.span_id) == message:
                return send
        return self._attempts.get(self._attempt(run))

    @cached_property
    def _attempts(self) -> dict[tuple[str, str, int], ReceivedSpan]:
        """The sends, by attempt."""
        return {self._attempt(send): send for send in reversed(self.sends)}

    def _attempt(self, span: ReceivedSpan) -> tuple[str, str, int]:
        return self.message_ids[span.span_id], task_of(span), retries_of(span)

    def _sends_of(self, run: ReceivedSpan) -> list[ReceivedSpan]:
        ids = [run.parent_id, *(link.span_id for link in run.links)]
        return [self.known[i] for i in dict.fromkeys(ids) if self.roles.get(i) == "send"]

    def _sends_elsewhere(self, run: ReceivedSpan) -> list[ReceivedSpan]:
        sends = self.elsewhere.sends
        return [sends[link.span_id] for link in run.links if link.span_id in sends]

    def _is_untaken(self, send: ReceivedSpan) -> bool:
        """Return whether *send*, whose run is not in this trace, still needs one here.

        A send that is not a PRODUCER injected the context of another send. It needs a run only if
        that other send is in this trace too, as for a retry.
        """
        if send.status == "ERROR" or send.span_id in self.elsewhere.runs:
            return False
        if any(child.service != send.service for child in self.children.get(send.span_id, ())):
            return False
        message = self.message_ids[send.span_id]
        return send.kind == "PRODUCER" or bool(
            message and any(self.message_ids.get(link.span_id) == message for link in send.links)
        )

    def _find_waits(self) -> None:
        self.waits: dict[str, Wait] = {}
        for run in self.runs:
            send = self.causes.get(run.span_id)
            if send is None:
                send = min(self._sends_elsewhere(run), key=_end, default=None)
            if wait := wait_of(run, send):
                self.waits[run.span_id] = wait
        #: The waits of all messages of a batch, by run.
        self.batches = {
            run_id: [wait for send in sends if (wait := wait_of(self.known[run_id], send))]
            for run_id, sends in self._batches.items()
        }
        self.live = [
            live_wait(send, self.now_ns, self.stuck_after_ns, self.arrived_ns)
            for send in self.untaken
        ]
        #: Waits of messages that a run in another trace took.
        self.picked_up = [
            wait
            for send in self.sends
            if send.span_id in self.elsewhere.runs
            for run in self._takers_elsewhere(send)
            if (wait := wait_of(run, send)) is not None
        ]
        starts = [span.start_ns for span in self.spans]
        ends = [*starts, *(span.end_ns for span in self.spans)]
        starts += [wait.start_ns for wait in (*self.waits.values(), *self.picked_up)]
        ends += [wait.end_ns for wait in (*self.live, *self.picked_up)]
        self.start_ns, self.end_ns = min(starts, default=0), max(ends, default=0)

    def _takers_elsewhere(self, send: ReceivedSpan) -> Sequence[ReceivedSpan]:
        """Return the runs of *send* in other traces, or else the spans that received it there."""
        takers = self.elsewhere.runs[send.span_id]
        runs = [taker for taker in takers if role_of(taker) == "run"]
        return runs if runs or send.span_id in self._taken else takers

    def messages_of(self, run: ReceivedSpan) -> list[Wait]:
        """Return the waits of the messages of *run*. A batch has several."""
        wait = self.waits.get(run.span_id)
        return self.batches.get(run.span_id) or ([wait] if wait else [])

    @property
    def duration_ns(self) -> int:
        """The time from the first start or wait to the last end."""
        return self.end_ns - self.start_ns

    @cached_property
    def path(self) -> list[Segment]:
        """The critical path, its last part first."""
        nodes: tuple[Node, ...] = (*self.spans, *self.all_waits)
        last = {id(wait) for wait in (*self.live, *self.picked_up)}
        return critical_path(nodes, self._above, last, self.start_ns, self.end_ns)

    def _above(self, node: Node) -> Node | None:
        """Return the cause of *node*: the wait of a run, the send of a wait, or the parent."""
        if isinstance(node, Wait):
            if node.send is not None and node.send.span_id in self.known:
                return node.send
            return self.known.get(node.of.parent_id)
        wait = self.waits.get(node.span_id)
        return wait or self.causes.get(node.span_id) or self.known.get(node.parent_id)

    @cached_property
    def critical_ns(self) -> Counter[str]:
        """The length of each kind of part of the critical path, by its name in the API."""
        total = Counter(web=0, scheduled=0, queue=0, prefetch=0, worker=0)
        for node, start, end in self.path:
            if isinstance(node, Wait):
                for name, phase in node.phases.items():
                    total[name] += _overlap(phase, start, end)
            elif node is not None:
                total["worker" if self._in_run[node.span_id] else "web"] += end - start
        return total

    @cached_property
    def parts(self) -> list[Part]:
        """The parts of the critical path, for the sentence, the bar and its legend."""
        work: Counter[tuple[bool, str]] = Counter()
        queues: Counter[str] = Counter()
        prefetched: Counter[str] = Counter()
        for node, start, end in self.path:
            if isinstance(node, Wait):
                phases = node.phases
                prefetch = _overlap(phases["prefetch"], start, end)
                queues[node.queue] += _overlap(phases["queue"], start, end) + prefetch
                prefetched[node.queue] += prefetch
            elif node is not None:
                work[self._in_run[node.span_id], node.service] += end - start
        servers = {s.service for s in self.spans if s.kind == "SERVER"}
        ordered = work.most_common()
        fronts: list[tuple[PartKind, str, int]] = [
            ("web" if service in servers else "client", service, ns)
            for (run, service), ns in ordered
            if not run
        ]
        fronts.sort(key=lambda front: front[0] != "client")
        parts = [
            *(Part(kind, kind, ns, service) for kind, service, ns in fronts),
            Part("scheduled", "scheduled", self.critical_ns["scheduled"]),
            *(
                Part(
                    *("waiting", f"waiting in `{queue}`" if queue else "waiting in the queue", ns),
                    queue=queue,
                    prefetch_ns=prefetched[queue],
                )
                for queue, ns in queues.most_common()
            ),
            *(Part("worker", "worker", ns, service) for (run, service), ns in ordered if run),
            Part("gap", "unaccounted for", self.duration_ns - self.critical_ns.total()),
        ]
        shown = rounded(self.duration_ns, [part.ns for part in parts])
        return [replace(part, shown_ns=ns) for part, ns in zip(parts, shown, strict=True)]

    @property
    def sentence(self) -> str:
        """The trace in one sentence: ``412 ms: 6 web, 380 waiting in `celery`, 26 worker``."""
        lengths = [(part.name, part.ns) for part in self.parts]
        return sentence(self.duration_ns, lengths, so_far=self._goes_on)

    @property
    def _goes_on(self) -> bool:
        return any(wait.state != "expired" for wait in self.live)

    @cached_property
    def live_states(self) -> dict[LiveState, int]:
        """The number of messages that no worker has taken, by state, the most urgent first."""
        counted = Counter(wait.state for wait in self.live)
        return {state: counted[state] for state in LIVE_STATES if counted[state]}

    @cached_property
    def services(self) -> dict[str, int]:
        """The services and their numbers, by the start of their first span."""
        spans = (*self.spans, *(wait.of for wait in self.picked_up))
        return {name: at for at, name in enumerate(dict.fromkeys(span.service for span in spans))}

    @property
    def ended_waits(self) -> list[Wait]:
        """The waits of its messages that a run took, in this trace or in another."""
        return [*self.waits.values(), *self.picked_up]

    @property
    def all_waits(self) -> list[Wait]:
        """All waits of its messages, ended and live."""
        return [*self.ended_waits, *self.live]

    @property
    def lasting_status(self) -> Status | None:
        """The status if it does not depend on the time, or None while messages wait."""
        states = {*self.states.values()}
        if states & NEVER_RAN or any(
            span.status == "ERROR" and span.span_id not in self._made_good for span in self.spans
        ):
            return "error"
        if self.live:
            return None
        if self.circular or (self.orphans and not self.arriving):
            return "broken"
        return "revoked" if "REVOKED" in states else "ok"

    @cached_property
    def first_error(self) -> ReceivedSpan | None:
        """The first span that failed without a later attempt, or None."""
        failed = [
            span
            for span in self.spans
            if span.status == "ERROR" and span.span_id not in self._made_good
        ]
        return min(failed, key=lambda span: span.end_ns, default=None)

    @cached_property
    def status(self) -> Status:
        """The status of the trace. An error without a later attempt comes first."""
        if (lasting := self.lasting_status) is not None:
            return lasting
        return next(state for state in LIVE_STATES if state in self.live_states)

    @property
    def changes_ns(self) -> int | None:
        """When the next live message changes its state, or None."""
        times = [
            time
            for wait in self.live
            for time in (wait.due_ns, wait.due_ns + self.stuck_after_ns, wait.expires_ns)
            if self.now_ns < time < NEVER
        ]
        return min(times, default=None)

    @property
    def revisit_ns(self) -> int | None:
        """When to sum the trace up again although no more spans arrive, or None.

        Live waits do not count: their state is computed on every read.
        """
        return self.arrived_ns + GRACE if self.orphans and self.arriving else None


def _end(span: ReceivedSpan) -> int:
    return span.end_ns


def _overlap(phase: tuple[int, int], start: int, end: int) -> int:
    return max(0, min(phase[1], end) - max(phase[0], start))
