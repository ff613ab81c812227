"""The bytes of spans: equal to those of the SDK's encoder, whatever the span, and received."""

import logging
import tracemalloc
from collections import defaultdict
from collections.abc import Iterator, Sequence

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.attributes import BoundedAttributes
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.util import BoundedList
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

from telemetry import otlp
from telemetry.viewer.receiver import Receiver

EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"

# Few keys and many values, and short ones: so that what is kept is met again.
texts = st.one_of(
    st.sampled_from(["", "redis", "celery", "1"]),
    st.text(st.characters(), max_size=200),
    st.text("a", min_size=100, max_size=300),
)
integers = st.one_of(
    st.sampled_from([0, 1, -1, 127, 128, 2**63 - 1, -(2**63), 2**63, -(2**63) - 1]),
    st.integers(-(2**70), 2**70),
)
scalars = st.one_of(
    *(st.none(), st.booleans(), integers, st.floats(), texts, st.binary(max_size=200)),
)
lists = st.lists(scalars, max_size=3)
values = st.one_of(
    *(scalars, lists, st.lists(lists, max_size=2), st.dictionaries(texts, scalars, max_size=2)),
    st.dictionaries(texts, st.dictionaries(texts, lists, max_size=2), max_size=2),
)
keys = st.one_of(st.sampled_from(["a", "b", "messaging.message.id"]), texts)
dictionaries = st.dictionaries(keys, values, max_size=4)
attributes = st.one_of(
    st.none(),
    dictionaries,
    st.builds(BoundedAttributes, st.sampled_from([None, 0, 2]), dictionaries),
)
states = st.sampled_from(
    [TraceState(), TraceState([("a", "1")]), TraceState([("a", "1"), ("b@c", "x y")])]
)
contexts = st.builds(
    SpanContext,
    trace_id=st.integers(0, 2**128 - 1),
    span_id=st.integers(0, 2**64 - 1),
    is_remote=st.booleans(),
    trace_flags=st.sampled_from([TraceFlags(0), TraceFlags(1), TraceFlags(3)]),
    trace_state=states,
)
times = st.one_of(st.none(), st.integers(0, 2**64 - 1))
names = st.one_of(st.sampled_from(["process ping", "send ping"]), texts)
few = st.one_of(
    *(st.none(), st.just({}), st.just({"why": "redelivered", "number": 1, "\ud800": "?"})),
    st.builds(
        BoundedAttributes, st.sampled_from([None, 1]), st.dictionaries(keys, scalars, max_size=2)
    ),
)
events = st.builds(Event, names, few, st.integers(0, 2**64 - 1))
statuses = st.one_of(
    st.builds(Status, st.sampled_from(list(StatusCode))),
    st.builds(Status, st.just(StatusCode.ERROR), texts),
)


def bounded(items: Sequence[object]) -> BoundedList:
    kept = BoundedList(2)
    kept.extend(items)
    return kept


def several(items: st.SearchStrategy[object]) -> st.SearchStrategy[Sequence[object]]:
    return st.one_of(st.lists(items, max_size=2), st.lists(items, max_size=3).map(bounded))


spans = st.builds(
    ReadableSpan,
    name=names,
    context=contexts,
    parent=st.one_of(st.none(), contexts),
    resource=st.just(Resource({})),
    attributes=attributes,
    events=several(events),
    links=several(st.builds(Link, contexts, few)),
    kind=st.sampled_from(list(SpanKind)),
    status=statuses,
    start_time=times,
    end_time=times,
)


