"""README's comparison: each tracer alone, set up as its manual says, and its records."""

import re
import signal
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from telemetry.otlp.decode import ReceivedSpan
from telemetry.otlp.receiver import Receiver

from ..conftest import Broker
from ..processes import ROOT, Starter
from ..receiving import PatientReceiver
from .conftest import starter
from .intake import Intake
from .page import version
from .test_tracers import skip_where_datadog_is_missing

pytestmark = [pytest.mark.interop, pytest.mark.timeout(600)]

MODULE = "tests.interop.compared"


@dataclass(frozen=True)
class Column:
    """A column of the table: its *title*, and whether the tracer sends OTLP."""

    title: str
    is_otlp: bool = False


COLUMNS = {
    "contrib": Column(f"contrib {version('opentelemetry-instrumentation-celery')}", True),
    "sentry": Column(f"Sentry {version('sentry-sdk')}"),
    "datadog": Column(f"Datadog {version('ddtrace')}"),
    "queuehop": Column("queuehop", True),
}

#: The first cell of the table's head.
FIRST = "recorded of"

#: How many children run one task and end: see the application. With few of them, another tracer now
#: and then sends all spans in time.
RECYCLED = 12

WORKER = ("worker", "--loglevel=INFO", "--without-gossip", "--without-mingle")


@dataclass(frozen=True)
class Span:
    """A span of any tracer; *kind* is ``send``, ``run`` or ``other``, *name* the task's."""

    kind: str
    name: str
    span_id: str
    parent_id: str
    is_error: bool
    waits: int
    links: frozenset[str] = frozenset()


def spans_of_otlp(span: ReceivedSpan) -> Iterator[Span]:
    kinds = {"send": "send", "apply_async": "send", "process": "run", "run": "run"}
    kind, _, name = re.sub("[ /]", "\0", span.name, count=1).partition("\0")
    yield Span(
        kinds.get(kind, "other"),
        name or kind,
        span.span_id,
        span.parent_id,
        span.status == "ERROR",
        waits_in(span.attributes),
        frozenset(link.span_id for link in span.links),
    )


def spans_of_datadog(span: dict[str, Any]) -> Iterator[Span]:
    kinds = {"celery.apply": "send", "celery.run": "run"}
    facts = {**span.get("meta", {}), **span.get("metrics", {})}
    yield Span(
        kinds.get(span["name"], "other"),
        span["resource"],
        str(span["span_id"]),
        str(span.get("parent_id") or ""),
        bool(span.get("error")),
        waits_in(facts),
        frozenset(str(link["span_id"]) for link in span.get("span_links") or ()),
    )


def spans_of_sentry(transaction: dict[str, Any]) -> Iterator[Span]:
    kinds = {"queue.submit.celery": "send", "queue.task.celery": "run"}
    root = {**transaction["contexts"]["trace"], "description": transaction["transaction"]}
    for span in (root, *transaction["spans"]):
        yield Span(
            kinds.get(span["op"], "other"),
            span["description"],
            span["span_id"],
            span.get("parent_span_id") or "",
            span.get("status") == "internal_error",
            waits_in(span.get("data") or {}),
            frozenset(link["span_id"] for link in span.get("links") or ()),
        )


def waits_in(facts: Iterable[str]) -> int:
    return sum("wait" in name or "latency" in name for name in facts)


class Recorded:
    """The records of one tracer."""

    def __init__(self, spans: Iterable[Span]) -> None:
        self.spans = {span.span_id: span for span in spans}

    def find(self, kind: str, name: str) -> list[Span]:
        return [s for s in self.spans.values() if (s.kind, s.name) == (kind, name)]

    def ancestors(self, span: Span) -> list[Span]:
        found = []
        while span.parent_id in self.spans:
            span = self.spans[span.parent_id]
            found.append(span)
        return found

    def wait(self) -> str:
        """How long a message waited."""
        (run,) = self.find("run", "work")
        spans = [s for s in self.spans.values() if run in (s, *self.ancestors(s))]
        return {
            0: "not recorded",
            1: "one number",
            3: "three numbers: scheduled, in the queue, prefetched",
        }[sum(span.waits for span in spans)]

    def retry(self) -> str:
        """A task is retried twice."""
        runs = self.find("run", "retry")
        assert len(runs) == 3
        above = [len(set(runs) & set(self.ancestors(run))) for run in runs]
        if sorted(above) == [0, 1, 2]:
            return "each attempt nested in the one before"
        assert len({run.parent_id for run in runs}) == 1
        ids = {run.span_id for run in runs}
        assert sorted(len(ids & run.links) for run in runs) == [0, 1, 1]
        return "attempts are siblings, each linked to the one before"

    def killed(self) -> str:
        """A child process is killed."""
        runs = self.find("run", "killed")
        assert all(run.is_error for run in runs)
        return "an error span" if runs else "no span"

    def recycled(self) -> str:
        """Children that end after one task."""
        return "all spans" if len(self.find("run", "recycled")) == RECYCLED else "spans are lost"

    def expired(self) -> str:
        """A message expires."""
        return "a span with the state" if self.find("run", "expired") else "no span"

    def publish(self) -> str:
        """A publish that fails."""
        (after,) = self.find("other", "afterwards")
        (around,) = self.find("other", "fails")
        sends = self.find("send", "refused")
        if not sends:
            assert after.parent_id not in self.spans
            return "no span, and it stays current"
        assert all(send.is_error for send in sends)
        assert after.parent_id == around.span_id
        return "an error span"

    def chord(self) -> str:
        """The body of a chord."""
        (body,) = self.find("run", "whole")
        parts = self.find("run", "part")
        assert len(parts) == 2
        assert len(set(parts) & set(self.ancestors(body))) == 1
        is_linked = {part.span_id for part in parts} <= body.links
        return "under the last part, linked to every part" if is_linked else "under the last part"


