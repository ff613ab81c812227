"""Sentry, Datadog, Logfire and OpenTelemetry's instrumentations, each beside this library.

Each runs in a gunicorn and in a prefork worker, set up before this library, after it, or in the
worker only.
"""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from telemetry.otlp.decode import ReceivedSpan

from ..processes import Process
from .conftest import Answer, Stand
from .intake import Intake
from .page import ORDERS, note

#: The first use of an environment makes it.
pytestmark = [pytest.mark.interop, pytest.mark.timeout(600)]

#: The package of each product, and its name for the application.
PRODUCTS = {
    "Sentry": ("sentry-sdk", "sentry"),
    "Datadog": ("ddtrace", "datadog"),
    "Logfire": ("logfire", "logfire"),
    "contrib": ("opentelemetry-instrumentation", "contrib"),
}


@dataclass
class System:
    """A web side and a worker with another tracer in one of them or in both."""

    product: str
    order: str
    stand: Stand
    web: Process
    worker: Process
    address: str
    queue: str

    def note(self, node: pytest.Item, situation: str, outcome: str) -> None:
        """Note the result for the page."""
        note(node, PRODUCTS[self.product][0], situation, outcome, self.order)

    def ask(self, task: str = "work", **parameters: str) -> Answer:
        """Let the web side publish *task*; return the headers of its message."""
        return self.stand.get(f"{self.address}/{task}", queue=self.queue, **parameters)


@pytest.fixture(
    scope="module",
    params=[(product, order) for product in PRODUCTS for order in ORDERS],
    ids=" ".join,
)
def system(stand: Stand, request: pytest.FixtureRequest) -> Iterator[System]:
    product, order = request.param
    if product == "Datadog":
        skip_where_datadog_is_missing()
    name = PRODUCTS[product][1]
    first = "ours" if order == "after" else "theirs"
    queue = f"{name}-{ORDERS.index(order)}"
    worker = stand.worker(name, first, queue)
    if order == "worker only":
        web, address = stand.web("nothing", "ours")
    else:
        web, address = stand.web(name, first)
    try:
        worker.wait_for_line(" ready.")
        yield System(product, order, stand, web, worker, address, queue)
    finally:
        stand.let_go(web, worker)


def skip_where_datadog_is_missing() -> None:
    if sys.version_info >= (3, 15):
        pytest.skip("ddtrace has no wheels for this Python")


def path_to(span: ReceivedSpan, spans: list[ReceivedSpan]) -> list[ReceivedSpan]:
    """Return *span* and its ancestors, the root first."""
    by_id = {each.span_id: each for each in spans}
    path = [span]
    while path[0].parent_id in by_id:
        path.insert(0, by_id[path[0].parent_id])
    assert path[0].parent_id == "", f"the parent of {path[0].name} is missing"
    return path


def ours(spans: list[ReceivedSpan]) -> list[str]:
    """Return the names of those of *spans* that this library has made."""
    return [span.name for span in spans if span.scope == "queuehop"]


def test_one_trace(system: System, request: pytest.FixtureRequest) -> None:
    answer = system.ask()
    spans = system.stand.spans_of(
        answer.trace_id, "GET", "GET /<task>", "send work", "process work"
    )
    (run,) = [s for s in spans if s.name == "process work"]
    path = path_to(run, spans)
    assert path[0].name == "client"
    assert ours(path) == ["GET", "GET /<task>", "send work", "process work"]
    assert len(ours(spans)) == 4, ours(spans)
    assert {span.status for span in spans} <= {"UNSET", "OK"}
    for process in system.web, system.worker:
        assert "Traceback" not in process.output
        assert "tracing could not" not in process.output
        assert "ERROR" not in process.output
        if system.order != "after":  # then the tracer provider is ours
            assert "Overriding of current TracerProvider" not in process.output
    system.note(request.node, "a task", "the whole trace; no error is logged")


def test_the_context_in_the_message_is_the_sends(system: System) -> None:
    for parameters in ({}, {"by_name": "1"}):
        answer = system.ask(**parameters)
        spans = system.stand.spans_of(answer.trace_id, "GET /<task>", "send work", "process work")
        (run,) = [s for s in spans if s.name == "process work"]
        assert answer.top["traceparent"] == f"00-{run.trace_id}-{run.parent_id}-03"
        assert "send work" in ours(path_to(run, spans))
        assert answer.baggage == {"tenant": "blue"}


def test_a_retry(system: System, request: pytest.FixtureRequest) -> None:
    """The tables that Sentry and Datadog put into the headers do not redirect it."""
    answer = system.ask("retry")
    spans = system.stand.spans_of(
        answer.trace_id, "GET", "GET /<task>", *["send retry", "process retry"] * 2
    )
    first, last = sorted(
        (s for s in spans if s.name == "process retry"), key=lambda span: span.start_ns
    )
    hops = ["GET", "GET /<task>", "send retry", "process retry"]
    assert ours(path_to(first, spans)) == hops
    assert (first.trace_id, first.span_id) in [(at.trace_id, at.span_id) for at in last.links]
    if system.product == "contrib":
        # It writes the context of its own span over that of the retry.
        assert "send retry" in ours(path_to(last, spans))
        outcome = "one trace; the second attempt under contrib's own span, linked to the first"
    else:
        assert ours(path_to(last, spans)) == hops
        assert first.parent_id == last.parent_id
        outcome = "both attempts under the first send, the second linked to the first"
    system.note(request.node, "a task that retries", outcome)


