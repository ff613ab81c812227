"""A receiver gets the same from a HopSpan and from the SDK's span, after any calls."""

import json
import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    Decision,
    ParentBased,
    Sampler,
    SamplingResult,
)
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, StatusCode, TraceFlags
from opentelemetry.trace.span import TraceState

from telemetry.config import settings
from telemetry.otlp.decode import decode
from telemetry.tracing.provider import HopTracerProvider
from telemetry.tracing.record import (
    ParentContext,
    RecordedLink,
    RunFacts,
    SpanTemplate,
    message_facts,
)
from telemetry.tracing.scope import Scope
from telemetry.tracing.span import HopSpan

from .sinks import RESOURCE, ListSink

KNOWN = settings.Sampler(ALWAYS_ON, True, True, True)
REMOTE = SpanContext(3 << 64, 4, True, TraceFlags(1), TraceState([("vendor", "value")]))


class Counting(IdGenerator):
    """The same ids for both."""

    def __init__(self) -> None:
        self.last = 0

    def generate_span_id(self) -> int:
        self.last += 1
        return self.last

    def generate_trace_id(self) -> int:
        self.last += 1
        return self.last << 64 | self.last

    def is_trace_id_random(self) -> bool:
        return True

    def random_bits(self, bits: int) -> int:
        return self.generate_span_id() if bits == 64 else self.generate_trace_id()


class Collected(SpanProcessor):
    """The spans that ended, as a span processor gets them."""

    def __init__(self) -> None:
        self.started: list[Any] = []
        self.ended: list[ReadableSpan] = []

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        self.started.append(span)

    def on_end(self, span: ReadableSpan) -> None:
        self.ended.append(span)


def hop_provider(
    limits: SpanLimits | None = None, sampler: settings.Sampler = KNOWN
) -> tuple[HopTracerProvider, ListSink]:
    sink = ListSink()
    provider = HopTracerProvider(sampler, RESOURCE, limits or SpanLimits(), sink)
    provider.random_bits = Counting().random_bits
    return provider, sink


def both(act: Callable[[Any], None], limits: SpanLimits | None = None) -> tuple[Any, Any]:
    """Return the spans that *act* makes with our tracer, and with the SDK's."""
    ours, sink = hop_provider(limits)
    act(ours.get_tracer("scope", "1", "https://example.org/schema", {"a": 1}))
    theirs = TracerProvider(
        resource=RESOURCE, span_limits=limits, id_generator=Counting(), shutdown_on_exit=False
    )
    collected = Collected()
    theirs.add_span_processor(collected)
    act(theirs.get_tracer("scope", "1", "https://example.org/schema", {"a": 1}))
    return sink.received(), [
        span for one in collected.ended for span in decode(encode_spans([one]))
    ]


class Seconds(float):
    """A number of a class of its own, like NumPy's floats."""


class Name(str):
    __slots__ = ()


TEXT = st.text(max_size=12)
SCALARS = st.one_of(
    TEXT,
    st.booleans(),
    st.integers(-(1 << 63), (1 << 63) - 1),
    st.floats(allow_nan=False),
    TEXT.map(Name),
    st.floats(allow_nan=False).map(Seconds),
)
VALUES = st.one_of(SCALARS, st.lists(TEXT, max_size=3), st.binary(max_size=4), st.none())
ATTRIBUTES = st.dictionaries(st.sampled_from(["a", "b", "c", "d", "e", ""]), VALUES, max_size=4)


def _times(number: int) -> int:
    return 1_800_000_000_000_000_000 + number


OPERATIONS = st.one_of(
    st.tuples(st.just("set_attribute"), st.sampled_from(["a", "b", "x"]), VALUES),
    st.tuples(st.just("set_attributes"), ATTRIBUTES),
    st.tuples(st.just("add_event"), TEXT, ATTRIBUTES, st.integers(1, 100).map(_times)),
    st.tuples(st.just("add_link"), st.just(REMOTE), ATTRIBUTES),
    st.tuples(st.just("update_name"), TEXT),
    st.tuples(st.just("set_status"), st.sampled_from(list(StatusCode)), st.none() | TEXT),
)


