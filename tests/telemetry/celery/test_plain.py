"""Runs that are kept as their message's words: what is received of them is what others say."""

import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import baggage, trace
from opentelemetry.context import Context
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans
from opentelemetry.proto.trace.v1.trace_pb2 import Span as ProtoSpan
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import id_generator, sampling
from opentelemetry.trace import SpanContext, SpanKind

from telemetry import light
from telemetry.celery import plain
from telemetry.celery.consumer import Consumer
from telemetry.celery.run import Run
from telemetry.hop import scope
from telemetry.light import Provider
from telemetry.spool import frames
from telemetry.spool.processor import SpoolProcessor
from telemetry.spool.segment import Cursor, Reader

RESOURCE = Resource({"service.name": "shop"})
NOW = 1_800_000_000_250_000_000
TRACEPARENT = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"
UUID = "3f2b8b7e-6a3e-4a53-9d57-6f3a9a5cbb3f"

#: What Celery makes of most messages: what a worker has on ``task.request``.
MESSAGE = {
    "lang": "py",
    "task": "ping",
    "id": UUID,
    "root_id": UUID,
    "parent_id": None,
    "group": None,
    "retries": 0,
    "eta": None,
    "delivery_info": {"routing_key": "celery", "redelivered": None},
    "traceparent": TRACEPARENT,
    "queuehop-sent-at": "1800000000.000000",
    "queuehop-received-at": 1_800_000_000.125,
}

Do = Callable[[Run], object]


class Ids(id_generator.IdGenerator):
    def generate_span_id(self) -> int:
        return 0x1234

    def generate_trace_id(self) -> int:
        return 0x5678


class Segment:
    """Stands where the writer is: the frames that it would write, in a file."""

    def __init__(self, path: Path) -> None:
        self.kinds: list[int] = []
        self._path = path
        self._seed = frames.seed(path.name)
        self._defined: set[frames.Head] = set()

    def append(self, head: frames.Head, content: bytes) -> None:
        self.kinds.append(head.kind)
        with self._path.open("ab") as file:
            if head not in self._defined:
                self._defined.add(head)
                for each in head.definitions:
                    defined = each.id + each.content
                    file.write(frames.pack(self._seed, frames.DEFINITION, defined))
            file.write(frames.frame(frames.begin(self._seed, head), head, content))

    def read(self, select: Any) -> list[tuple[tuple[bytes, ...], bytes]]:
        with self._path.open("rb") as file:
            cursor = Cursor(Reader(file.fileno(), self._path.name), select, 0)
            items = list(cursor.drain())
            assert cursor.unreadable == 0
        return [(definitions, content) for definitions, content, _ in items]

    def spans(self) -> list[ProtoSpan]:
        found: list[ProtoSpan] = []
        for (_, described), content in self.read(frames.span_of):
            assert not ScopeSpans.FromString(described).spans
            found.append(ProtoSpan.FromString(content))
        return found


@contextmanager
def kept(
    by: str = "words", sampler: sampling.Sampler = sampling.DEFAULT_ON, metrics: bool = True
) -> Iterator[Segment]:
    """Keep spans in a segment, at a time that stands still.

    *by* is "words", "light" for light spans alone, or "sdk".
    """
    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        segment = Segment(Path(directory, "segment"))
        segment._path.touch()
        service = RESOURCE if metrics else None
        keeper: Any = SpoolProcessor(segment, scope(), service)  # type: ignore[arg-type]
        provider = Provider(sampler, RESOURCE, False, id_generator=Ids())
        provider.add_span_processor(keeper)
        if by != "sdk":
            provider.light = light.light(provider, scope(), keeper)
        if by != "words":
            patch.setattr(Consumer, "_begin_plain", lambda *_: None)
        patch.setattr(trace, "_TRACER_PROVIDER", provider)
        for module in (plain, light):
            patch.setattr(module, "time_ns", lambda: NOW)
        patch.setattr("opentelemetry.sdk.trace.time_ns", lambda: NOW)
        patch.setattr(time, "time", lambda: NOW / 1e9)
        yield segment


