"""The bytes of any span equal those of the SDK's encoder, and a receiver accepts them."""

import tracemalloc
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, StatusCode

from telemetry.otlp import encode
from telemetry.otlp.receiver import Receiver
from telemetry.tracing.interpret import interpret
from telemetry.tracing.limits import clean
from telemetry.tracing.record import (
    ClientFacts,
    Record,
    RecordedEvent,
    RecordedLink,
    RunFacts,
    SendFacts,
    ServerFacts,
    SpanTemplate,
)
from telemetry.tracing.scope import Scope
from telemetry.tracing.span import readable

from ...tiers import examples

EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
RESOURCE = Resource({})
SCOPE = Scope("queuehop", "0.1.0", "https://opentelemetry.io/schemas/1.41.0")

# Few keys, and many short values, so that cached attributes occur again.
texts = st.one_of(
    st.sampled_from(["", "redis", "celery", "1"]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=200),
    st.text("a", min_size=100, max_size=300),
)
integers = st.one_of(
    st.sampled_from([0, 1, -1, 127, 128, 2**63 - 1, -(2**63)]), st.integers(-(2**63), 2**63 - 1)
)
scalars = st.one_of(
    *(st.none(), st.booleans(), integers, st.floats(), texts, st.binary(max_size=200)),
)
lists = st.lists(scalars, max_size=3)
values = st.one_of(
    *(scalars, lists, st.lists(lists, max_size=2), st.dictionaries(texts, scalars, max_size=2)),
    st.dictionaries(texts, st.dictionaries(texts, lists, max_size=2), max_size=2),
)
keys = st.one_of(
    st.sampled_from(["a", "b", "messaging.message.id", "http.route"]), texts.filter(bool)
)


def attributes(values: st.SearchStrategy[Any], most: int) -> st.SearchStrategy[dict[str, Any]]:
    """Generate attributes as a span records them."""
    return st.dictionaries(keys, values, max_size=most).map(lambda some: clean(some, None, None)[0])


trace_ids = st.binary(min_size=16, max_size=16)
span_ids = st.integers(0, 2**64 - 1)
states = st.sampled_from(["", "a=1", "a=1,b@c=x y"])
times = st.integers(1, 2**64 - 1)
counts = st.sampled_from([0, 1, 200])
few = attributes(scalars, 2)

messages = st.tuples(*[st.none() | texts] * 4, st.none() | integers, *[st.none() | texts] * 2)
facts = st.one_of(
    st.none(),
    st.builds(SendFacts, st.none() | messages, st.none() | texts, st.none() | texts),
    st.builds(
        RunFacts,
        messages,
        queue=texts,
        redelivered=st.booleans(),
        sent_at=texts,
        received_at=st.floats(),
        items=st.none() | st.integers(0, 200),
        links_to_parent=st.booleans(),
        eager=st.booleans(),
        state=st.none() | texts,
    ),
    st.builds(ServerFacts, st.tuples(*[st.none() | texts] * 10), texts, st.integers(0, 599)),
    st.builds(ClientFacts, texts, texts, texts, st.integers(0, 65535), st.integers(0, 599)),
)
records = st.builds(
    Record,
    trace_ids,
    span_ids,
    times,
    times,
    parent_id=span_ids,
    flags=st.sampled_from([0, 1, 3]),
    trace_state=states,
    facts=facts,
    name=st.none() | texts,
    attributes=st.none() | attributes(values, 4),
    events=st.none()
    | st.lists(st.builds(RecordedEvent, texts, st.integers(0, 2**64 - 1), few), max_size=2),
    links=st.none()
    | st.lists(st.builds(RecordedLink, trace_ids, span_ids, st.booleans(), few), max_size=2),
    status=st.sampled_from([code.value for code in StatusCode]),
    dropped=st.tuples(counts, counts, counts),
    limited=st.booleans(),
)
templates = st.builds(
    SpanTemplate,
    st.sampled_from(["process ping", "send ping", ""]),
    st.sampled_from([kind.value for kind in SpanKind]),
    st.sampled_from([{}, {"messaging.system": "redis", "number": 1}, {"a": 1.5}]),
    st.just(SCOPE),
)


def ours(template: SpanTemplate, record: Record) -> bytes:
    return encode.encode_span(template, record, interpret(template, record))


def stock(span: ReadableSpan) -> bytes:
    message = encode_spans([span]).resource_spans[0].scope_spans[0].spans[0]
    encoded: bytes = message.SerializeToString()
    return encoded


@given(templates, records, st.none() | texts, st.booleans())
@examples(500)
def test_a_span_is_the_bytes_of_the_sdk(
    template: SpanTemplate, record: Record, description: str | None, remote: bool
) -> None:
    record.parent_is_remote = bool(record.parent_id) and remote
    # The SDK describes only an error.
    record.status_description = description if record.status == StatusCode.ERROR.value else None
    expected = readable(template, record, RESOURCE)
    assert ours(template, record) == stock(expected)


@given(attributes(values, 4), texts, texts)
@examples(200)
def test_resource_and_scope_are_the_bytes_of_the_sdk(
    attributes: dict[str, Any], name: str, url: str
) -> None:
    resource, scope = Resource(attributes, url), InstrumentationScope(name, name, url, attributes)
    span = ReadableSpan(
        "x", SpanContext(1, 2, False), resource=resource, instrumentation_scope=scope
    )
    try:
        [expected] = encode_spans([span]).resource_spans
    except Exception:  # such as bytes in a resource
        return
    del expected.scope_spans[0].spans[:]
    encoded = encode.encode_scope_spans(Scope(name, name, url, dict(scope.attributes or {})))
    assert encoded == expected.scope_spans[0].SerializeToString()
    del expected.scope_spans[:]
    encoded = encode.encode_resource_spans(resource.attributes, url)
    assert encoded == expected.SerializeToString()


