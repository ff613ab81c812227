"""A segment with any content: the sender delivers the rest, in bounded time and memory."""

import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from msgspec import MsgspecError, msgpack
from msgspec.structs import replace
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.trace import SpanKind

from telemetry.config.exporter import Signal
from telemetry.export.outgoing import LOGS, Origin
from telemetry.export.sender.batch_delivery import BatchDelivery
from telemetry.export.sender.metric_delivery import MetricDelivery
from telemetry.export.sender.segment import Segment
from telemetry.export.sender.transport import ExportResult, Outcome, Transport
from telemetry.export.spool import frames
from telemetry.export.spool.directory import SpoolDirectory
from telemetry.tracing.record import (
    ClientFacts,
    Record,
    RecordedEvent,
    RecordedException,
    RecordedLink,
    RecordedLog,
    RunFacts,
    SendFacts,
    ServerFacts,
    SpanTemplate,
    pack,
)
from telemetry.tracing.scope import Scope

SECONDS, MEMORY = 10.0, 400 * 1024 * 1024
NAME = "tree.000001"
SEED = frames.seed(NAME)

MESSAGE = ("id", "root", None, None, 1, "2026-01-01T00:00:00", None)
FACTS = [
    None,
    SendFacts(MESSAGE, "celery"),
    RunFacts(
        MESSAGE,
        "celery",
        False,
        "1700000000.5",
        1.7e9,
        items=3,
        links_to_parent=True,
        state="SUCCESS",
    ),
    ServerFacts(
        ("GET", "http", "host:80", "h", "80", "HTTP/1.1", "", "/ping", "::1", "x"), "/ping", 200
    ),
    ClientFacts("GET", "http://host/ping", "host", 80, 200),
]
ORIGIN = Origin(
    {"service.name": "shop", "list": ["a", "b"]},
    "https://schema",
    False,
    SpanTemplate("work", SpanKind.CONSUMER.value, {"messaging.system": "redis"}, Scope("x", "1")),
)


def record(number: int) -> Record:
    return Record(
        bytes(15) + b"\x01",
        number + 1,
        1_700_000_000_000_000_000,
        1_700_000_001_000_000_000,
        parent_id=7,
        flags=Record.SAMPLED,
        trace_state="a=1",
        facts=FACTS[number % len(FACTS)],
        name=f"span.{number}",
        attributes={"text": "x", "number": 1, "share": 0.5, "list": [1, 2]},
        events=[RecordedEvent("happened", 5, {"a": 1})],
        links=[RecordedLink(bytes(15) + b"\x02", 3, True, {"b": True})],
        status=2,
        status_description="wrong",
    )


def log(number: int) -> RecordedLog:
    return RecordedLog(
        1_700_000_000_000_000_000,
        "shop.orders",
        20,
        "INFO",
        f"log.{number}",
        "/shop/orders.py",
        "order",
        7,
        bytes(15) + b"\x01",
        number + 1,
        1,
        RecordedException("ValueError", "wrong", "Traceback …"),
        attributes={"text": "x", "number": 1},
    )


SPANS, LOG_RECORDS = 15, 5
COUNT = SPANS + LOG_RECORDS
DEFINITION = frames.define(msgpack.encode(ORIGIN))
OF_LOGS = frames.define(msgpack.encode(replace(ORIGIN, template=LOGS)))
CONTENTS = [pack(record(number)) for number in range(SPANS)]
CONTENTS += [pack(log(number)) for number in range(LOG_RECORDS)]
NAMES = [f"span.{number}" for number in range(SPANS)]
NAMES += [f"log.{number}" for number in range(LOG_RECORDS)]


def framed(content: bytes, kind: bytes = frames.RECORD, id: bytes = DEFINITION.id) -> bytes:
    return frames.frame(SEED, kind + id + content)


def framed_all(contents: list[bytes]) -> bytes:
    """Return the frames of *contents*: those of ``CONTENTS``, or replacements for some of them."""
    spans = b"".join(map(framed, contents[:SPANS]))
    return spans + b"".join(framed(each, frames.LOG, OF_LOGS.id) for each in contents[SPANS:])


HEAD = frames.frame(SEED, DEFINITION.payload) + frames.frame(SEED, OF_LOGS.payload)
SEGMENT = HEAD + framed_all(CONTENTS)