@pytest.fixture(scope="module")
def consumer() -> Consumer:
    return Consumer(Celery("shop", broker="redis://broker:6379/0"), "child")


def check(consumer: Consumer, message: Mapping[str, Any], act: Do, **options: Any) -> int:
    """Return how many spans are read of the run of *message*, having compared them with others."""
    spans, measured, brought = {}, {}, {}
    for by in ("words", "light", "sdk"):
        with kept(by, **options) as segment:
            run = consumer.begin("ping", message)
            brought[by] = run.id, baggage.get_all(run.inside()), current(run.inside())
            act(run)
            spans[by], measured[by] = segment.spans(), segment.read(frames.measurement_of)
    assert brought["words"] == brought["light"] == brought["sdk"]
    assert spans["words"] == spans["light"] == spans["sdk"]
    assert measured["words"] == measured["light"]
    return len(spans["words"])


def current(context: Context) -> SpanContext:
    return trace.get_current_span(context).get_span_context()


def succeed(run: Run) -> None:
    run.end("SUCCESS")


def fail(run: Run) -> None:
    run.fail(KeyError("no"))
    run.end("FAILURE")


def say_more(run: Run) -> None:
    run.span.set_attribute("shop.item", "a book")
    run.end("SUCCESS")


def look(run: Run) -> None:
    # Who looks changes nothing.
    span: Any = run.span
    assert span.get_span_context().span_id == 0x1234
    assert (span.name, span.kind, span.is_recording()) == ("process ping", SpanKind.CONSUMER, True)
    run.end("SUCCESS")


def look_closer(run: Run) -> None:
    span: Any = run.span
    assert span.attributes["messaging.message.id"] == UUID
    assert [link.context for link in span.links] == [span.parent]
    run.end("SUCCESS")


def rename(run: Run) -> None:
    run.span.update_name("process something else")
    run.end("SUCCESS")


def end_it_first(run: Run) -> None:
    run.span.end()
    run.end("SUCCESS")


def never_say(run: Run) -> None:
    run.end()


@pytest.mark.parametrize(
    "act", [succeed, fail, say_more, look, look_closer, rename, end_it_first, never_say]
)
@pytest.mark.parametrize("metrics", [True, False])
def test_it_is_what_the_sdk_makes(consumer: Consumer, act: Do, metrics: bool) -> None:
    assert check(consumer, MESSAGE, act, metrics=metrics) == 1


def test_only_where_nothing_was_added_it_is_kept_as_words(consumer: Consumer) -> None:
    for metrics, kind in ((True, frames.MEASURED_PARTS), (False, frames.PARTS)):
        for act in (succeed, look):
            with kept(metrics=metrics) as segment:
                act(consumer.begin("ping", MESSAGE))
                assert segment.kinds == [kind]
    for act in (fail, say_more, rename, never_say):
        with kept() as segment:
            act(consumer.begin("ping", MESSAGE))
            assert segment.kinds == [frames.MEASURED_SPAN]