TEMPLATE = SpanTemplate("x", SpanKind.INTERNAL.value, {}, SCOPE)


def record(**fields: Any) -> Record:
    return Record(bytes(15) + b"\x01", 2, 3, 4, **fields)


def test_a_link_has_its_tracestate() -> None:
    """The SDK's encoder leaves it out."""
    link = RecordedLink(bytes(15) + b"\x01", 2, True, {"a": 1}, "vendor=value", 3)
    made = record(links=[link])
    (encoded,) = Span.FromString(ours(TEMPLATE, made)).links
    assert encoded.trace_state == "vendor=value"
    encoded.ClearField("trace_state")
    encoded.ClearField("dropped_attributes_count")
    assert [encoded] == Span.FromString(stock(readable(TEMPLATE, made, RESOURCE))).links


@pytest.mark.parametrize("order", [[1, 1.0, True], [True, 1, 1.0], [0.0, -0.0, False, 0]])
def test_equal_values_of_different_types_are_told_apart(order: list[object]) -> None:
    for value in order * 2:
        made = record(attributes={"the same key": value})
        assert ours(TEMPLATE, made) == stock(readable(TEMPLATE, made, RESOURCE))


def test_values_of_other_classes_are_those_of_their_bases() -> None:
    class Name(str):
        __slots__ = ()

    class Number(int):
        pass

    class Seconds(float):
        pass

    for value in (Name("n"), Number(3), Seconds(0.5)):
        made = record(attributes={"other": value})
        assert ours(TEMPLATE, made) == stock(readable(TEMPLATE, made, RESOURCE))


@pytest.mark.parametrize("number", [-(2**63) - 1, -(2**63), 2**63 - 1, 2**63, 2**64])
def test_an_integer_beyond_64_bits_is_a_string(number: int) -> None:
    (attribute,) = Span.FromString(ours(TEMPLATE, record(attributes={"n": number}))).attributes
    if -(2**63) <= number < 2**63:
        assert attribute.value.int_value == number
    else:
        assert attribute.value.string_value == str(number)


def test_values_nested_too_deeply_are_left_out() -> None:
    value: object = "core"
    for _ in range(60):
        value = [value]
    encoded = ours(TEMPLATE, record(attributes={"nested": value, "a": 1}))
    assert len(encoded) < 300
    assert b"core" not in encoded


def test_what_is_cached_is_bounded() -> None:
    def encode_numbered(numbers: range) -> None:
        for number in numbers:
            ids = {"id": f"{number:032}", f"key {number}": number, f"share {number}": 0.5}
            ours(TEMPLATE, record(name=f"span {number}", attributes=ids))

    encode_numbered(range(500))
    tracemalloc.start()
    encode_numbered(range(500, 600))
    before, _ = tracemalloc.get_traced_memory()
    encode_numbered(range(600, 2_000))
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert after - before < 10_000


@pytest.fixture
def channel(receiver: Receiver) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(receiver.endpoint.removeprefix("http://")) as channel:
        yield channel


def test_the_spans_of_several_processes_go_in_one_request(
    receiver: Receiver, channel: grpc.Channel
) -> None:
    schema_url = "https://opentelemetry.io/schemas/1.40.0"
    parts, expected = [], []
    for service in ("web", "worker"):
        resource = Resource({"service.name": service}, schema_url)
        for template, one in send_and_run():
            scope = encode.encode_scope_spans(template.scope)
            encoded = encode.encode_resource_spans(resource.attributes, schema_url)
            parts.append((encoded, scope, ours(template, one)))
            expected.append(readable(template, one, resource))
    request = encode.encode_request(parts)
    # Only the order of fields differs: the schema URL of a resource comes before its spans.
    assert ExportTraceServiceRequest.FromString(request) == encode_spans(expected)

    channel.unary_unary(EXPORT)(request, timeout=10)

    got = receiver.wait_for(lambda spans: len(spans) == 4)
    assert [(span.service, span.name, span.scope) for span in got] == [
        ("web", "send ping", "queuehop"),
        ("web", "process ping", "queuehop"),
        ("worker", "send ping", "queuehop"),
        ("worker", "process ping", "queuehop"),
    ]
    assert got[1].parent_id == got[0].span_id == got[1].links[0].span_id
    assert got[1].attributes["celery.wait.queue"] == pytest.approx(0.25)


def send_and_run() -> Iterator[tuple[SpanTemplate, Record]]:
    """Yield a send and its run, as records."""
    message, second, start = (None,) * 7, 1_000_000_000, 1_700_000_000_000_000_000
    yield (
        SpanTemplate("send ping", SpanKind.PRODUCER.value, {}, SCOPE),
        Record(bytes(15) + b"\x01", 2, start, start + second, facts=SendFacts(message)),
    )
    waited = RunFacts(
        message, sent_at="1700000001.0", received_at=1700000001.25, links_to_parent=True
    )
    yield (
        SpanTemplate("process ping", SpanKind.CONSUMER.value, {}, SCOPE),
        Record(
            bytes(15) + b"\x01",
            3,
            start + 2 * second,
            start + 3 * second,
            parent_id=2,
            facts=waited,
        ),
    )
