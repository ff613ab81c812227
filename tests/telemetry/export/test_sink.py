"""If MessagePack or OTLP cannot represent a value, the record is delivered without it."""

import os
import re
import sys
from pathlib import Path

import pytest
from opentelemetry.trace import SpanKind

from telemetry.config import exporter, settings
from telemetry.export import memory
from telemetry.export.outgoing import origin_of, outgoing
from telemetry.export.sender.segment import Segment
from telemetry.export.spool import spawn
from telemetry.export.spool.directory import SpoolDirectory
from telemetry.export.spool.disk_sink import DiskSink
from telemetry.tracing.record import Facts, Record, RunFacts, SpanTemplate
from telemetry.tracing.scope import Scope

from ..tracing.sinks import RESOURCE
from .conftest import Collector, Program

TEMPLATE = SpanTemplate("process ping", SpanKind.CONSUMER.value, {}, Scope("x"))

#: A list in itself.
ENDLESS: list[object] = []
ENDLESS += [ENDLESS, ENDLESS]

#: From a message: text that is not Unicode, a number of more than 64 bits, and no end.
HOSTILE = RunFacts(("\ud800", "root", ENDLESS, None, 2**70, None, None), "celery", sent_at="1.5")


def record(facts: Facts | None) -> Record:
    return Record(bytes(15) + b"\x01", 2, 3, 4, flags=Record.SAMPLED, facts=facts)


@pytest.fixture
def sink(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DiskSink:
    """A sink without a sender."""
    monkeypatch.setattr(spawn, "start", lambda *_: None)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    targets = exporter.targets()
    assert targets is not None

    def in_memory() -> DiskSink:
        raise AssertionError("the disk is there")

    spool = settings.Spool(tmp_path / "spool", sys.maxsize, 1000)
    return DiskSink(
        lambda template: origin_of(RESOURCE, template, False), targets, spool, in_memory
    )


@pytest.fixture
def segment(sink: DiskSink, tmp_path: Path) -> Segment:
    (path,) = (tmp_path / "spool").iterdir()
    directory = SpoolDirectory(path)
    (name,) = directory.segments()
    return Segment(directory, name, {})


def test_facts_that_cannot_be_packed_cost_themselves_alone(
    sink: DiskSink, segment: Segment
) -> None:
    sink.append(TEMPLATE, record(HOSTILE))
    sink.append(TEMPLATE, record(None))
    assert len(list(segment.waiting["TRACES"].drain())) == 2
    ((_, measured),) = segment.waiting["METRICS"].drain()
    assert measured.values[0] == 1
    assert segment.take_unreadable() == (0, 0)
    (_, kept), _ = sink.recent_spans()
    assert isinstance(kept.facts, RunFacts)
    assert kept.facts.message[:2] == ("?", "root")
    assert kept.facts.message[3:] == (None,) * 4
    assert kept.facts.sent_at == "1.5"


def test_facts_that_otlp_cannot_hold_cost_themselves_alone() -> None:
    origin = origin_of(RESOURCE, TEMPLATE, False)
    left = outgoing(origin, record(HOSTILE))
    assert left.span
    assert left.measured is not None


def test_what_memory_drops_is_logged_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(os, "register_at_fork", lambda **_: None)
    monkeypatch.setattr(memory, "RateLimit", lambda: lambda kind: True)
    targets = exporter.targets()
    assert targets is not None
    sink = memory.MemorySink(
        lambda template: origin_of(RESOURCE, template, False), targets, settings.delivery()
    )
    sink.shutdown(0)
    sink.append(TEMPLATE, record(None))
    sink.append(TEMPLATE, record(None))  # logs what is new, not all so far
    said = "dropped 1 spans: tracing is shut down in this process"
    assert caplog.messages == [said, said]


def test_what_memory_drops_in_its_last_minute_is_logged_at_the_end(program: Program) -> None:
    process = program.run(
        "spans(50)",
        QUEUEHOP_SPOOL="memory",
        OTEL_BSP_MAX_QUEUE_SIZE="2",
        OTEL_BSP_MAX_EXPORT_BATCH_SIZE="2",
    )
    lines = re.findall(r"dropped (\d+) spans: the queue of .+ is full", process.output)
    assert sum(map(int, lines)) == 48  # no collector has taken the last two


@pytest.mark.parametrize("spool", ["disk", "memory"])
def test_text_that_is_no_unicode_costs_itself_alone(
    program: Program, collector: Collector, spool: str
) -> None:
    collector.start()
    program.run(
        """
        with tracer.start_as_current_span("odd") as span:
            span.set_attribute("text", "\\ud800")
        spans(1)
        """,
        QUEUEHOP_SPOOL=spool,
    )
    assert collector.wait_for(2) == {"odd": 1, "program1.0": 1}