ODD_IDS = [None, "", "x", "é" * 9, "a\0b", "\0", "\ud800", 5, 0, ["x"], b"x"]
ODD: dict[str, list[Any]] = {
    **dict.fromkeys(("id", "root_id", "parent_id", "group"), ODD_IDS),
    "traceparent": [
        *(f"{TRACEPARENT[:-2]}{flags}" for flags in ("00", "02", "03", "ff", "0A", "1", "")),
        TRACEPARENT.upper(),
        f" {TRACEPARENT}",
        f"{TRACEPARENT}-more",
        f"{TRACEPARENT}\n",
        f"01{TRACEPARENT[2:]}",
        f"00-{'0' * 32}-0123456789abcdef-01",
        f"00-0123456789abcdef0123456789abcdef-{'0' * 16}-01",
        TRACEPARENT.encode(),
        [TRACEPARENT],
        *(None, 5, ""),
    ],
    # Before the worker had it, and after; and what is no time.
    "queuehop-sent-at": [
        *("1800000000.2", "1900000000", "-5", "nan", "inf", "-inf", "1e300", "", "soon"),
        *(b"1800000000.000000", 1_800_000_000, 1_800_000_000.0, True, None, ["5"]),
    ],
    "queuehop-received-at": [
        *(1_800_000_000.3, 1_900_000_000.0, -5.0, float("nan"), float("inf"), 1e300),
        *("1800000000.1", 1_800_000_000, True, None),
    ],
    "retries": [None, 1, 7, "x", True],
    "eta": ["", "2027-01-15T08:00:00.100000+00:00", "2037-01-15T08:00:00+00:00", "soon", 5],
    "tracestate": ["a=1", ""],
    "baggage": ["a=1"],
    "queuehop-links": [f"{TRACEPARENT[:-4]}0-01", "", 5],
    "queuehop-relation": ["link", "child", "?"],
    "delivery_info": [
        None,
        {},
        {"routing_key": ["x"]},
        {"routing_key": ""},
        {"routing_key": "celery", "redelivered": True},
    ],
}


@pytest.mark.parametrize(("key", "value"), [(key, one) for key in ODD for one in ODD[key]])
def test_of_a_message_that_is_odd(consumer: Consumer, key: str, value: object) -> None:
    check(consumer, {**MESSAGE, key: value}, succeed)


@pytest.mark.parametrize("key", MESSAGE)
def test_of_a_message_that_lacks_something(consumer: Consumer, key: str) -> None:
    check(consumer, {name: value for name, value in MESSAGE.items() if name != key}, succeed)


@given(st.fixed_dictionaries({}, optional={key: st.sampled_from(ODD[key]) for key in ODD}))
def test_of_a_message_that_is_odd_in_many_ways(consumer: Consumer, odd: Mapping[str, Any]) -> None:
    check(consumer, {**MESSAGE, **odd}, succeed)


def test_what_is_not_sampled_is_not_kept(consumer: Consumer) -> None:
    off = {**MESSAGE, "traceparent": f"{TRACEPARENT[:-2]}00"}
    assert check(consumer, off, succeed) == 0
    never = sampling.ParentBased(sampling.ALWAYS_ON, sampling.ALWAYS_OFF)
    assert check(consumer, MESSAGE, succeed, sampler=never) == 0


def test_two_threads_that_look_at_once_see_one_span(consumer: Consumer) -> None:
    with kept() as segment:
        run = consumer.begin("ping", MESSAGE)
        seen: list[Any] = []
        together = threading.Barrier(8)

        def see() -> None:
            together.wait()
            seen.append(run.span.get_span_context())

        threads = [threading.Thread(target=see) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        run.end("SUCCESS")
        (span,) = segment.spans()
    assert len({id(context) for context in seen}) == 1
    assert int.from_bytes(span.span_id) == seen[0].span_id
    assert int.from_bytes(span.trace_id) == seen[0].trace_id


def test_words_without_their_template_are_counted(consumer: Consumer, tmp_path: Path) -> None:
    with kept() as segment:
        consumer.begin("ping", MESSAGE).end("SUCCESS")
        data = segment._path.read_bytes()
    seed = frames.seed("segment")
    whole = list(frames.unpack(seed, data))
    (template,) = [
        payload for kind, payload, _ in whole if kind == frames.DEFINITION and b"SUCCESS" in payload
    ]
    for other in (None, template[: frames.ID] + b"[1]"):
        path = tmp_path / "segment"
        path.write_bytes(
            b"".join(
                frames.pack(seed, kind, payload if payload != template else other)
                for kind, payload, _ in whole
                if payload != template or other is not None
            )
        )
        with path.open("rb") as file:
            cursor = Cursor(Reader(file.fileno(), "segment"), frames.span_of, 0)
            assert list(cursor.drain()) == []
            assert cursor.unreadable == 1