@pytest.mark.parametrize("parameters", [{}, {"by_name": "1"}], ids=["task", "name"])
def test_their_own_trace(
    system: System, request: pytest.FixtureRequest, parameters: dict[str, str]
) -> None:
    """The other tracer finds its own trace in the message, as without this library."""
    answer = system.ask(**parameters)
    outcome = THEIRS[system.product](system, answer)
    system.note(request.node, "its own spans of a task", outcome)


def check_sentry(system: System, answer: Answer) -> str:
    def runs(intake: Intake) -> list[dict[str, Any]]:
        return [
            transaction["contexts"]["trace"]
            for transaction in intake.transactions
            if transaction["tags"].get("celery_task_id") == answer.top["id"]
        ]

    system.stand.intake.wait_for(runs)
    (run,) = runs(system.stand.intake)
    if system.order == "worker only":
        assert "sentry-trace" not in answer.top
        return "its transaction arrives"
    trace_id, parent_id = answer.top["sentry-trace"].split("-")[:2]
    assert answer.table["sentry-trace"] == answer.top["sentry-trace"]
    assert f"sentry-trace_id={trace_id}" in answer.top["baggage"]
    assert (run["trace_id"], run["parent_span_id"]) == (trace_id, parent_id)
    return "its headers are in the message, its transactions are one trace"


def check_datadog(system: System, answer: Answer) -> str:
    def found(intake: Intake) -> bool:
        runs = [
            span
            for span in intake.datadog
            if span["name"] == "celery.run" and span["meta"].get("celery.id") == answer.top["id"]
        ]
        if system.order == "worker only" or not runs:
            return bool(runs)
        (run,) = runs
        names = {s["name"] for s in intake.datadog if s["trace_id"] == run["trace_id"]}
        return {"celery.apply", "celery.run"} <= names

    system.stand.intake.wait_for(found)
    return "its run arrives" if system.order == "worker only" else "its spans are one trace"


def check_logfire(system: System, answer: Answer) -> str:
    system.stand.receiver.wait_for(
        lambda spans: any(s.name == "in the task" and s.trace_id == answer.trace_id for s in spans)
    )
    spans = system.stand.spans_of(answer.trace_id, "GET /<task>", "send work", "process work")
    (inside,) = [span for span in spans if span.name == "in the task"]
    assert ours(path_to(inside, spans))[-1] == "process work"
    return "a span that the task makes with it is under the run"


def check_contrib(system: System, answer: Answer) -> str:
    system.stand.receiver.wait_for(
        lambda spans: any(s.name == "run/work" and s.trace_id == answer.trace_id for s in spans)
    )
    spans = system.stand.spans_of(answer.trace_id, "GET /<task>", "send work", "process work")
    (run,) = [span for span in spans if span.name == "run/work"]
    assert "send work" in ours(path_to(run, spans))
    return "they are in the same trace, under the send"


#: The function that checks the trace of each product, and returns the result for the page.
THEIRS: dict[str, Callable[[System, Answer], str]] = {
    "Sentry": check_sentry,
    "Datadog": check_datadog,
    "Logfire": check_logfire,
    "contrib": check_contrib,
}


class TestProviderOfDatadog:
    """``ddtrace.opentelemetry.TracerProvider``, set before this library: no class of the SDK's."""

    @pytest.fixture
    def system(self, stand: Stand) -> Iterator[System]:
        skip_where_datadog_is_missing()
        queue = "datadog-provider"
        worker = stand.worker("datadog-provider", "theirs", queue)
        web, address = stand.web("datadog-provider", "theirs")
        try:
            worker.wait_for_line(" ready.")
            yield System("Datadog", "its provider", stand, web, worker, address, queue)
        finally:
            stand.let_go(web, worker)

    @pytest.mark.interop(
        "ddtrace",
        "`ddtrace.opentelemetry.TracerProvider`",
        "the hops are spans of Datadog's, in the client's trace, each under the one before it",
        "before",
    )
    def test_the_hops_go_through_it(self, system: System) -> None:
        answer = system.ask()

        def found() -> list[dict[str, Any]]:
            low = int(answer.trace_id[16:], 16)
            return [span for span in intake.datadog if span["trace_id"] == low]

        hops = ["GET /<task>", "send work", "process work"]
        intake = system.stand.intake
        intake.wait_for(lambda _: set(hops) <= {s["resource"] for s in found()})
        by_id = {span["span_id"]: span for span in found()}
        (span,) = [span for span in found() if span["resource"] == "process work"]
        path = [span]
        while path[0]["parent_id"] in by_id:
            path.insert(0, by_id[path[0]["parent_id"]])
        assert [s["resource"] for s in path if s["resource"] in hops] == hops
        assert answer.top["traceparent"].split("-")[2] == f"{path[-1]['parent_id']:016x}"
        for process in system.web, system.worker:
            for text in ("Traceback", "ERROR", "tracing could not", "Overriding of current"):
                assert text not in process.output
