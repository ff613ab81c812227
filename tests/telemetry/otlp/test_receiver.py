"""The receiver, with exports of the SDK's own exporter and of threads that race."""

import threading
from collections.abc import Callable, Iterator

import grpc
import pytest
import trustme
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace import Link, SpanKind, StatusCode, Tracer, set_span_in_context

from telemetry.otlp.decode import ReceivedSpan
from telemetry.otlp.receiver import Receiver

Sender = Callable[..., Tracer]


@pytest.fixture
def sender() -> Iterator[Sender]:
    """Make tracers that send each span when it ends."""
    providers = []

    def make(endpoint: str, **options: object) -> Tracer:
        resource = Resource({"service.name": "shop", "service.instance.id": "one"})
        provider = TracerProvider(resource=resource)
        exporter = OTLPSpanExporter(endpoint=endpoint, timeout=10, **options)
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        providers.append(provider)
        return provider.get_tracer("tests")

    yield make
    for provider in providers:
        provider.shutdown()


def request_of(*names: str) -> ExportTraceServiceRequest:
    spans = [SpanMessage(name=name, trace_id=b"t" * 16, span_id=b"s" * 8) for name in names]
    return ExportTraceServiceRequest(
        resource_spans=[ResourceSpans(scope_spans=[ScopeSpans(spans=spans)])]
    )


def named(name: str) -> Callable[[list[ReceivedSpan]], bool]:
    return lambda spans: any(span.name == name for span in spans)


def test_each_kind_arrives(receiver: Receiver, sender: Sender) -> None:
    tracer = sender(receiver.endpoint)
    for kind in SpanKind:
        tracer.start_span(kind.name, kind=kind).end()
    spans = receiver.wait_for(lambda spans: len(spans) == len(SpanKind))
    assert [span.kind for span in spans] == [kind.name for kind in SpanKind]


def test_all_that_is_said_of_a_span_arrives(receiver: Receiver, sender: Sender) -> None:
    tracer = sender(receiver.endpoint)
    parent = tracer.start_span("parent")
    context = parent.get_span_context()
    child = tracer.start_span(
        "child",
        set_span_in_context(parent),
        SpanKind.CONSUMER,
        attributes={"text": "a", "number": 1, "share": 0.5, "true": True, "list": ["x", "y"]},
        links=[Link(context, {"why": "tests"})],
        start_time=1_000_000_000,
    )
    child.add_event("happened", {"what": "it"}, timestamp=1_500_000_000)
    child.set_status(StatusCode.ERROR, "wrong")
    child.end(3_000_000_000)
    parent.end()

    spans = receiver.wait_for(named("parent"))
    got, root = spans
    assert (got.name, got.kind, got.status, got.status_message) == (
        *("child", "CONSUMER", "ERROR", "wrong"),
    )
    assert got.trace_id == root.trace_id == f"{context.trace_id:032x}"
    assert got.parent_id == root.span_id == f"{context.span_id:016x}"
    assert root.parent_id == ""
    assert (root.kind, root.status) == ("INTERNAL", "UNSET")
    assert got.attributes == {
        **{"text": "a", "number": 1, "share": 0.5, "true": True, "list": ["x", "y"]},
    }
    assert got.duration == 2.0
    assert got.service == "shop"
    assert got.instance == "one"
    assert got.scope == "tests"
    [event] = got.events
    assert (event.name, event.time_ns, event.attributes) == (
        *("happened", 1_500_000_000, {"what": "it"}),
    )
    [link] = got.links
    assert (link.trace_id, link.span_id) == (root.trace_id, root.span_id)
    assert link.attributes == {"why": "tests"}


def test_compressed_and_with_headers(receiver: Receiver, sender: Sender) -> None:
    tracer = sender(
        receiver.endpoint, compression=grpc.Compression.Gzip, headers=(("api-key", "k"),)
    )
    tracer.start_span("work").end()
    receiver.wait_for(named("work"))
    assert receiver.metadata[0]["api-key"] == "k"


def test_over_tls(sender: Sender) -> None:
    authority = trustme.CA()
    identity = authority.issue_cert("127.0.0.1")
    chain = b"".join(part.bytes() for part in identity.cert_chain_pems)
    server = grpc.ssl_server_credentials([(identity.private_key_pem.bytes(), chain)])
    client = grpc.ssl_channel_credentials(authority.cert_pem.bytes())
    with Receiver(credentials=server) as receiver:
        assert receiver.endpoint.startswith("https://")
        sender(receiver.endpoint, credentials=client).start_span("work").end()
        receiver.wait_for(named("work"))


def test_a_taken_port_is_an_error_that_names_it(receiver: Receiver) -> None:
    port = int(receiver.endpoint.rpartition(":")[2])
    with pytest.raises(OSError, match=rf"127\.0\.0\.1:{port} is taken"):
        Receiver(port=port)


def test_a_port_is_free_again_afterwards() -> None:
    with Receiver() as first:
        endpoint = first.endpoint
    with Receiver(port=int(endpoint.rpartition(":")[2])) as second:
        assert second.endpoint == endpoint


def test_a_wait_in_vain_says_what_did_arrive(receiver: Receiver, sender: Sender) -> None:
    sender(receiver.endpoint).start_span("something else").end()
    receiver.wait_for(named("something else"))
    with pytest.raises(TimeoutError) as caught:
        receiver.wait_for(named("work"), timeout=0.01)
    said = str(caught.value)
    assert said.startswith("after 0.01 s 1 spans had arrived")
    assert "something else (shop) UNSET" in said
    assert receiver.spans[0].span_id in said


def test_of_too_many_spans_the_oldest_go() -> None:
    with Receiver(max_spans=2) as receiver, channel_to(receiver) as channel:
        stub = trace_service_pb2_grpc.TraceServiceStub(channel)
        stub.Export(request_of("first", "second"))
        stub.Export(request_of("third"))
        assert [span.name for span in receiver.spans] == ["second", "third"]


def test_several_send_while_several_wait(receiver: Receiver) -> None:
    def send(thread: int) -> None:
        with channel_to(receiver) as channel:
            stub = trace_service_pb2_grpc.TraceServiceStub(channel)
            for number in range(50):
                stub.Export(request_of(f"{thread}-{number}"))

    seen: list[int] = []

    def wait() -> None:
        seen.append(len(receiver.wait_for(lambda spans: len(spans) == 200, timeout=60)))

    threads = [threading.Thread(target=send, args=(thread,)) for thread in range(4)]
    threads += [threading.Thread(target=wait) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [200, 200]
    names = {f"{thread}-{number}" for thread in range(4) for number in range(50)}
    assert {span.name for span in receiver.spans} == names


def channel_to(receiver: Receiver) -> grpc.Channel:
    return grpc.insecure_channel(receiver.endpoint.removeprefix("http://"))