@hypothesis_settings(deadline=None)
@given(
    operations=st.lists(OPERATIONS, max_size=8),
    attributes=ATTRIBUTES,
    kind=st.sampled_from(list(SpanKind)),
    name=TEXT,
    links=st.lists(ATTRIBUTES.map(lambda given: Link(REMOTE, given)), max_size=2),
    narrow=st.booleans(),
)
def test_it_is_received_as_the_sdks(
    operations: list[tuple[Any, ...]],
    attributes: dict[str, Any],
    kind: SpanKind,
    name: str,
    links: list[Link],
    narrow: bool,
) -> None:
    def act(tracer: Any) -> None:
        span = tracer.start_span(
            name, kind=kind, attributes=attributes, links=links, start_time=_times(0)
        )
        for method, *arguments in operations:
            getattr(span, method)(*arguments)
        span.end(_times(1000))

    limits = SpanLimits(max_span_attributes=3, max_events=2, max_links=2, max_attribute_length=4)
    ours, theirs = both(act, limits if narrow else None)
    assert ours == theirs


def test_an_exception_is_received_as_the_sdks() -> None:
    def act(tracer: Any) -> None:
        with pytest.raises(LookupError), tracer.start_as_current_span("work"):
            raise LookupError("no such thing")

    (ours,), (theirs,) = both(act)
    assert (ours.status, ours.status_message) == (theirs.status, theirs.status_message)
    assert [event.name for event in ours.events] == ["exception"]
    for key in ("exception.type", "exception.message", "exception.escaped"):
        assert ours.events[0].attributes[key] == theirs.events[0].attributes[key]
    assert "no such thing" in ours.events[0].attributes["exception.stacktrace"]


def test_children_and_decorated_functions_are_nested() -> None:
    provider, sink = hop_provider()
    tracer = provider.get_tracer("scope")

    @tracer.start_as_current_span("inner")
    def work() -> int:
        return 1

    with tracer.start_as_current_span("outer"):
        assert work() == work() == 1
    first, second, outer = sink.received()
    assert [span.name for span in (first, second, outer)] == ["inner", "inner", "outer"]
    assert {first.parent_id, second.parent_id} == {outer.span_id}


def test_it_can_be_read_like_an_sdk_span() -> None:
    provider, _ = hop_provider()
    span: Any = provider.get_tracer("scope", "1").start_span(
        "work", attributes={"a": 1}, kind=SpanKind.CLIENT, start_time=_times(0)
    )
    span.set_attribute("b", "two")
    assert span.name == "work"
    assert dict(span.attributes) == {"a": 1, "b": "two"}
    assert (span.parent, span.kind, span.start_time) == (None, SpanKind.CLIENT, _times(0))
    assert span.end_time is None
    assert span.is_recording()
    assert span.status.status_code is StatusCode.UNSET
    assert span.resource.attributes["service.name"] == "test"
    assert span.instrumentation_scope.name == "scope"
    assert span.get_span_context() == span.context
    span.end(_times(5))
    assert not span.is_recording()
    assert span.end_time == _times(5)


def test_other_span_processors_see_every_span() -> None:
    provider, sink = hop_provider()
    collected = Collected()
    provider.add_span_processor(collected)
    with provider.get_tracer("scope").start_as_current_span("work", attributes={"a": 1}) as span:
        collected.started[0].set_attribute("added", "in on_start")
    assert collected.started == [span]
    (ended,) = collected.ended
    assert isinstance(ended, ReadableSpan)
    assert dict(ended.attributes or {}) == {"a": 1, "added": "in on_start"}
    (received,) = sink.received()
    assert received == decode(encode_spans([ended]))[0]


