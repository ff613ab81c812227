"""The problems of a trace, as sentences with the likely cause."""

from collections import defaultdict
from collections.abc import Iterator

from ...otlp.decode import ReceivedSpan
from .hops import Trace
from .messaging import task_of
from .sentence import sentence
from .wait import LiveState, Wait

__all__ = ["missing_parent", "problems"]

#: Smaller differences between clocks are not reported, in nanoseconds.
SKEW = 10**6

#: The most problems of each kind that are reported.
MOST = 20

# Bits of OTLP's span flags: the exporter knows whether the parent is remote, and it is remote.
_KNOWS_REMOTE, _IS_REMOTE = 0x100, 0x200


def problems(trace: Trace) -> list[str]:
    """Return the problems of *trace*, one sentence each."""
    told = [
        f"{orphan.name} ({_service(orphan)}): {missing_parent(trace, orphan)}"
        for orphan in trace.orphans[:MOST]
    ]
    if len(trace.orphans) > MOST:
        told.append(f"the parents of {len(trace.orphans) - MOST} more spans did not arrive")
    if trace.circular:
        told.append("some spans are their own ancestors; the circle is cut at the earliest")
    return [*told, *_untaken(trace), *_disagreements(trace)]


def missing_parent(trace: Trace, orphan: ReceivedSpan) -> str:
    """Return the likely reason why the parent of *orphan* is missing."""
    if trace.arriving:
        return "its parent has not arrived yet"
    knows, remote = orphan.flags & _KNOWS_REMOTE, orphan.flags & _IS_REMOTE
    if trace.roles[orphan.span_id] == "run" and (remote or not knows):
        return (
            "its send did not arrive: the producer's spans go elsewhere, were sampled out, or "
            "were lost with its process"
        )
    if orphan.kind == "SERVER" and (remote or not knows):
        return "its caller did not arrive: its spans go elsewhere, or were sampled out"
    if remote:
        return "its parent, in another process, did not arrive: sent elsewhere, or sampled out"
    return (
        "its parent, in the same process, did not arrive: it has not ended, or was lost when the "
        "process did"
    )


def _untaken(trace: Trace) -> Iterator[str]:
    """Yield the problems of messages that no worker has taken, by queue, task and state."""
    groups: dict[tuple[LiveState | None, str, str], list[Wait]] = defaultdict(list)
    for wait in trace.live:
        if wait.state in ("stuck", "expired") or not wait.knows:
            groups[wait.state, wait.queue, task_of(wait.of) or wait.of.name].append(wait)
    for (state, queue, task), waits in list(groups.items())[:MOST]:
        count = f"{len(waits)} messages" if len(waits) > 1 else "1 message"
        where = f" in `{queue}`" if queue else ""
        longest = sentence(max(wait.waited_ns for wait in waits), [])
        told = f"{count} of {task}{where}"
        if state == "stuck":
            yield f"{told} stuck for {longest}: check that a worker consumes from this queue"
        elif state == "expired":
            yield f"{told} expired before a worker took {'them' if len(waits) > 1 else 'it'}"
        else:
            yield (
                f"{told}: no consumer is known. The producer does not record countdowns, and the "
                "consumer may not be traced"
            )


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
            f"the clock of {behind} is behind that of {ahead} by at least {early / 1e6:.1f} ms: "
            "synchronize the clocks of both hosts (NTP)"
        )


def _service(span: ReceivedSpan) -> str:
    return span.service or "a service without a name"
