"""Light spans: what is received of them is what the SDK makes of the same, whatever is done."""

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.trace.v1.trace_pb2 import Span as ProtoSpan
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import (
    ReadableSpan,
    SpanLimits,
    SpanProcessor,
    TracerProvider,
    id_generator,
    sampling,
)
from opentelemetry.trace import Link, SpanContext, SpanKind, StatusCode, TraceFlags, TraceState

from telemetry import light, otlp
from telemetry.celery.message import Facts
from telemetry.celery.run import RunFacts
from telemetry.celery.waits import Waits
from telemetry.hop import describe, scope
from telemetry.light import LightSpan, Provider, Shape
from telemetry.series import Measured

RESOURCE = Resource({"service.name": "shop"})
SENT = SpanContext(0xA, 0xB, True, TraceFlags(1), TraceState([("a", "1")]))
LOCAL = SpanContext(0xA, 0xC, False, TraceFlags(3))
OUT = SpanContext(0xA, 0xD, True, TraceFlags(0))
SHAPE = Shape("process ping", SpanKind.CONSUMER, {"messaging.system": "redis", "server.port": 6379})
FACTS = Facts({"id": "3f2b8b7e-6a3e-4a53-9d57-6f3a9a5cbb3f", "root_id": "r", "retries": 2})


class Ids(id_generator.IdGenerator):
    def generate_span_id(self) -> int:
        return 0x1234

    def generate_trace_id(self) -> int:
        return 0x5678

    def is_trace_id_random(self) -> bool:
        return True


class Kept(SpanProcessor):
    """Stands where the spool is: the bytes of light spans, and the SDK's bytes of the others."""

    def __init__(self) -> None:
        self.light: list[bytes] = []
        self.measured: list[Measured | None] = []
        self.others: list[bytes] = []

    def keep(self, encoded: bytes, resource: Resource, measured: Measured | None) -> None:
        assert resource == RESOURCE
        self.light.append(encoded)
        self.measured.append(measured)

    def on_end(self, span: ReadableSpan) -> None:
        self.others.append(stock(span))
        self.measured.append(getattr(span, "measured", None))


def stock(span: ReadableSpan) -> bytes:
    encoded: bytes = encode_spans([span]).resource_spans[0].scope_spans[0].spans[0]
    return encoded.SerializeToString()  # type: ignore[attr-defined, no-any-return]


def provider(
    kept: Kept, sampler: sampling.Sampler = sampling.DEFAULT_ON, limits: SpanLimits | None = None
) -> Provider:
    made = Provider(sampler, RESOURCE, False, id_generator=Ids(), span_limits=limits)
    made.add_span_processor(kept)
    made.light = light.light(made, scope(), kept)
    return made


Do = Callable[[Any], object]


def both(
    parent: SpanContext | None,
    own: dict[str, Any],
    links: Sequence[SpanContext],
    acts: list[Do],
    facts: Facts | None = FACTS,
) -> tuple[list[bytes], list[bytes]]:
    """Do the same to a light span and to one of the SDK's; return the bytes of each."""
    kept, of_sdk = Kept(), Kept()
    starts = provider(kept).light
    assert starts is not None
    one = starts.start(SHAPE, parent, dict(own), facts, links, 10)
    assert one is not None

    sdk = TracerProvider(sampling.DEFAULT_ON, RESOURCE, False, id_generator=Ids())
    sdk.add_span_processor(of_sdk)
    above = trace.NonRecordingSpan(parent) if parent else trace.INVALID_SPAN
    other = sdk.get_tracer("x").start_span(
        SHAPE.name,
        trace.set_span_in_context(above),
        SHAPE.kind,
        {**SHAPE.attributes, **(facts.attributes() if facts else {}), **own},
        [Link(each) for each in links],
        10,
    )
    for act in acts:
        for span in (one, other):
            act(span)
    return kept.light + kept.others, of_sdk.others