def test_an_attribute_that_comes_while_the_span_ends_is_there_or_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    provider, sink = hop_provider()

    def race(number: int) -> None:
        span = provider.get_tracer("scope").start_span(str(number))
        barrier = threading.Barrier(2)

        def set_late() -> None:
            barrier.wait()
            span.set_attribute("late", True)

        thread = threading.Thread(target=set_late)
        thread.start()
        barrier.wait()
        span.end()
        thread.join()

    for number in range(200):
        caplog.clear()
        race(number)
        assert sink.received()[-1].attributes.get("late") or "may be missing" in caplog.text


def test_of_two_threads_that_end_a_span_one_does(caplog: pytest.LogCaptureFixture) -> None:
    provider, sink = hop_provider()
    for _ in range(200):
        span = provider.get_tracer("scope").start_span("work")
        threads = [threading.Thread(target=span.end) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(sink.records) == 200
    assert caplog.text.count("ended a second time") == 200


class Asking(Sampler):
    """A sampler of the application's own."""

    def __init__(self, decision: Decision) -> None:
        self.decision = decision
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.flags_of_links: list[list[int]] = []

    def should_sample(
        self,
        parent_context: Any,
        trace_id: int,
        name: str,
        kind: Any = None,
        attributes: Any = None,
        links: Any = None,
        trace_state: Any = None,
    ) -> SamplingResult:
        self.asked.append((name, dict(attributes)))
        self.flags_of_links.append([int(link.context.trace_flags) for link in links])
        added = {"sampler": "asked", **{name: "hidden" for name in attributes if name == "secret"}}
        return SamplingResult(self.decision, added, TraceState([("s", "1")]))

    def get_description(self) -> str:
        return "AlwaysOnSampler"  # a sampler's description is not used


def test_a_sampler_that_must_be_asked_is_asked() -> None:
    sampler = Asking(Decision.RECORD_AND_SAMPLE)
    provider, sink = hop_provider(sampler=settings.Sampler(sampler, None, None, None))
    provider.get_tracer("scope").start_span("work", attributes={"a": 1}).end()
    assert sampler.asked == [("work", {"a": 1})]
    (received,) = sink.received()
    assert received.attributes == {"a": 1, "sampler": "asked"}
    assert received.trace_state == "s=1"


def test_the_attributes_of_a_sampler_win_as_in_the_sdk() -> None:
    sampler = Asking(Decision.RECORD_AND_SAMPLE)
    provider, sink = hop_provider(sampler=settings.Sampler(sampler, None, None, None))
    provider.get_tracer("scope").start_span("work", attributes={"secret": "x", "a": 1}).end()
    (received,) = sink.received()
    assert received.attributes == {"secret": "hidden", "a": 1, "sampler": "asked"}


def test_a_sampler_can_follow_links() -> None:
    sampler = Asking(Decision.RECORD_AND_SAMPLE)
    provider, _ = hop_provider(sampler=settings.Sampler(sampler, None, None, None))
    provider.get_tracer("scope").start_span("work", links=[Link(REMOTE)]).end()
    parent = ParentContext.of(REMOTE)
    assert parent is not None
    run = SpanTemplate("process work", SpanKind.CONSUMER.value, {}, Scope("scope"))
    facts = RunFacts(message_facts({}), links_to_parent=True)
    provider.start(run, facts, parent, Context(), [RecordedLink.to(parent)])
    assert sampler.flags_of_links == [[1], [1, 1]]


def test_it_is_written_as_json_like_the_sdks() -> None:
    def started(provider: TracerProvider) -> Any:
        context = trace.set_span_in_context(trace.NonRecordingSpan(REMOTE), Context())
        span = provider.get_tracer("scope").start_span(
            "work", context, attributes={"a": 1}, links=[Link(REMOTE, {"b": 2})], start_time=1
        )
        span.add_event("done", timestamp=2)
        span.end(3)
        return span

    theirs = TracerProvider(resource=RESOURCE, id_generator=Counting(), shutdown_on_exit=False)
    ours, _ = hop_provider()
    assert json.loads(started(ours).to_json(None)) == json.loads(started(theirs).to_json(None))


def test_a_span_that_is_recorded_but_not_sampled_is_for_processors_alone() -> None:
    sampler = Asking(Decision.RECORD_ONLY)
    provider, sink = hop_provider(sampler=settings.Sampler(sampler, None, None, None))
    collected = Collected()
    provider.add_span_processor(collected)
    provider.get_tracer("scope").start_span("work").end()
    assert len(collected.ended) == 1
    assert sink.received() == []


@pytest.mark.parametrize(
    ("name", "sampler"),
    [
        ("always_on", ALWAYS_ON),
        ("always_off", ALWAYS_OFF),
        ("parentbased_always_on", ParentBased(ALWAYS_ON)),
        ("parentbased_always_off", ParentBased(ALWAYS_OFF)),
    ],
)
@pytest.mark.parametrize("flags", [None, 0, 1])
def test_the_built_in_samplers_decide_as_the_sdks(
    name: str, sampler: Sampler, flags: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", name)
    provider, sink = hop_provider(sampler=settings.sampler())
    theirs = TracerProvider(sampler=sampler, shutdown_on_exit=False).get_tracer("scope")
    context = Context()
    if flags is not None:
        parent = SpanContext(3 << 64, 4, True, TraceFlags(flags))
        context = trace.set_span_in_context(trace.NonRecordingSpan(parent), context)
    span: Span = provider.get_tracer("scope").start_span("work", context)
    expected = theirs.start_span("work", context).get_span_context().trace_flags.sampled
    assert span.get_span_context().trace_flags.sampled is expected
    assert isinstance(span, HopSpan) is expected
    span.end()
    assert len(sink.records) == expected


class Faulty(SpanProcessor):
    """A span processor with bugs."""

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        raise LookupError("a bug in on_start")

    def on_end(self, span: ReadableSpan) -> None:
        raise LookupError("a bug in on_end")


def test_a_span_processor_that_raises_harms_neither_the_span_nor_the_application(
    caplog: pytest.LogCaptureFixture,
) -> None:
    provider, sink = hop_provider()
    before, behind = Collected(), Collected()
    for processor in (before, Faulty(), behind):
        provider.add_span_processor(processor)
    with provider.get_tracer("scope").start_as_current_span("work"):
        pass
    assert len(sink.records) == 1
    for collected in (before, behind):
        assert len(collected.started) == len(collected.ended) == 1
    assert "tracing could not call a span processor" in caplog.text


class FaultySampler(Asking):
    """A sampler with a bug."""

    def should_sample(self, *_: Any, **__: Any) -> SamplingResult:
        raise LookupError("a bug in the sampler")


def test_a_sampler_that_raises_does_not_harm_the_application(
    caplog: pytest.LogCaptureFixture,
) -> None:
    faulty = settings.Sampler(FaultySampler(Decision.DROP), None, None, None)
    provider, sink = hop_provider(sampler=faulty)
    tracer = provider.get_tracer("scope")
    context = trace.set_span_in_context(trace.NonRecordingSpan(REMOTE), Context())
    with tracer.start_as_current_span("work", context) as span:
        assert span.get_span_context().span_id == REMOTE.span_id
    assert not tracer.start_span("work").get_span_context().is_valid
    assert sink.records == []
    assert "tracing could not start a span" in caplog.text


def test_a_tracer_that_is_asked_for_again_is_the_same() -> None:
    """A sink finds by identity what it knows of a template, and would make it again."""
    provider, sink = hop_provider()
    for _ in range(2):
        provider.get_tracer("shop", "1").start_span("work").end()
    provider.get_tracer("shop", "2").start_span("work").end()
    provider.get_tracer("shop", "1", attributes={"a": 1}).start_span("work").end()
    first, again, newer, other = (template for template, _ in sink.records)
    assert again is first
    assert [newer.scope.version, other.scope.attributes] == ["2", {"a": 1}]