class Collector(Transport):
    """Accepts everything, and checks that it is OTLP."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def send(self, signal: Signal, request: bytes) -> ExportResult:
        if signal == "METRICS":
            ExportMetricsServiceRequest.FromString(request)
        if signal == "TRACES":
            for resource_spans in ExportTraceServiceRequest.FromString(request).resource_spans:
                for scope_spans in resource_spans.scope_spans:
                    self.names += [span.name for span in scope_spans.spans]
        if signal == "LOGS":
            for resource_logs in ExportLogsServiceRequest.FromString(request).resource_logs:
                for scope_logs in resource_logs.scope_logs:
                    self.names += [log.body.string_value for log in scope_logs.log_records]
        return ExportResult(Outcome.DELIVERED)

    def export(self, signal: Signal, request: bytes) -> ExportResult:
        return self.send(signal, request)  # what is raised here fails the test

    def close(self) -> None: ...
    def hold(self) -> None: ...


def deliver(data: bytes) -> tuple[list[str], int]:
    """Deliver a segment with *data*.

    Return the names of the spans, the bodies of the log records, and how many were unreadable.
    """
    began, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with TemporaryDirectory() as folder:
        directory = SpoolDirectory(Path(folder) / "0123456789abcdef")
        directory.make()
        directory.segment(NAME).write_bytes(data)
        segment = Segment(directory, NAME, {})
        collector = Collector()
        for signal in ("TRACES", "LOGS"):
            delivery = BatchDelivery(signal, collector, 512)
            while delivery.deliver([segment]):
                pass
        MetricDelivery(collector, 0.0).deliver([segment])
        unreadable = sum(segment.take_unreadable())
        segment.close()
    assert time.process_time() - began < SECONDS
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert (after - before) * 1024 < MEMORY
    return collector.names, unreadable


cuts = st.lists(
    st.tuples(st.integers(0, len(SEGMENT)), st.integers(0, 60), st.binary(max_size=60)),
    min_size=1,
    max_size=5,
)


def test_what_is_whole_is_delivered_whole() -> None:
    assert deliver(SEGMENT) == (NAMES, 0)


@given(cuts)
def test_a_segment_that_is_cut(cuts: list[tuple[int, int, bytes]]) -> None:
    data = SEGMENT
    for at, length, instead in cuts:
        data = data[:at] + instead + data[at + length :]
    names, _ = deliver(data)
    framed_each = [framed(content) for content in CONTENTS[:SPANS]]
    framed_each += [framed(content, frames.LOG, OF_LOGS.id) for content in CONTENTS[SPANS:]]
    expected = [name for name, frame in zip(NAMES, framed_each, strict=True) if frame in data]
    if data.startswith(HEAD):
        assert set(expected) <= set(names)


@given(st.integers(0, COUNT - 1), cuts)
def test_a_record_of_other_bytes_costs_itself_alone(
    number: int, cuts: list[tuple[int, int, bytes]]
) -> None:
    content = CONTENTS[number]
    for at, length, instead in cuts:
        at %= len(content) + 1
        content = content[:at] + instead + content[at + length :]
    others_arrive(number, content)


def others_arrive(number: int, content: bytes) -> None:
    contents = [*CONTENTS[:number], content, *CONTENTS[number + 1 :]]
    names, unreadable = deliver(HEAD + framed_all(contents))
    others = [*NAMES[:number], *NAMES[number + 1 :]]
    assert [name for name in names if name in others] == others
    assert len(names) - len(others) + unreadable <= 1


odd: st.SearchStrategy[Any] = st.recursive(
    st.one_of(
        *(st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats()),
        *(st.text(max_size=20), st.binary(max_size=20), st.datetimes()),
        st.sampled_from([2**63, 2**64 - 1, -(2**63), float("nan"), float("inf"), 1e308, ""]),
    ),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.integers(-5, 5) | st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=8,
)


def paths(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    if isinstance(node, dict):
        for key, value in node.items():
            yield from paths(value, (*path, key))
    elif isinstance(node, list):
        for at, value in enumerate(node):
            yield from paths(value, (*path, at))


def replaced(content: bytes, draw: Callable[..., Any]) -> bytes:
    """Return *content* with another value in one place."""
    document = msgpack.decode(content)
    path = draw(st.sampled_from(list(paths(document))))
    node = document
    for step in path[:-1]:
        node = node[step]
    node[path[-1]] = draw(odd)
    return msgpack.encode(document)


@given(st.integers(0, COUNT - 1), st.data())
def test_a_record_with_another_value_costs_itself_alone(number: int, data: st.DataObject) -> None:
    try:
        content = replaced(CONTENTS[number], data.draw)
    except (MsgspecError, ValueError, OverflowError):
        return
    others_arrive(number, content)


@given(st.data())
def test_an_origin_with_another_value_costs_its_own_records(data: st.DataObject) -> None:
    try:
        definition = frames.define(replaced(msgpack.encode(ORIGIN), data.draw))
    except (MsgspecError, ValueError, OverflowError):
        return
    assume(definition.id != DEFINITION.id)  # else its records are duplicates
    bad = frames.frame(SEED, definition.payload)
    bad += b"".join(framed(content, id=definition.id) for content in CONTENTS[:5])
    names, unreadable = deliver(bad + SEGMENT)
    assert names[-COUNT:] == NAMES
    # Either the definition and its records are lost, or records that it makes impossible.
    assert unreadable in (6, 5 - (len(names) - COUNT))


HEADER = frames.frame(SEED, b"x" * 100)[:4]


@pytest.mark.parametrize("length", [9, 1_000, 100_000, 900_000, 5_000_000, 2**24, 2**32 - 1])
def test_headers_without_frames_take_no_time(length: int) -> None:
    forged = HEADER + length.to_bytes(4, "little") + b"crc?"
    data = HEAD + forged * 80_000 + framed_all(CONTENTS)
    names, _ = deliver(data)
    assert names == NAMES


@pytest.mark.parametrize(
    "attributes",
    [
        pytest.param({"a": [None] * 1_000_000}, id="a long list"),
        pytest.param({"a": [[]] * 300_000}, id="a list of lists"),
        pytest.param({str(key): 1 for key in range(100_000)}, id="many attributes"),
        pytest.param({"a": "x" * 10_000_000}, id="a long text"),
    ],
)
def test_records_that_are_large(attributes: dict[str, Any]) -> None:
    large = record(0)
    large.attributes = attributes
    names, unreadable = deliver(HEAD + framed(pack(large)) + framed_all(CONTENTS))
    assert names == ["span.0", *NAMES]
    assert unreadable == 0
