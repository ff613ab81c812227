"""Tracing works with other internals of OpenTelemetry's API than the installed version has."""

from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.context import attach, detach
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, TraceFlags, TraceState

from telemetry import extract, inject
from telemetry.config.sdk import SpanLimits
from telemetry.config.settings import sampler
from telemetry.tracing.hop import Hop
from telemetry.tracing.provider import HopTracerProvider
from telemetry.tracing.record import ClientFacts, SpanTemplate
from telemetry.tracing.scope import Scope

from .sinks import RESOURCE, ListSink

TRACE_ID, SPAN_ID = 0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331


class Wider(SpanContext):
    """A context with a seventh field in front of the others."""

    def __new__(cls, *args: Any) -> "Wider":
        return tuple.__new__(cls, ("seventh", *SpanContext(*args)))

    trace_id = property(lambda self: self[1])  # type: ignore[assignment]
    span_id = property(lambda self: self[2])  # type: ignore[assignment]
    is_remote = property(lambda self: self[3])  # type: ignore[assignment]
    trace_flags = property(lambda self: self[4])  # type: ignore[assignment]
    trace_state = property(lambda self: self[5])  # type: ignore[assignment]
    is_valid = property(lambda self: self[6])  # type: ignore[assignment]


class Text(TraceState):
    """A state that stores its header, and uses nothing of its base class."""

    def __init__(self, header: str) -> None:
        self.header = header

    def to_header(self) -> str:
        return self.header

    def __len__(self) -> int:
        return 1

    def __getattribute__(self, name: str) -> Any:
        assert not name.startswith("_") or name.startswith("__"), f"{name} is private"
        return super().__getattribute__(name)


@pytest.fixture
def sink(monkeypatch: pytest.MonkeyPatch) -> ListSink:
    sink = ListSink()
    provider = HopTracerProvider(sampler(), RESOURCE, SpanLimits(), sink)
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    return sink


@pytest.fixture
def parent() -> Iterator[SpanContext]:
    context = Wider(TRACE_ID, SPAN_ID, True, TraceFlags(1), Text("a=b,c=d"))
    token = attach(trace.set_span_in_context(NonRecordingSpan(context)))
    yield context
    detach(token)


def client_hop() -> Hop[ClientFacts]:
    template = SpanTemplate("GET", SpanKind.CLIENT.value, {}, Scope("test"))
    return Hop(template, ClientFacts("GET", "http://host/", "host", 80))


def test_a_hop_is_under_such_a_parent(sink: ListSink, parent: SpanContext) -> None:
    headers: dict[str, str] = {}
    with client_hop() as span:
        inject(headers)
        span.add_link(parent)
    (received,) = sink.received()
    assert (received.trace_id, received.parent_id) == (f"{TRACE_ID:032x}", f"{SPAN_ID:016x}")
    (link,) = received.links
    assert link.span_id == f"{SPAN_ID:016x}"
    assert headers["traceparent"].split("-")[1] == f"{TRACE_ID:032x}"
    assert headers["tracestate"] == "a=b,c=d"


def test_such_a_context_is_written_and_read(parent: SpanContext) -> None:
    headers: dict[str, str] = {}
    inject(headers)
    assert headers["tracestate"] == "a=b,c=d"
    read = trace.get_current_span(extract(headers)).get_span_context()
    assert (read.trace_id, read.span_id) == (TRACE_ID, SPAN_ID)


def test_a_span_of_the_application_is_under_such_a_parent(
    sink: ListSink, parent: SpanContext
) -> None:
    tracer = trace.get_tracer_provider().get_tracer("test")
    with tracer.start_as_current_span("own") as span:
        assert span.get_span_context().trace_state.to_header() == "a=b,c=d"
    (received,) = sink.received()
    assert received.parent_id == f"{SPAN_ID:016x}"