@pytest.fixture(autouse=True, scope="module")
def quiet() -> Iterator[None]:
    """The SDK logs each attribute that it cannot encode, with its traceback."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


@given(spans)
@settings(max_examples=3_000, deadline=None)
def test_a_span_is_the_bytes_of_the_sdk(span: ReadableSpan) -> None:
    try:
        expected = stock(span)
    except Exception as exc:
        with pytest.raises(type(exc)):
            otlp.encode_span(span)
    else:
        assert otlp.encode_span(span) == expected


@given(st.dictionaries(texts, values, max_size=4), texts, texts)
@settings(max_examples=200, deadline=None)
def test_resource_and_scope_are_the_bytes_of_the_sdk(
    attributes: dict[str, object], name: str, version: str
) -> None:
    resource = Resource(attributes)
    scope = InstrumentationScope(name, version, "", attributes)
    span = ReadableSpan("x", CONTEXT, resource=resource, instrumentation_scope=scope)
    try:
        [expected] = encode_spans([span]).resource_spans
    except Exception:  # such as bytes in a resource; by itself each is encoded or refused
        return
    assert otlp.encode_resource(resource) == expected.resource.SerializeToString()
    assert otlp.encode_scope(scope) == expected.scope_spans[0].scope.SerializeToString()


CONTEXT = SpanContext(1, 2, is_remote=False)


def stock(span: ReadableSpan) -> bytes:
    message = encode_spans([span]).resource_spans[0].scope_spans[0].spans[0]
    return message.SerializeToString()


@pytest.mark.parametrize("order", [[1, 1.0, True], [True, 1, 1.0], [0.0, -0.0, False, 0]])
def test_equal_values_of_different_types_are_told_apart(order: list[object]) -> None:
    for value in order * 2:
        span = ReadableSpan("x", CONTEXT, attributes={"the same key": value})
        assert otlp.encode_span(span) == stock(span)


def test_values_of_other_classes_are_as_the_sdk_takes_them() -> None:
    class Name(str):
        __slots__ = ()

    class Number(int):
        pass

    for value in (Name("n"), Number(3), range(3), bytearray(b"x"), object()):
        span = ReadableSpan("x", CONTEXT, attributes={"a": "kept", "other": value})
        assert otlp.encode_span(span) == stock(span)


def test_deeply_nested_values_are_as_the_sdk_takes_them() -> None:
    value: object = "core"
    refused = 0
    for _ in range(60):
        value = [value]
        span = ReadableSpan("x", CONTEXT, attributes={"nested": value})
        try:
            expected = stock(span)
        except Exception as exc:  # protobuf's own limit
            refused += 1
            with pytest.raises(type(exc)):
                otlp.encode_span(span)
        else:
            assert otlp.encode_span(span) == expected
    assert refused


def test_an_ordinary_span_takes_the_fast_path(monkeypatch: pytest.MonkeyPatch) -> None:
    provider = TracerProvider(shutdown_on_exit=False, span_limits=SpanLimits(max_attributes=4))
    span = provider.get_tracer("shop").start_span("work", links=[Link(CONTEXT, {"why": "x"})])
    for value in ("text", 3, -3, 0.5, True, None, b"bytes", ["list"], {"key": "value"}):
        span.set_attribute(type(value).__name__, value)
    span.record_exception(ValueError("wrong"))
    span.set_status(StatusCode.ERROR, "wrong")
    span.end()
    expected = stock(span)

    def never(span: ReadableSpan) -> bytes:
        raise AssertionError("the slow path was taken")

    monkeypatch.setattr(otlp, "_encode_span_slowly", never)
    assert otlp.encode_span(span) == expected


def test_what_is_kept_is_bounded() -> None:
    def encode(numbers: range) -> None:
        for number in numbers:
            ids = {"id": f"{number:032}", f"key {number}": number, f"share {number}": 0.5}
            otlp.encode_span(ReadableSpan(f"span {number}", CONTEXT, attributes=ids))

    encode(range(500))
    tracemalloc.start()
    encode(range(500, 600))
    before, _ = tracemalloc.get_traced_memory()
    encode(range(600, 2_000))
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
    finished = [span for name in ("web", "worker") for span in finished_of(name)]
    grouped: dict[Resource, dict[InstrumentationScope, list[bytes]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for span in finished:
        grouped[span.resource][span.instrumentation_scope].append(otlp.encode_span(span))
    request = otlp.export_request(
        [
            otlp.resource_spans(
                otlp.encode_resource(resource),
                resource.schema_url,
                [
                    otlp.scope_spans(otlp.encode_scope(scope), scope.schema_url, spans)
                    for scope, spans in scopes.items()
                ],
            )
            for resource, scopes in grouped.items()
        ]
    )
    assert request == encode_spans(finished).SerializeToString()

    channel.unary_unary(EXPORT)(request, timeout=10)

    got = receiver.wait_for(lambda spans: len(spans) == 4)
    assert [(span.service, span.name, span.scope) for span in got] == [
        ("web", "send", "queuehop"),
        ("web", "process", "queuehop"),
        ("worker", "send", "queuehop"),
        ("worker", "process", "queuehop"),
    ]
    assert got[1].parent_id == got[0].span_id == got[1].links[0].span_id
    assert got[1].attributes == {"celery.task.name": "ping", "celery.wait.queue": 0.25}


def finished_of(service: str) -> list[ReadableSpan]:
    """Return a send and its run, ended."""
    resource = Resource({"service.name": service}, "https://opentelemetry.io/schemas/1.40.0")
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    tracer = provider.get_tracer("queuehop", "0.1.0", "https://opentelemetry.io/schemas/1.41.0")
    send = tracer.start_span("send", kind=SpanKind.PRODUCER)
    parent = NonRecordingSpan(send.get_span_context())
    run = tracer.start_span(
        "process",
        set_span_in_context(parent),
        SpanKind.CONSUMER,
        {"celery.task.name": "ping", "celery.wait.queue": 0.25},
        [Link(send.get_span_context())],
    )
    run.end()
    send.end()
    return [send, run]


def test_no_scope_is_an_empty_one() -> None:
    span = ReadableSpan("x", CONTEXT, resource=Resource({}))
    encoded = otlp.scope_spans(otlp.encode_scope(None), "", [otlp.encode_span(span)])
    [expected] = encode_spans([span]).resource_spans[0].scope_spans
    assert encoded == expected.SerializeToString()
