"""The problems of a trace, as sentences with the likely cause."""

from collections import Counter, defaultdict
from collections.abc import Iterator

from ...otlp.decode import ReceivedSpan
from ..duration import duration
from .counts import cut
from .hops import Trace
from .messaging import error_of, queue_of, task_of
from .wait import AHEAD, LiveState, Wait

#: Smaller differences between clocks are not reported, in nanoseconds.
SKEW = 10**6

#: The most problems of each kind that are reported.
MOST = 20

#: Why a message never ran, by the state of its run.
_NEVER_RAN = {
    "EXPIRED": "expired",
    "REJECTED": "rejected by the worker",
    "UNKNOWN": "the worker does not know this task",
}

# Bits of OTLP's span flags: the exporter knows whether the parent is remote, and it is remote.
_KNOWS_REMOTE, _IS_REMOTE = 0x100, 0x200


def problems(trace: Trace) -> list[str]:
    """Return the problems of *trace*, one sentence each."""
    told = [
        f"{orphan.name} ({_service(orphan)}): {missing_parent(trace, orphan)}"
        for orphan in trace.orphans[:MOST]
    ]
    if len(trace.orphans) > MOST:
        told.append(f"The parents of {len(trace.orphans) - MOST} more spans did not arrive.")
    if trace.circular:
        told.append("Some spans are their own ancestors. The cycle is broken at the earliest.")
    told += [*_untaken(trace), *_retried(trace)]
    return [*told, *_apart(trace), *_never_ran(trace), *_disagreements(trace)]


def missing_parent(trace: Trace, orphan: ReceivedSpan) -> str:
    """Return the likely reason why the parent of *orphan* is missing."""
    if trace.arriving:
        return "The parent has not arrived yet."
    knows, remote = orphan.flags & _KNOWS_REMOTE, orphan.flags & _IS_REMOTE
    if trace.roles[orphan.span_id] == "run" and (remote or not knows):
        return (
            "The span of the send did not arrive. The producer exports to another place, its "
            "spans were sampled out, or they were lost with its process."
        )
    if orphan.kind == "SERVER" and (remote or not knows):
        return (
            "The span of the caller did not arrive. The caller exports to another place, or its "
            "spans were sampled out."
        )
    if remote:
        return (
            "The parent did not arrive from another process. That process exports to another "
            "place, or its spans were sampled out."
        )
    return (
        "The parent did not arrive from the same process. It has not ended yet, or it was lost "
        "with the process."
    )


def _untaken(trace: Trace) -> Iterator[str]:
    """Yield the problems of messages that no worker has taken, by queue, task and state."""
    groups: dict[tuple[LiveState | None, str, str], list[Wait]] = defaultdict(list)
    for wait in trace.live:
        if wait.state in ("stuck", "expired") or not wait.knows:
            groups[wait.state, wait.queue, task_of(wait.of) or wait.of.name].append(wait)
    for (state, queue, task), waits in list(groups.items())[:MOST]:
        has, they = ("has", "it") if len(waits) == 1 else ("have", "them")
        where = f" in `{queue}`" if queue else ""
        count = _messages(len(waits))
        longest = duration(max(wait.waited_ns for wait in waits))
        if state == "stuck":
            yield (
                f"{count} for {task} {has} been stuck{where} for {longest}. Check that a worker "
                "consumes from this queue. A task that still runs counts as waiting."
            )
        elif state == "expired":
            yield f"{count} for {task}{where} expired before a worker took {they}."
        else:
            yield (
                f"{count} for {task}{where} {has} no known consumer. The producer does not "
                "record countdowns, and the consumer may not be traced."
            )


def _retried(trace: Trace) -> Iterator[str]:
    """Yield the messages whose attempts all failed so far, and that are retried again."""
    tries: dict[tuple[str, str], list[ReceivedSpan]] = defaultdict(list)
    for run in trace.runs if trace.live else ():
        if trace.states[run.span_id] == "RETRY":
            tries[trace.message_ids[run.span_id], task_of(run)].append(run)
    for wait in trace.live[:MOST] if tries else ():
        task = task_of(wait.of)
        runs = tries.get((trace.message_ids[wait.of.span_id], task))
        if runs:
            where = f" in `{wait.queue}`" if wait.queue else ""
            times = "once" if len(runs) == 1 else f"{len(runs)} times"
            error = cut(error_of(runs[-1]) or "").replace("`", "'")
            because = f" The last error: {error}" if error else ""
            yield f"{task}{where} was retried {times} without success.{because}"


def _apart(trace: Trace) -> Iterator[str]:
    """Yield the messages that lost the trace: their run is in another one and does not link."""
    lost = Counter(
        (queue_of(send), task_of(send))
        for send in trace.sends
        for run in trace.elsewhere.runs.get(send.span_id, ())
        if all(link.span_id != send.span_id for link in run.links)
    )
    for (queue, task), count in list(lost.items())[:MOST]:
        where = f" in `{queue}`" if queue else ""
        yield (
            f"{_messages(count)} for {task}{where} ran in another trace: traceparent did not reach "
            "the worker. Set the same OTEL_PROPAGATORS on both sides, and check that nothing "
            "removes headers."
        )


def _never_ran(trace: Trace) -> Iterator[str]:
    """Yield the reasons why messages never ran. One with an error is the first error."""
    ended = (
        (reason, run)
        for run in trace.runs
        if (reason := _NEVER_RAN.get(trace.states[run.span_id])) and run.status != "ERROR"
    )
    groups = Counter((reason, queue_of(run), task_of(run) or run.name) for reason, run in ended)
    for (reason, queue, task), count in groups.items():
        where = f" in `{queue}`" if queue else ""
        yield f"{_messages(count)} for {task}{where} did not run: {reason}."


def _messages(count: int) -> str:
    return "1 message" if count == 1 else f"{count} messages"


def _disagreements(trace: Trace) -> Iterator[str]:
    """Yield the services whose clocks disagree, and the smallest possible difference."""
    worst: dict[tuple[str, str], int] = {}
    for span in trace.spans:
        above = trace.causes.get(span.span_id) or trace.known.get(span.parent_id)
        if above is not None and (early := above.start_ns - span.start_ns) >= SKEW:
            pair = _service(span), _service(above)
            worst[pair] = max(early, worst.get(pair, 0))
    for (behind, ahead), early in list(worst.items())[:MOST]:
        yield (
            f"The clock of {behind} is at least {duration(early)} behind that of {ahead}. "
            "Synchronize the clocks of both hosts (NTP)."
        )
    fast: dict[str, int] = {}
    for span in trace.spans:
        if (early := span.end_ns - trace.arrived_ns) >= AHEAD:
            fast[_service(span)] = max(early, fast.get(_service(span), 0))
    for service, early in list(fast.items())[:MOST]:
        yield (
            f"The clock of {service} is at least {duration(early)} ahead of the viewer's, so a "
            "wait may be wrong by as much. Synchronize the clocks of both hosts (NTP)."
        )


def _service(span: ReceivedSpan) -> str:
    return span.service or "a service without a name"
