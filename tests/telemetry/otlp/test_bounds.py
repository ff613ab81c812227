"""An export that is small on the wire and huge in memory is refused before it is built."""

import json
import threading
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from telemetry.otlp.admission import LARGE, LARGE_OBJECTS, SMALL, Busy, Ticket
from telemetry.otlp.bounds import (
    MAX_FIELDS,
    MAX_OBJECTS,
    MAX_SPAN,
    MAX_SPANS,
    Malformed,
    TooLarge,
)
from telemetry.otlp.decode import decode
from telemetry.otlp.receiver import Receiver
from telemetry.otlp.server import JSON, PROTOBUF, parse, receive

MANY = MAX_OBJECTS + 1


def field(number: int, content: bytes) -> bytes:
    """Return a protobuf field of bytes, text or a message."""
    length = len(content)
    encoded = bytearray()
    while length >= 0x80:
        encoded.append(length & 0x7F | 0x80)
        length >>= 7
    return bytes([number << 3 | 2]) + bytes(encoded) + bytes([length]) + content


def in_a_span(content: bytes) -> bytes:
    return field(1, field(2, field(2, content)))


#: Protobuf's old kind of nested message, in a field that OTLP does not have.
GROUP = b"\x7b\x7c"

PROTOBUFS = {
    "resources": field(1, b"") * MANY,
    "scopes": field(1, field(2, b"") * MANY),
    "spans": field(1, field(2, field(2, b"") * MANY)),
    "attributes": in_a_span(field(9, b"") * MANY),
    "events": in_a_span(field(11, b"") * MANY),
    "links": in_a_span(field(13, b"") * MANY),
    "values": in_a_span(field(9, field(2, field(5, field(1, b"") * MANY)))),
    "numbers": b"\x78\x01" * (MAX_FIELDS + 1),
    "behind a group": GROUP + in_a_span(field(9, b"") * MANY),
    "before a group": in_a_span(field(9, b"") * MANY) + GROUP,
}
JSONS = {
    "resources": b'{"resourceSpans":[' + b"{}," * MANY + b"{}]}",
    "arrays": b'{"x":[' + b"[]," * MANY + b"[]]}",
    "numbers": b'{"x":[' + b"1," * (4 * MANY) + b"1]}",
    "keys": b'{"x":{' + b'"":1,' * (4 * MANY) + b'"":1}}',
}


@pytest.mark.parametrize("body", PROTOBUFS.values(), ids=PROTOBUFS)
def test_too_many_objects_of_protobuf(body: bytes) -> None:
    with pytest.raises(TooLarge, match=r"more than (\d{6} objects|\d{7} fields|\d{5} spans)"):
        parse(ExportTraceServiceRequest, body, PROTOBUF)


def test_a_string_that_is_not_utf_8() -> None:
    """The Collector accepts it. Its wrong bytes are replaced, and the export is accepted."""
    spans = field(2, field(5, b"a\xff\xe2\x82")) + field(2, field(5, "ping é".encode()))
    body = field(1, field(2, spans))
    export = parse(ExportTraceServiceRequest, body)
    assert [span.name for span in decode(export)] == ["a???", "ping é"]
    with pytest.raises(Malformed):
        parse(ExportTraceServiceRequest, body[:-1])


def test_a_span_that_no_server_would_take() -> None:
    with pytest.raises(TooLarge, match="a span of more than"):
        parse(ExportTraceServiceRequest, in_a_span(field(5, b"x" * MAX_SPAN)))


def test_one_large_export_at_a_time() -> None:
    with Ticket() as first, Ticket() as second:
        first.fit(LARGE + 1)
        first.fit(2 * LARGE, LARGE_OBJECTS + 1)
        second.fit(SMALL)
        second.fit(LARGE)
        with pytest.raises(Busy, match="again later"):
            second.fit(LARGE + 1)
        with pytest.raises(Busy):
            parse(ExportTraceServiceRequest, b"{" * (LARGE_OBJECTS + 1), JSON, ticket=second)
    with Ticket() as third:
        third.fit(LARGE + 1)


def test_one_of_medium_size_waits_for_its_turn() -> None:
    read, turn = threading.Event(), threading.Event()

    def wait() -> None:
        with receive(
            ExportTraceServiceRequest, None, lambda: in_a_span(field(5, b"x" * SMALL))
        ) as export:
            assert turn.is_set()
            assert export.resource_spans
            read.set()

    with Ticket() as ticket:
        ticket.fit(SMALL + 1)
        thread = threading.Thread(target=wait)
        thread.start()
        assert not read.is_set()
        turn.set()
    assert read.wait(10)
    thread.join()


@pytest.mark.parametrize("body", JSONS.values(), ids=JSONS)
def test_too_many_objects_of_json(body: bytes) -> None:
    with pytest.raises(TooLarge, match="more than"):
        parse(ExportTraceServiceRequest, body, JSON)


@pytest.mark.parametrize(
    ("kind", "names", "noun"),
    [
        (ExportTraceServiceRequest, ("resourceSpans", "scopeSpans", "spans"), "spans"),
        (ExportLogsServiceRequest, ("resourceLogs", "scopeLogs", "logRecords"), "log records"),
    ],
)
def test_too_many_items_of_json(kind: Any, names: tuple[str, str, str], noun: str) -> None:
    resources, scopes, items = names
    body = json.dumps({resources: [{scopes: [{items: [{}] * (MAX_SPANS + 1)}]}]}).encode()
    with pytest.raises(TooLarge, match=f"more than {MAX_SPANS} {noun}"):
        parse(kind, body, JSON)


