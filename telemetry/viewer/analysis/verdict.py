"""The check that spans are one complete trace of a ping, and the reasons if they are not."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ...otlp.decode import ReceivedSpan

SEND, PROCESS = "send ", "process "


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether spans are one complete trace of a ping. If not, *reasons* has the causes."""

    trace_id: str
    spans: int
    processes: int
    reasons: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return not self.reasons

    @property
    def size(self) -> str:
        """The number of spans and processes: ``6 spans, 3 processes``."""
        return f"{_spans(self.spans)}, {_processes(self.processes)}"


def by_trace(spans: Iterable[ReceivedSpan]) -> dict[str, list[ReceivedSpan]]:
    """Return *spans* by trace id, the earliest trace first, without duplicates."""
    traces: dict[str, dict[str, ReceivedSpan]] = defaultdict(dict)
    for span in sorted(spans, key=lambda span: span.start_ns):
        traces[span.trace_id][span.span_id] = span
    return {trace_id: list(spans.values()) for trace_id, spans in traces.items()}


def judge(spans: Sequence[ReceivedSpan]) -> Verdict:
    """Return whether *spans* are one complete trace of a ping, from the root to the run.

    A complete trace begins in a client's ``ping`` and crosses at least three processes. If the
    client is not traced, it begins at the web side and crosses two.
    """
    traces = by_trace(spans)
    own = [span for trace in traces.values() for span in trace]
    processes = {span.instance for span in own if span.instance}
    return Verdict(
        trace_id=own[0].trace_id if own else "",
        spans=len(own),
        processes=len(processes),
        reasons=tuple(_reasons(traces, own, len(processes))),
    )


def _reasons(
    traces: Mapping[str, object], spans: Sequence[ReceivedSpan], processes: int
) -> Iterator[str]:
    if not spans:
        yield "no span arrived"
        return
    if len(traces) > 1:
        yield f"{len(traces)} traces instead of one"
    roots = [span for span in spans if not span.parent_id]
    if len(roots) != 1:
        names = ", ".join(span.name for span in roots)
        yield f"{len(roots)} roots instead of one: {names}" if roots else "its root did not arrive"
    known = {span.span_id: span for span in spans}
    for span in spans:
        if span.parent_id and span.parent_id not in known:
            yield f"the parent of {span.name} ({span.service}) did not arrive"
    if _has_cycle(known):
        yield "some spans are their own ancestors"
    for span in spans:
        yield from _wrong_kind(span, known.get(span.parent_id))
    yield from _missing_runs(spans)
    anonymous = sum(not span.instance for span in spans)
    if anonymous:
        do = "does" if anonymous == 1 else "do"
        yield f"{_spans(anonymous)} {do} not name a process"
    least = 2 if [root.kind for root in roots] == ["SERVER"] else 3
    if processes < least:
        yield f"{_processes(processes)} instead of at least {least}"


def _spans(count: int) -> str:
    return f"{count} span{'' if count == 1 else 's'}"


def _processes(count: int) -> str:
    return f"{count} process{'' if count == 1 else 'es'}"


def _has_cycle(known: Mapping[str, ReceivedSpan]) -> bool:
    sound: set[str] = set()
    for span in known.values():
        way: set[str] = set()
        at: ReceivedSpan | None = span
        while at is not None and at.span_id not in sound:
            if at.span_id in way:
                return True
            way.add(at.span_id)
            at = known.get(at.parent_id)
        sound |= way
    return False


def _wrong_kind(span: ReceivedSpan, parent: ReceivedSpan | None) -> Iterator[str]:
    """Yield where the kind of *span* or of its parent differs from the span model."""
    kinds: tuple[str, ...]
    if span.name.startswith(SEND):
        # A send is CLIENT if the message carries another context, as for a retry.
        kinds = ("PRODUCER", "CLIENT")
    elif span.name.startswith(PROCESS):
        kinds = ("CONSUMER",)
        yield from _wrong_run(span, parent)
    elif not span.parent_id:
        kinds = ("INTERNAL", "SERVER")
    elif parent is None:
        return
    elif parent.instance != span.instance:
        kinds = ("SERVER",)
    else:
        kinds = ("CLIENT", "INTERNAL")
    if span.kind not in kinds:
        yield f"{span.name} is {span.kind} instead of {' or '.join(kinds)}"
    if span.kind == "SERVER" and parent is not None and parent.kind != "CLIENT":
        yield f"{span.name} is under {parent.name}, which is not a request"


def _wrong_run(span: ReceivedSpan, parent: ReceivedSpan | None) -> Iterator[str]:
    if parent is None:
        return
    if parent.kind != "PRODUCER" or not parent.name.startswith(SEND):
        yield f"{span.name} is under {parent.name} instead of a send"
    elif not any(link.span_id == parent.span_id for link in span.links):
        yield f"{span.name} does not link to its send"


def _missing_runs(spans: Sequence[ReceivedSpan]) -> Iterator[str]:
    runs: dict[str, int] = defaultdict(int)
    for span in spans:
        if span.name.startswith(SEND) and span.status != "ERROR":
            runs[span.name.removeprefix(SEND)] += 1
        elif span.name.startswith(PROCESS):
            runs[span.name.removeprefix(PROCESS)] -= 1
    if not runs:
        yield "nothing was sent to a worker"
    for task, missing in runs.items():
        if missing > 0:
            yield f"the run of {task} did not arrive"
