"""Any body is an export or an error, in bounded time and memory."""

import gzip
import json
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from telemetry.otlp.decode import decode
from telemetry.otlp.otlp_json import grouped, to_json
from telemetry.otlp.server import JSON, PROTOBUF, Malformed, TooLarge, receive
from telemetry.viewer.store.incoming import incoming

#: Seconds of CPU time for one export, and bytes for all of them.
SECONDS, MEMORY = 10.0, 400 * 1024 * 1024

VALUES: list[Any] = [
    {"stringValue": "x" * 40},
    {"intValue": "-12"},
    {"boolValue": True},
    {"doubleValue": 1.5},
    {"bytesValue": "AAAA"},
    {"arrayValue": {"values": [{"stringValue": "a"}, {"arrayValue": {"values": []}}]}},
    {"kvlistValue": {"values": [{"key": "k", "value": {"intValue": 1}}]}},
]
ATTRIBUTES = [{"key": f"key{at}", "value": value} for at, value in enumerate(VALUES)]
SPAN = {
    "traceId": "0a" * 16,
    "spanId": "0b" * 8,
    "parentSpanId": "0c" * 8,
    "name": "GET /ping",
    "kind": 2,
    "startTimeUnixNano": "1700000000000000000",
    "endTimeUnixNano": 1700000000000000001,
    "attributes": ATTRIBUTES,
    "events": [{"name": "exception", "timeUnixNano": "3", "attributes": ATTRIBUTES}],
    "links": [{"traceId": "0d" * 16, "spanId": "0e" * 8, "attributes": ATTRIBUTES}],
    "status": {"code": 2, "message": "wrong"},
    "flags": 257,
}
DOCUMENT = {
    "resourceSpans": [
        {
            "resource": {"attributes": ATTRIBUTES},
            "scopeSpans": [{"scope": {"name": "s", "version": "1"}, "spans": [SPAN, SPAN]}],
        }
    ]
}


def as_protobuf() -> bytes:
    with receive(
        ExportTraceServiceRequest, None, json.dumps(DOCUMENT).encode, content_type=JSON
    ) as export:
        return export.SerializeToString()


BYTES = {JSON: json.dumps(DOCUMENT).encode(), PROTOBUF: as_protobuf()}

odd = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=40)
    | st.sampled_from(["٣", "1_0", " 1", "\ud800", "-1", "1e999", "0x10", 2**64, -(2**63) - 1]),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4)
    ),
    max_leaves=6,
)
cuts = st.lists(
    st.tuples(st.integers(0, 2000), st.integers(0, 40), st.binary(max_size=30)),
    min_size=1,
    max_size=4,
)


def cut(data: bytes, cuts: list[tuple[int, int, bytes]]) -> bytes:
    for at, length, instead in cuts:
        data = data[:at] + instead + data[at + length :]
    return data


@contextmanager
def bounded() -> Iterator[None]:
    began, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert time.process_time() - began < SECONDS
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert (after - before) * 1024 < MEMORY


def take(body: bytes, content_type: str, encoding: str = "identity") -> None:
    """Read *body* as the viewer does."""
    error = ""
    with bounded():
        try:
            with receive(
                ExportTraceServiceRequest, len(body), lambda: body, encoding, content_type
            ) as export:
                assert isinstance(export, ExportTraceServiceRequest)
                decode(export)
                incoming(export)
                json.dumps(to_json(export))
                grouped(ExportTraceServiceRequest, [])
        except (Malformed, TooLarge) as exc:
            error = str(exc)
    # The error has the protocol's names.
    assert "Error" not in error
    assert "object has no attribute" not in error
    assert len(error) < 500


@given(cuts, st.sampled_from([PROTOBUF, JSON]))
def test_bytes_that_are_cut(cuts: list[tuple[int, int, bytes]], content_type: str) -> None:
    take(cut(BYTES[content_type], cuts), content_type)


@given(cuts, st.sampled_from([PROTOBUF, JSON]))
def test_gzip_that_is_cut(cuts: list[tuple[int, int, bytes]], content_type: str) -> None:
    take(cut(gzip.compress(BYTES[content_type]), cuts), content_type, "gzip")


@given(
    st.binary(max_size=400),
    st.sampled_from([PROTOBUF, JSON]),
    st.sampled_from(["identity", "gzip"]),
)
def test_bytes_of_any_kind(body: bytes, content_type: str, encoding: str) -> None:
    take(body, content_type, encoding)


def paths(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    if isinstance(node, dict):
        for key, value in node.items():
            yield from paths(value, (*path, key))
    elif isinstance(node, list):
        for at, value in enumerate(node):
            yield from paths(value, (*path, at))


@given(st.sampled_from(list(paths(DOCUMENT))[1:]), odd)
def test_a_value_of_json_that_is_another(path: tuple[Any, ...], value: Any) -> None:
    document = json.loads(BYTES[JSON])
    node = document
    for step in path[:-1]:
        node = node[step]
    node[path[-1]] = value
    take(json.dumps(document).encode(), JSON)


@pytest.mark.parametrize("depth", [50, 99, 101, 1_000, 100_000])
@pytest.mark.parametrize(
    "opening", ['{"arrayValue":{"values":[', '{"kvlistValue":{"values":[{"value":']
)
def test_json_that_is_nested(depth: int, opening: str) -> None:
    closing = {"[": "]", "{": "}"}
    end = "".join(closing[c] for c in reversed(opening) if c in closing)
    value = opening * depth + "{}" + end * depth
    span = {**SPAN, "attributes": [{"key": "k", "value": "HERE"}]}
    text = json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]})
    take(text.replace('"HERE"', value).encode(), JSON)


@pytest.mark.parametrize("depth", [50, 99, 101, 1_000, 30_000])
def test_protobuf_that_is_nested(depth: int) -> None:
    from .test_bounds import field, in_a_span

    value = b""
    for _ in range(depth):
        value = field(5, field(1, value))
    take(in_a_span(field(9, field(2, value))), PROTOBUF)
