"""Traces in the terminal: one line for each ping, and the tree of a trace with its waits."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import isfinite

from opentelemetry.semconv._incubating.attributes.db_attributes import DB_SYSTEM_NAME
from opentelemetry.semconv._incubating.attributes.messaging_attributes import (
    MESSAGING_DESTINATION_NAME,
)
from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE
from opentelemetry.semconv.attributes.exception_attributes import (
    EXCEPTION_MESSAGE,
    EXCEPTION_TYPE,
)
from opentelemetry.semconv.attributes.http_attributes import HTTP_RESPONSE_STATUS_CODE
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from ..otlp.decode import ReceivedSpan
from .analysis.verdict import SEND, by_trace, judge
from .analysis.wait import Wait
from .duration import duration

TASK_STATE = "celery.task.state"
WAIT_QUEUE = "celery.wait.queue"
IN_QUEUE = "in {queue}"
#: The waits of a message in their order, and their descriptions.
WAITS = (
    ("celery.wait.scheduled", "until it was due"),
    (WAIT_QUEUE, IN_QUEUE),
    ("celery.wait.prefetch", "for a free process"),
)
WAIT_SKEWED = "celery.wait.skewed"

#: Shorter waits would be shown as 0.0 ms, in seconds.
SHORTEST_WAIT = 0.00005

#: The colors of services. Red is for errors and yellow for waits.
SERVICE_COLORS = ("cyan", "green", "magenta", "blue", "bright_cyan", "bright_magenta")

MOST_LINKS = 5
DEEPEST_GUIDES = 36
NARROWEST_BAR, WIDEST_BAR = 12, 56


def ping_header() -> Text:
    """Return the line above the lines of pings."""
    line = f"{'#':>3}  HTTP {'duration':>11} {'in queue':>11}  {'trace':32} {'spans':>6}"
    return Text(line, style="dim")


def ping_line(number: int, spans: Sequence[ReceivedSpan]) -> Text:
    """Return one line about a ping, and below it the reasons if its trace is incomplete."""
    verdict = judge(spans)
    status = next(
        (str(s.attributes[HTTP_RESPONSE_STATUS_CODE]) for s in spans if _has_status(s)), "–"
    )
    # Without the root, use the duration of the spans that arrived.
    begin, end = _period(spans)
    root = next((span for span in spans if not span.parent_id), None)
    seconds = root.duration if root else (end - begin) / 1e9
    waits = [wait for span in spans if (wait := _seconds(span, WAIT_QUEUE)) is not None]
    line = Text.assemble(
        f"{number:3}  ",
        (f"{status:>4}", "green" if status.startswith("2") else "red"),
        f" {_duration(seconds):>11}",
        (f" {_duration(sum(waits)) if waits else '–':>11}", "yellow"),
        (f"  {verdict.trace_id:32}", "bold"),
        f" {verdict.spans:6}",
        (" ✓", "bold green") if verdict.ok else (" ✗", "bold red"),
    )
    for reason in verdict.reasons:
        line.append(f"\n{'':11}{_printable(reason)}", "red")
    return line


def _has_status(span: ReceivedSpan) -> bool:
    return span.kind in ("CLIENT", "SERVER") and HTTP_RESPONSE_STATUS_CODE in span.attributes


def _period(spans: Sequence[ReceivedSpan]) -> tuple[int, int]:
    return min((s.start_ns for s in spans), default=0), max((s.end_ns for s in spans), default=0)


def _seconds(span: ReceivedSpan, key: str) -> float | None:
    value = span.attributes.get(key)
    return float(value) if isinstance(value, int | float) and isfinite(value) else None


def _duration(seconds: float) -> str:
    return duration(round(seconds * 1e9))


def _printable(text: object) -> str:
    """Return *text* in one line without control characters."""
    return "".join(c if c.isprintable() else " " for c in str(text))


def render_tree(spans: Sequence[ReceivedSpan], waits: Sequence[Wait] = ()) -> "Tree":
    """Return the tree of one trace: its spans, their durations and the waits in between.

    *waits* are those of messages that no worker has taken, or whose run is in another trace.
    """
    return Tree(by_trace(spans), {wait.send.span_id: wait for wait in waits if wait.send})


@dataclass(frozen=True, slots=True)
class _Bar:
    start_ns: int
    end_ns: int
    style: str
    dashed: bool = False


@dataclass(frozen=True, slots=True)
class _Row:
    """One line of the tree. A line without a bar may fill the whole width."""

    text: Text
    duration: str = ""
    bar: _Bar | None = None


class Tree:
    """A trace as a tree in the width of the terminal."""

    def __init__(
        self, traces: Mapping[str, Sequence[ReceivedSpan]], waits: Mapping[str, Wait]
    ) -> None:
        self._traces = traces
        self._waits = waits

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for trace_id, spans in self._traces.items():
            yield from _lines(trace_id, spans, self._waits, options.max_width)


def _lines(
    trace_id: str, spans: Sequence[ReceivedSpan], waits: Mapping[str, Wait], width: int
) -> Iterator[Text]:
    verdict = judge(spans)
    rows = list(_rows(spans, waits))
    begin, end = _period(spans)
    durations = max(len(row.duration) for row in rows)
    label = max(row.text.cell_len for row in rows if row.bar)
    label = max(10, min(label, width - durations - NARROWEST_BAR - 4))
    across = max(0, min(width - label - durations - 4, WIDEST_BAR))

    yield Text.assemble(
        ("trace ", "dim"),
        (trace_id, "bold"),
        (f"   {verdict.size}", "dim"),
        no_wrap=True,
        overflow="ellipsis",
    )
    total = _duration((end - begin) / 1e9)
    scale = f"0{total:>{max(0, across - 1)}}"
    yield Text(f"{'':{label + durations + 4}}{scale}", "dim", no_wrap=True, overflow="crop")
    for row in rows:
        line = row.text.copy()
        line.no_wrap, line.overflow = True, "ellipsis"
        if row.bar:
            line.truncate(label, overflow="ellipsis", pad=True)
            line.append(f"  {row.duration:>{durations}}  ")
            line.append_text(_bar(row.bar, begin, max(1, end - begin), across))
        else:
            line.truncate(width, overflow="ellipsis")
        yield line


def _bar(bar: _Bar, begin: int, length: int, across: int) -> Text:
    """Draw *bar* on a scale of *across* cells, to half a cell."""
    first = min(max(0, round((bar.start_ns - begin) / length * across * 2)), across * 2 - 1)
    last = max(first + 1, min(round((bar.end_ns - begin) / length * across * 2), across * 2))
    halves = [first <= half < last for half in range(across * 2)]
    full, left, right = ("┄", "┄", "┄") if bar.dashed else ("━", "╸", "╺")
    cells = {(True, True): full, (True, False): left, (False, True): right, (False, False): " "}
    drawn = "".join(cells[halves[at], halves[at + 1]] for at in range(0, across * 2, 2))
    return Text(drawn.rstrip(), bar.style)


def _rows(spans: Sequence[ReceivedSpan], waits: Mapping[str, Wait]) -> Iterator[_Row]:
    known = {span.span_id: span for span in spans}
    children: dict[str, list[ReceivedSpan]] = defaultdict(list)
    for span in spans:
        children[span.parent_id if span.parent_id in known else ""].append(span)
    services = dict.fromkeys(span.service for span in spans)
    colors = {
        service: SERVICE_COLORS[at % len(SERVICE_COLORS)] for at, service in enumerate(services)
    }
    drawn: set[str] = set()
    for root in (*children[""], *spans):  # spans in a cycle have no root
        # No recursion: a task that publishes itself repeatedly makes a deep tree.
        pending = [(root, "", True)]
        while pending:
            span, guides, is_last = pending.pop()
            if span.span_id in drawn:
                continue
            drawn.add(span.span_id)
            parent = known.get(span.parent_id)
            lead, branch, below = "", "", ""
            if parent is not None and span is not root:
                lead = guides + "│  "
                branch = guides + ("└─ " if is_last else "├─ ")
                below = guides + ("   " if is_last else "│  ")
            under = children[span.span_id]
            color = colors[span.service]
            yield from _above(span, parent, lead, color)
            yield _Row(
                Text.assemble((_cut(branch), "dim"), _label(span, color)),
                _duration(span.duration),
                _Bar(span.start_ns, span.end_ns, "red" if span.status == "ERROR" else color),
            )
            lead = below + ("│  " if under else "   ")
            if wait := waits.get(span.span_id):
                yield _Row(Text.assemble((_cut(lead), "dim"), (f"⧗ {_state(wait)}", "yellow")))
            yield from _notes(span, known, lead)
            pending += [(child, below, child is under[-1]) for child in reversed(under)]


def _cut(guides: str) -> str:
    return guides if len(guides) <= DEEPEST_GUIDES else "⋯" + guides[-DEEPEST_GUIDES:]


def _above(
    span: ReceivedSpan, parent: ReceivedSpan | None, lead: str, color: str
) -> Iterator[_Row]:
    """Yield the rows between *parent* and *span*: its waits, and its process if that changes."""
    guides = (_cut(lead), "dim")
    if parent is None and span.parent_id:
        text = f"the parent {span.parent_id} did not arrive"
        yield _Row(Text.assemble(guides, (text, "red")))
    for words, bar in _waits(span):
        yield _Row(Text.assemble(guides, (f"⧗ {words}", "yellow")), bar=bar)
    if parent is None or (parent.service, parent.instance) != (span.service, span.instance):
        instance = f"  {_printable(span.instance)[:8]}"
        name = _printable(span.service) or "a service without a name"
        yield _Row(Text.assemble(guides, (name, f"bold {color}"), (instance, "dim")))


def _waits(span: ReceivedSpan) -> Iterator[tuple[str, _Bar]]:
    """Yield the description and the bar of each wait of a run."""
    known = [(_seconds(span, key), words) for key, words in WAITS]
    waits = [(seconds, words) for seconds, words in known if seconds is not None]
    if not waits:
        return
    # Show every wait that is long enough. If none is, show the one in the queue.
    least = SHORTEST_WAIT if any(seconds >= SHORTEST_WAIT for seconds, _ in waits) else 0.0
    queue = _printable(span.attributes.get(MESSAGING_DESTINATION_NAME) or "the queue")
    skewed = " (the clocks disagree)" if WAIT_SKEWED in span.attributes else ""
    ends = [span.start_ns]
    for seconds, _ in reversed(waits):
        ends.insert(0, ends[0] - int(seconds * 1e9))
    for (seconds, words), (start, end) in zip(waits, pairwise(ends), strict=True):
        if seconds >= least and (least or words == IN_QUEUE):
            text = f"waited {_duration(seconds)} {words.format(queue=queue)}{skewed}"
            yield text, _Bar(start, end, "yellow", dashed=True)


def _state(wait: Wait) -> str:
    """Return the state of a message without a run in its trace, in the words of the page."""
    where = f"in {_printable(wait.queue or 'the queue')}"
    waited = duration(wait.waited_ns)
    if wait.run is not None:
        return f"waited {waited} {where}, and ran in trace {wait.run.trace_id}"
    words = {
        "scheduled": f"scheduled {where}, due in {duration(wait.due_ns - wait.end_ns)}",
        "waiting": f"waiting {waited} {where}{'' if wait.knows else ', no known consumer'}",
        "overdue": f"overdue by {waited} {where}",
        "stuck": f"stuck for {waited} {where}",
        "expired": f"expired after {waited} {where}",
    }
    return words[wait.state or "waiting"]


def _label(span: ReceivedSpan, color: str) -> Text:
    failed = span.status == "ERROR"
    text = Text.assemble(
        (_printable(span.name), "bold red" if failed else f"bold {color}"),
        ("  " + (span.kind), "dim"),
    )
    if detail := _detail(span):
        text.append(f" {_printable(detail)}", "red" if failed else "dim")
    return text


def _detail(span: ReceivedSpan) -> str:
    attributes = span.attributes
    if HTTP_RESPONSE_STATUS_CODE in attributes:
        return str(attributes[HTTP_RESPONSE_STATUS_CODE])
    if span.name.startswith(SEND) and attributes.get(MESSAGING_DESTINATION_NAME):
        return f"→ {attributes[MESSAGING_DESTINATION_NAME]}"
    state = attributes.get(TASK_STATE)
    if state and state != "SUCCESS":
        return str(state)
    return str(attributes.get(DB_SYSTEM_NAME, ""))


def _notes(span: ReceivedSpan, known: Mapping[str, ReceivedSpan], lead: str) -> Iterator[_Row]:
    """Yield the errors of *span* and its links."""
    guides = (_cut(lead), "dim")
    failed = span.status == "ERROR"
    exceptions = [e.attributes for e in span.events if EXCEPTION_TYPE in e.attributes]
    told = [f"{e[EXCEPTION_TYPE]}: {e.get(EXCEPTION_MESSAGE, '')}" for e in exceptions]
    if failed and not told:
        told = [str(span.status_message or span.attributes.get(ERROR_TYPE) or "failed")]
    for error in told:
        if error == _detail(span):  # the line above has it already
            continue
        text = f"✗ {_printable(error).rstrip(': ')}"
        yield _Row(Text.assemble(guides, (text, "red" if failed else "dim")))
    for link in span.links[:MOST_LINKS]:
        target = known.get(link.span_id)
        name = target.name if target else f"{link.span_id} in trace {link.trace_id}"
        own = " above" if target and target.span_id == span.parent_id else ""
        yield _Row(Text.assemble(guides, (f"↗ links to {_printable(name)}{own}", "dim")))
    if len(span.links) > MOST_LINKS:
        more = len(span.links) - MOST_LINKS
        yield _Row(Text.assemble(guides, (f"↗ and to {more} more", "dim")))
