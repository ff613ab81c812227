"""What is wrong with a trace, in words, and the likely reason."""

from collections.abc import Iterator

from ...otlp.decode import ReceivedSpan
from .hops import Trace

__all__ = ["missing_parent", "problems"]

#: Clocks that differ by less are not worth a word, in nanoseconds.
SKEW = 10**6

#: Of each kind of problem so many are told.
MOST = 20

# Bits of OTLP's span flags: whether it is known where the parent is, and whether it is remote.
_KNOWS_REMOTE, _IS_REMOTE = 0x100, 0x200


def problems(trace: Trace) -> list[str]:
    """Return what is wrong with *trace*, a sentence each."""
    told = [
        f"{orphan.name} ({_service(orphan)}): {missing_parent(trace, orphan)}"
        for orphan in trace.orphans[:MOST]
    ]
    if len(trace.orphans) > MOST:
        told.append(f"the parents of {len(trace.orphans) - MOST} more spans did not arrive")
    if trace.circular:
        told.append("some spans are their own ancestors; the circle is cut at the earliest")
    live = {wait.of.span_id for wait in trace.live}
    given_up = [send for send in trace.untaken if send.span_id not in live]
    told += [
        f"{send.name} ({_service(send)}): nobody is known to have taken its message"
        for send in given_up[:MOST]
    ]
    return [*told, *_disagreements(trace)]


def missing_parent(trace: Trace, orphan: ReceivedSpan) -> str:
    """Return why the parent of *orphan* is not here, as far as one can tell."""
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


def _disagreements(trace: Trace) -> Iterator[str]:
    """Yield whose clocks disagree, and by how much at least."""
    worst: dict[tuple[str, str], int] = {}
    for span in trace.spans:
        above = trace.causes.get(span.span_id) or trace.known.get(span.parent_id)
        if above is not None and (early := above.start_ns - span.start_ns) >= SKEW:
            pair = _service(span), _service(above)
            worst[pair] = max(early, worst.get(pair, 0))
    for (behind, ahead), early in list(worst.items())[:MOST]:
        yield (
            f"the clock of {behind} is behind that of {ahead}, by {early / 1e6:.1f} ms at least: "
            "something starts before what caused it"
        )


def _service(span: ReceivedSpan) -> str:
    return span.service or "a service without a name"