keys = st.sampled_from(["a", "server.port", "messaging.message.id", "celery.task.state", ""])
values = st.one_of(
    *(st.text(max_size=200), st.integers(-(2**65), 2**65), st.floats(), st.booleans()),
    *(st.none(), st.binary(max_size=3), st.lists(st.integers(0, 9), max_size=2)),
)
acts = st.one_of(
    st.builds(lambda key, value: lambda span: span.set_attribute(key, value), keys, values),
    st.builds(lambda given: lambda span: span.set_attributes(given), st.dictionaries(keys, values)),
    st.builds(lambda name: lambda span: span.update_name(name), st.text(max_size=9)),
    st.builds(lambda name: lambda span: span.add_event(name, {"k": "v"}, 11), st.text(max_size=9)),
    st.just(lambda span: span.add_link(LOCAL)),
    st.just(lambda span: span.set_status(StatusCode.ERROR, "why")),
    st.just(lambda span: span.set_status(StatusCode.OK)),
    st.just(lambda span: span.record_exception(ValueError("no"), timestamp=12)),
    # Who looks changes nothing.
    st.just(lambda span: (span.attributes, span.events, span.links, span.status, span.name)),
    st.just(lambda span: (span.is_recording(), span.kind, span.parent, span.get_span_context())),
    st.just(lambda span: repr(span)),
    # Once, however often.
    st.just(lambda span: span.end(20)),
)
own = st.dictionaries(st.sampled_from(["a", "url.path"]), st.text(max_size=300) | st.integers(0, 9))


