"""The spans of the test process: in memory, and sent to a receiver if the test has one."""

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from celery.backends.base import Backend
from celery.result import AsyncResult
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from telemetry.otlp.receiver import Receiver

#: The result backends of this process.
_kept: list[Backend] = []


@pytest.fixture(scope="session", autouse=True)
def kept_backends() -> None:
    """Free no result backend of this process, and let a freed result ask none, until its end.

    The garbage collector runs in the middle of another test, or behind the last. A result then asks
    a broker that has ended, for 20 seconds, and a backend leaves its sockets open.
    """
    init = Backend.__init__

    def init_and_keep(backend: Backend, *args: Any, **options: Any) -> None:
        _kept.append(backend)
        init(backend, *args, **options)

    Backend.__init__, AsyncResult.__del__ = init_and_keep, lambda result: None


class Switch(SpanExporter):
    """Passes spans on to the current listener, because the SDK cannot remove processors."""

    def __init__(self) -> None:
        self.targets: list[SpanExporter] = []

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        for target in self.targets:
            target.export(spans)
        return SpanExportResult.SUCCESS


@pytest.fixture(scope="session")
def switch() -> Switch:
    switch = Switch()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(switch))
    trace.set_tracer_provider(provider)
    return switch


@pytest.fixture
def memory(switch: Switch) -> Iterator[InMemorySpanExporter]:
    """The spans that ended in this process since the test began."""
    memory = InMemorySpanExporter()
    switch.targets.append(memory)
    yield memory
    switch.targets.remove(memory)
    assert not trace.get_current_span().get_span_context().is_valid, "a span was left current"


@pytest.fixture
def reporting(switch: Switch, receiver: Receiver) -> Iterator[None]:
    """Send the spans of this process to ``receiver``, like those of the started processes."""
    exporter = OTLPSpanExporter(endpoint=receiver.endpoint)
    switch.targets.append(exporter)
    yield
    switch.targets.remove(exporter)
    exporter.shutdown()
    assert not trace.get_current_span().get_span_context().is_valid, "a span was left current"
