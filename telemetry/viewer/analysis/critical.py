"""The critical path of a trace: the chain of spans and waits that determines its duration."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Sequence

from ...otlp.decode import ReceivedSpan
from .wait import Node, Wait

#: A part of the path: the node, its start and its end. None means that no node was active.
Segment = tuple[Node | None, int, int]

Above = Callable[[Node], Node | None]
Candidates = dict[int, list[tuple[int, Node]]]


def critical_path(
    nodes: Sequence[Node], above: Above, last_waits: Container[int], start_ns: int, end_ns: int
) -> list[Segment]:
    """Return the critical path from *start_ns* to *end_ns*, its last part first.

    *above* returns the cause of a node: the wait of a run, the send of a wait, the parent of any
    other span. *last_waits* are the ids of the waits whose run is not among *nodes*.

    The path goes backward in time. From the end of a span it goes to the last descendant that the
    span may have waited for. From the start of that descendant it goes up to the span again, and
    then to the descendant before. The parts cover the whole period and do not overlap.
    """
    waited_for = _waited_for(nodes, above, last_waits)
    segments: list[Segment] = []
    now = end_ns
    # The nodes that are active at *now*, innermost last. None is the trace as a whole.
    stack: list[Node | None] = [None]
    entered: set[int] = set()
    while stack:
        node = stack[-1]
        start = start_ns if node is None else node.start_ns
        until, last = _latest(waited_for.get(id(node), []), now, entered)
        if last is None or until < start:
            segments += _segments(node, start, now)
            now = min(now, start)
            stack.pop()
            continue
        segments += _segments(node, until, now)
        now = until
        way: list[Node] = []
        at: Node | None = last
        while at is not None and at is not node and id(at) not in entered:
            entered.add(id(at))
            way.append(at)
            at = above(at)
        stack += reversed(way)
    return segments


def _latest(
    candidates: list[tuple[int, Node]], now: int, entered: set[int]
) -> tuple[int, Node | None]:
    """Remove and return the last of *candidates* that had ended by *now*.

    Also remove those that ended later.
    """
    del candidates[bisect_right(candidates, now, key=lambda candidate: candidate[0]) :]
    while candidates:
        end, node = candidates.pop()
        if id(node) not in entered:
            return end, node
    return now, None


def _segments(node: Node | None, start: int, end: int) -> Iterable[Segment]:
    """Yield the segments of *node* between *start* and *end*, the last first."""
    if node is not None and node.end_ns < end:
        # The time between a wait and its run belongs to the worker.
        idle = node.run if isinstance(node, Wait) else None
        if max(start, node.end_ns) < end:
            yield idle, max(start, node.end_ns), end
        end = node.end_ns
    if start < end:
        yield node, start, end


def _waited_for(nodes: Sequence[Node], above: Above, last_waits: Container[int]) -> Candidates:
    """Return for each node the nodes that it may have waited for, sorted by their ends.

    A span may have waited for a descendant if the span was active when the descendant ended. Only
    the nearest such span counts. If there is none, the trace as a whole waited.
    """
    up = {id(node): above(node) for node in nodes}
    below: dict[int, list[Node]] = defaultdict(list)
    pending: list[Node] = []
    for node in nodes:
        caller = up[id(node)]
        (pending if caller is None else below[id(caller)]).append(node)
    ended: list[tuple[int, Node]] = []
    while pending:
        node = pending.pop()
        pending += below.get(id(node), ())
        if isinstance(node, ReceivedSpan) or id(node) in last_waits:
            ended.append((_end(node, up[id(node)]), node))
    ended.sort(key=lambda candidate: candidate[0])
    candidates: Candidates = defaultdict(list)
    for end, node in ended:
        waiter = _still_there(up[id(node)], end, up)
        while waiter is not None and end < waiter.start_ns:
            # It started later, because of clock skew.
            waiter = _still_there(up[id(waiter)], end, up)
        candidates[id(waiter)].append((end, node))
    return candidates


def _still_there(node: Node | None, end: int, up: dict[int, Node | None]) -> Node | None:
    """Return the first span from *node* upward that had not ended by *end*.

    Spans that had ended are removed from *up*: callers pass a growing *end*, so that none of them
    is ever the answer again.
    """
    over: list[Node] = []
    while node is not None and (isinstance(node, Wait) or node.end_ns < end):
        over.append(node)
        node = up[id(node)]
    for passed in over:
        up[id(passed)] = node
    return node


def _end(node: Node, caller: Node | None) -> int:
    """Return when *node* ended. A SERVER span ends no later than its request, despite skew."""
    end = max(node.start_ns, node.end_ns)
    is_answer = isinstance(node, ReceivedSpan) and node.kind == "SERVER"
    if is_answer and isinstance(caller, ReceivedSpan) and caller.kind == "CLIENT":
        return min(end, max(caller.start_ns, caller.end_ns))
    return end