#: The first cell of each row, and what the others must be.
ROWS: dict[str, Callable[[Recorded], str]] = {
    "how long a message waited": Recorded.wait,
    "a retry": Recorded.retry,
    "a child process that is killed": Recorded.killed,
    "a child process that is recycled": Recorded.recycled,
    "a message that expires": Recorded.expired,
    "a publish that fails": Recorded.publish,
    "the body of a chord (Redis)": Recorded.chord,
}


#: The runs that every tracer records.
RUNS = {"work": 1, "part": 2, "whole": 1, "retry": 3}

#: The spans of queuehop: 8 of the application, 22 sends, 21 runs.
ALL_OF_QUEUEHOP = 51


class System:
    """A publisher and two workers under one tracer."""

    def __init__(self, tracer: str, start: Starter, receiver: Receiver, intake: Intake) -> None:
        self._tracer = tracer
        self._start = start
        self._receiver = receiver
        self._intake = intake

    def run(self) -> Recorded:
        """Run all cases; end the workers as a deployment does; return the spans that arrived."""
        celery = ("celery", "-A", MODULE, *WORKER)
        publisher = self._start(MODULE, TRACER=self._tracer)
        # Contrib would lose its batch with the child that is killed.
        worker = self._start(
            *celery, "-c1", "-Qcelery", TRACER=self._tracer, OTEL_BSP_SCHEDULE_DELAY="100"
        )
        # One child for each task: the pool takes a second to replace one.
        recycling = self._start(
            *(*celery, f"-c{RECYCLED}", "-Qrecycled", "--max-tasks-per-child=1"),
            TRACER=self._tracer,
        )
        assert publisher.wait(60) == 0, publisher.output
        worker.wait_for_line("WorkerLostError", 60)
        self._wait_until(lambda found: all(len(found.find("run", t)) == RUNS[t] for t in RUNS))
        recycling.wait_for_line(" succeeded in ", 60, count=RECYCLED)
        worker.signal(signal.SIGTERM)
        recycling.signal(signal.SIGTERM)
        worker.wait(60)
        recycling.wait(60)
        if self._tracer == "queuehop":  # its spans are on disk, and another process sends them
            self._wait_until(lambda found: len(found.spans) >= ALL_OF_QUEUEHOP)
        return self._recorded()

    def _recorded(self) -> Recorded:
        return Recorded(
            [
                *(s for span in self._receiver.spans for s in spans_of_otlp(span)),
                *(s for span in self._intake.datadog for s in spans_of_datadog(span)),
                *(s for each in self._intake.transactions for s in spans_of_sentry(each)),
            ]
        )

    def _wait_until(self, predicate: Callable[[Recorded], bool]) -> None:
        target: Any = self._receiver if COLUMNS[self._tracer].is_otlp else self._intake
        target.wait_for(lambda _: predicate(self._recorded()), 60)


def readme_table() -> dict[str, list[str]]:
    """Return the cells of README's comparison by the first of each row; ``FIRST`` is the head's."""
    text = (ROOT / "README.md").read_text()
    (table,) = re.findall(rf"^\| {FIRST} \|.*?(?=^$)", text, re.M | re.S)
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]
    return {row[0]: row for row in rows}


@pytest.mark.parametrize("tracer", COLUMNS)
def test_readme_compares(tracer: str, broker: Broker, tmp_path: Path) -> None:
    if tracer == "datadog":
        skip_where_datadog_is_missing()
    with PatientReceiver() as receiver, Intake() as intake:
        start = starter(broker, receiver, intake, str(tmp_path))
        start.env["OTEL_METRICS_EXPORTER"] = "none"
        try:
            recorded = System(tracer, start, receiver, intake).run()
        finally:
            problems = list(start.end())
        assert not problems
    title = COLUMNS[tracer].title
    table = readme_table()
    assert title in table[FIRST]
    at = table[FIRST].index(title)
    assert {row: table[row][at] for row in ROWS} == {row: ROWS[row](recorded) for row in ROWS}
