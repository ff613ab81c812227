"""A soft time limit reaches the task, even in the middle of tracing."""

import gc
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import requests
from billiard.exceptions import SoftTimeLimitExceeded
from celery import Celery
from opentelemetry import trace
from requests.adapters import BaseAdapter

from telemetry.celery import instrument_celery
from telemetry.config.exporter import Targets
from telemetry.config.sdk import SpanLimits
from telemetry.config.settings import Spool, sampler
from telemetry.export.outgoing import origin_of
from telemetry.export.spool.disk_sink import DiskSink
from telemetry.export.spool.watch import Watch
from telemetry.requests import traced_session
from telemetry.tracing.interrupts import is_uninterrupted
from telemetry.tracing.provider import HopTracerProvider
from telemetry.tracing.sink import Sink

from .interruptions import every_moment, is_soft_time_limit, is_tracing
from .sinks import RESOURCE, ListSink


@pytest.fixture(autouse=True)
def no_garbage_collector() -> Iterator[None]:
    """Python swallows what is raised in a __del__ or in a callback of a weak reference."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


class Tracing:
    """A provider, the spans that code has entered, and those that arrived."""

    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self.provider = HopTracerProvider(sampler(), RESOURCE, SpanLimits(), sink)
        self.tracer = self.provider.get_tracer("test")
        self._entered: list[int] = []

    def enter(self) -> None:
        """Note that the code has entered a span."""
        self._entered.append(trace.get_current_span().get_span_context().span_id)

    def lost(self) -> set[int]:
        """Return the spans that code has entered since the last call and that did not arrive."""
        entered = set(self._entered)
        self._entered.clear()
        return entered - {record.span_id for _, record in self.sink.recent_spans()}


@pytest.fixture(params=["memory", "disk"])
def tracing(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Tracing:
    sink: Sink = ListSink()
    if request.param == "disk":
        targets: Any = Targets("nobody sends")  # type: ignore[arg-type]
        monkeypatch.setattr(Watch, "look", lambda _: None)
        spool = Spool(tmp_path / "spool", 1 << 30, 3600.0)
        sink = DiskSink(
            lambda template: origin_of(RESOURCE, template, True), targets, spool, ListSink
        )
    tracing = Tracing(sink)
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: tracing.provider)
    return tracing


class Answer(BaseAdapter):
    """Answers at once."""

    def __init__(self, tracing: Tracing) -> None:
        super().__init__()
        self._tracing = tracing

    def send(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> requests.Response:
        self._tracing.enter()
        response = requests.Response()
        response.status_code = 200
        response.request, response.url = request, request.url or ""
        return response

    def close(self) -> None:
        pass


def make_spans(tracing: Tracing) -> Callable[[], object]:
    def work() -> None:
        with tracing.tracer.start_as_current_span("outer") as outer:
            tracing.enter()
            with tracing.tracer.start_as_current_span("inner", attributes={"a": 1}) as inner:
                tracing.enter()
                describe(outer, inner)

    def describe(outer: trace.Span, inner: trace.Span) -> None:
        inner.set_attribute("b", "c")
        inner.set_attributes({"d": (1, 2)})
        inner.add_event("event", {"e": 1.0})
        inner.add_link(outer.get_span_context())
        inner.update_name("other")

    return work


def fail_in_spans(tracing: Tracing) -> Callable[[], object]:
    def work() -> None:
        try:
            with tracing.tracer.start_as_current_span("fails"):
                tracing.enter()
                raise LookupError(str(int("1") + 1))
        except LookupError:
            pass

    return work


def publish(tracing: Tracing) -> Callable[[], object]:
    app = Celery("publishes", broker="memory://", backend="disabled", set_as_default=False)
    instrument_celery(app)

    @app.task(name="publishes.nothing", ignore_result=True, shared=False)
    def task() -> None:
        pass

    send_message = app.amqp.send_task_message

    def send(*args: Any, **options: Any) -> Any:
        tracing.enter()
        return send_message(*args, **options)

    app.amqp.send_task_message = send
    return task.delay


def request(tracing: Tracing) -> Callable[[], object]:
    session = traced_session()
    session.trust_env = False
    session.mount("http://", Answer(tracing))
    return lambda: session.get("http://user:secret@host/path?query=1")


WORKS = [make_spans, fail_in_spans, publish, request]


@pytest.mark.parametrize("make", WORKS)
def test_at_every_moment(
    tracing: Tracing,
    make: Callable[[Tracing], Callable[[], object]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    work, count = make(tracing), 0
    work()  # what is made once
    for place in every_moment(work, monkeypatch):
        count += 1
        assert not tracing.lost(), place
    assert count > 50


@pytest.fixture
def alarm() -> Iterator[Callable[[float], None]]:
    """Raises a soft time limit after a number of seconds, as soon as tracing runs."""

    def ring(number: int, frame: FrameType | None) -> None:
        if not is_tracing(frame) or is_uninterrupted(frame):
            set_off(0.00005)
        else:
            raise SoftTimeLimitExceeded

    def set_off(seconds: float) -> None:
        signal.setitimer(signal.ITIMER_REAL, seconds)

    before = signal.signal(signal.SIGALRM, ring)
    yield set_off
    set_off(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("tracing", ["memory"], indirect=True)
@pytest.mark.parametrize("make", WORKS)
def test_at_random_moments(
    tracing: Tracing,
    make: Callable[[Tracing], Callable[[], object]],
    alarm: Callable[[float], None],
) -> None:
    work, chance = make(tracing), random.Random(17)
    work()  # what is made once
    for _ in range(300):
        until = time.monotonic() + 10
        caught: Exception | None = None
        try:
            alarm(chance.uniform(0.0001, 0.003))
            while time.monotonic() < until:
                work()
        except Exception as exc:
            caught = exc
        assert is_soft_time_limit(caught)
        assert not trace.get_current_span().get_span_context().is_valid
        assert not tracing.lost()