def test_a_large_export_of_real_spans_is_taken() -> None:
    request = ExportTraceServiceRequest()
    spans = request.resource_spans.add().scope_spans.add().spans
    for number in range(5_000):
        span = spans.add(trace_id=bytes(16), span_id=bytes(8), name="x" * 200)
        for key in range(10):
            span.attributes.add(key=f"key{key}").value.string_value = str(number)
    body = request.SerializeToString()
    assert len(body) > 2 * MAX_OBJECTS, "else the objects are not counted"
    assert parse(ExportTraceServiceRequest, body, PROTOBUF) == request


@pytest.mark.parametrize("body", [b"\xff" * 10_000_000, field(1, b"")[:1] * 10_000_000])
def test_what_is_no_protobuf_is_malformed_at_any_length(body: bytes) -> None:
    with pytest.raises((Malformed, TooLarge)):
        parse(ExportTraceServiceRequest, body, PROTOBUF)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (PROTOBUFS["spans"], grpc.StatusCode.RESOURCE_EXHAUSTED),
        (b"\xff\xff", grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
def test_over_grpc_the_status_says_so(
    receiver: Receiver, body: bytes, status: grpc.StatusCode
) -> None:
    method = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
    with grpc.insecure_channel(receiver.endpoint.removeprefix("http://")) as channel:
        export = channel.unary_unary(method)
        with pytest.raises(grpc.RpcError) as refused:
            export(body)
    assert refused.value.code() is status
    assert not receiver.spans


def of_a_span(**fields: Any) -> bytes:
    span = {"traceId": "0a" * 16, "spanId": "0b" * 8, "name": "x", **fields}
    return json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}).encode()


def attribute(**value: str) -> dict[str, Any]:
    return {"attributes": [{"key": "k", "value": value}]}


@pytest.mark.parametrize(
    "fields",
    [
        {"traceId": " 0a" + "0a" * 15},
        {"traceId": "0a " * 16},
        {"spanId": "٣" * 16},
        {"parentSpanId": "0x" + "0b" * 7},
        {"traceId": 12},
        {"startTimeUnixNano": "1_000"},
        {"startTimeUnixNano": " 1000"},
        {"endTimeUnixNano": "٣٣"},
        {"events": [{"timeUnixNano": "1_0", "name": "e"}]},
        attribute(intValue="1_0"),
        attribute(intValue="٣"),
        attribute(doubleValue="1_0.5"),
    ],
)
def test_numbers_and_ids_are_what_the_protocol_has(fields: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        parse(ExportTraceServiceRequest, of_a_span(**fields), JSON)


@pytest.mark.parametrize(
    "fields",
    [
        {"traceId": "0A" * 16},
        {"startTimeUnixNano": "1700000000000000000"},
        {"startTimeUnixNano": 1},
        attribute(intValue="-12"),
        attribute(doubleValue="NaN"),
        attribute(doubleValue="-1.5e-3"),
        attribute(stringValue="1_0"),
    ],
)
def test_what_the_protocol_has_is_taken(fields: dict[str, Any]) -> None:
    assert parse(ExportTraceServiceRequest, of_a_span(**fields), JSON).resource_spans


@pytest.mark.parametrize(
    "body",
    [
        b'{"resourceSpans": 7}',
        b'{"resourceSpans": [7]}',
        b'{"resourceSpans": [{"scopeSpans": [[]]}]}',
    ],
)
def test_errors_are_in_the_words_of_the_protocol(body: bytes) -> None:
    with pytest.raises(Malformed, match="resourceSpans, scopeSpans, spans and links are arrays"):
        parse(ExportTraceServiceRequest, body, JSON)


def test_a_large_export_in_json_is_read_whole() -> None:
    spans = [
        {"traceId": "0a" * 16, "spanId": f"{number:016x}", "name": "x"}
        for number in range(1, 20_001)
    ]
    scope = {"scope": {"name": "s"}, "spans": spans}
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "shop"}}]}
    body = json.dumps({"resourceSpans": [{"resource": resource, "scopeSpans": [scope]}]}).encode()
    assert body.count(b",") > LARGE_OBJECTS, "else it is read here"
    found = decode(parse(ExportTraceServiceRequest, body, JSON))
    assert [int(span.span_id, 16) for span in found] == list(range(1, 20_001))
    assert {(span.service, span.scope) for span in found} == {("shop", "s")}


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b'{"resourceSpans": [' + b"7," * LARGE_OBJECTS + b"7]}", Malformed),
        (b"[" * LARGE_OBJECTS * 2, Malformed),
        (b'{"resourceSpans": [{"scopeSpans": [' + b"{}," * LARGE_OBJECTS, Malformed),
    ],
)
def test_what_is_wrong_with_a_large_one_is_said_all_the_same(
    body: bytes, error: type[Exception]
) -> None:
    with pytest.raises(error, match="the body is"):
        parse(ExportTraceServiceRequest, body, JSON)