@pytest.fixture(autouse=True, scope="module")
def quiet() -> Iterator[None]:
    """The SDK logs each attribute that it cannot take."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


@given(
    st.sampled_from([None, SENT, LOCAL]),
    own,
    st.sampled_from([(), (SENT,), (SENT, LOCAL)]),
    st.lists(acts, max_size=6),
)
@settings(max_examples=1000, deadline=None)
def test_what_is_kept_is_what_the_sdk_makes_of_the_same(
    parent: SpanContext | None, own: Any, links: Sequence[SpanContext], acts: list[Do]
) -> None:
    of_light, of_sdk = both(parent, own, links, [*acts, lambda span: span.end(20)])
    assert len(of_light) == 1
    assert of_light == of_sdk


ROUTED = Shape("process pong", SHAPE.kind, {**SHAPE.attributes, "a": "routed"})


@given(own, st.lists(acts, max_size=3), st.lists(acts, max_size=3))
@settings(max_examples=500, deadline=None)
def test_what_is_said_of_a_span_later_is_what_the_sdk_makes_of_it(
    own: Any, before: list[Do], after: list[Do]
) -> None:
    def act(span: Any) -> None:
        describe(span, ROUTED, FACTS)

    def end(span: Any) -> None:
        span.end(20)

    of_light, of_sdk = both(SENT, own, (), [*before, act, *after, end], None)
    (light,), (sdk,) = map(in_any_order, of_light), map(in_any_order, of_sdk)
    assert light == sdk


def in_any_order(encoded: bytes) -> ProtoSpan:
    span = ProtoSpan.FromString(encoded)
    span.attributes.sort(key=lambda attribute: attribute.key)
    return span


def test_a_span_that_nobody_asked_goes_the_short_way() -> None:
    kept = Kept()
    starts = provider(kept).light
    assert starts is not None
    span = starts.start(SHAPE, SENT, {}, FACTS, (SENT,), None)
    assert span is not None
    span.set_attribute("celery.task.state", "SUCCESS")
    span.end()
    assert (len(kept.light), len(kept.others)) == (1, 0)


@pytest.mark.parametrize("touch", [lambda span: None, lambda span: span.add_event("e")])
def test_what_was_measured_goes_with_the_span(touch: Do) -> None:
    kept = Kept()
    starts = provider(kept).light
    assert starts is not None
    span = starts.start(SHAPE, SENT, {}, None, (), None)
    assert span is not None
    touch(span)
    measured: Any = ("a series", (1.0,))
    span.end(None, measured)
    span.end(None, measured)
    assert kept.measured == [measured]


def test_what_is_said_after_the_end_is_not_kept() -> None:
    kept = Kept()
    starts = provider(kept).light
    assert starts is not None
    span = starts.start(SHAPE, None, {}, None, (), None)
    assert span is not None
    span.end()
    span.set_attribute("late", 1)
    span.update_name("late")
    assert span.name == "process ping"
    assert span.attributes is not None
    assert "late" not in span.attributes
    assert not span.is_recording()


@pytest.mark.parametrize(
    ("sampler", "roots", "children"),
    [
        (sampling.DEFAULT_ON, True, True),
        (sampling.ALWAYS_ON, True, True),
        (sampling.ParentBased(sampling.ALWAYS_ON), True, True),
        (sampling.DEFAULT_OFF, False, True),
        (sampling.ParentBasedTraceIdRatio(0.5), False, True),
        (sampling.TraceIdRatioBased(0.5), False, False),
        (sampling.ALWAYS_OFF, False, False),
        (
            sampling.ParentBased(sampling.ALWAYS_ON, remote_parent_sampled=sampling.ALWAYS_OFF),
            True,
            False,
        ),
    ],
)
def test_a_sampler_is_asked_unless_its_answer_is_known(
    sampler: sampling.Sampler, roots: bool, children: bool
) -> None:
    starts = provider(Kept(), sampler).light
    assert starts is not None
    started = [starts.start(SHAPE, parent, {}, None, (), 1) for parent in (None, SENT, LOCAL, OUT)]
    assert [span is not None for span in started] == [roots, children, children, False]


def test_a_name_that_cannot_be_encoded_breaks_nothing() -> None:
    kept = Kept()
    starts = provider(kept).light
    assert starts is not None
    span = starts.start(Shape("\ud800", SpanKind.PRODUCER), SENT, {}, None, (), None)
    assert span is not None
    kept.on_end = lambda span: kept.others.append(span.name.encode("utf-8", "replace"))  # type: ignore[method-assign]
    span.end()
    assert (kept.light, kept.others) == ([], [b"?"])


def test_a_second_processor_gets_spans_of_the_sdk() -> None:
    made = provider(Kept())
    assert made.light is not None
    made.add_span_processor(Kept())
    assert made.light is None


@pytest.mark.parametrize(
    "limits",
    [SpanLimits(max_attributes=10), SpanLimits(max_links=1), SpanLimits(max_attribute_length=9)],
)
def test_limits_that_could_cut_are_the_sdk_s_to_apply(limits: SpanLimits) -> None:
    assert provider(Kept(), limits=limits).light is None


def test_where_the_sdk_counts_its_spans_it_makes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED", "true")
    assert provider(Kept()).light is None


def test_an_sdk_whose_spans_have_something_new_keeps_making_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make = light._SdkSpan.__init__

    def more(self: Any, *args: Any, **kwargs: Any) -> None:
        make(self, *args, **kwargs)
        self._brand_new = True

    monkeypatch.setattr(light._SdkSpan, "__init__", more)
    assert provider(Kept()).light is None


hostile = st.one_of(
    *(st.none(), st.booleans(), st.integers(-1, 2**70), st.text(max_size=200), st.binary()),
    *(st.lists(st.none(), max_size=1), st.just("x" * 36)),
)
headers = st.dictionaries(
    st.sampled_from(["id", "root_id", "parent_id", "group", "retries"]), hostile
)
seconds = st.floats(0, 1e9)
waits = st.none() | st.tuples(seconds, st.none() | seconds, seconds, st.booleans())


@given(headers, waits)
def test_facts_say_the_same_as_bytes(headers: dict[str, Any], waits: Waits | None) -> None:
    for facts in (Facts(headers), RunFacts(headers, waits)):
        said = facts.attributes()
        try:
            expected = otlp.encode_attributes(said)
        except (OverflowError, UnicodeEncodeError) as exc:
            with pytest.raises(type(exc)):
                facts.encoded()
        else:
            assert facts.encoded() == expected
        assert said.keys() <= facts.keys


class Id(str):
    """As an application's own ids may be: a string, and more."""


def test_an_id_of_a_class_of_its_own_is_an_id() -> None:
    facts = Facts({"id": Id("mine")})
    assert facts.attributes() == {"messaging.message.id": "mine"}
    assert facts.encoded() == Facts({"id": "mine"}).encoded()


def test_a_hop_is_light_where_it_can_be() -> None:
    kept = Kept()
    starts = provider(kept).light
    assert starts is not None
    assert isinstance(starts.start(SHAPE, None, {}, None, (), None), LightSpan)
    assert starts.start(SHAPE, None, {}, None, [SENT] * 17, None) is None
