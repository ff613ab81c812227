"""A sink in memory, and the spans that a receiver would get from its records."""

import threading
from collections.abc import Iterator

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource

from telemetry.export.outgoing import Outgoing, origin_of, outgoing
from telemetry.otlp.decode import ReceivedSpan, decode
from telemetry.otlp.encode import encode_request
from telemetry.tracing.record import Record, SpanTemplate, pack, unpack
from telemetry.tracing.sink import Sink

from ...processes import PATIENCE

RESOURCE = Resource({"service.name": "test"})


class ListSink(Sink):
    """A list of records, each packed and unpacked as by a file."""

    measures = True

    def __init__(self) -> None:
        self.records: list[tuple[SpanTemplate, Record]] = []
        self._grown = threading.Condition()

    def append(self, template: SpanTemplate, record: Record) -> None:
        with self._grown:
            self.records.append((template, unpack(pack(record))))
            self._grown.notify_all()

    def recent_spans(self) -> Iterator[tuple[SpanTemplate, Record]]:
        return iter(self.records)

    def outgoing(self) -> list[Outgoing]:
        """Return the parts of the requests, in order."""
        return [
            outgoing(origin_of(RESOURCE, template, False), record)
            for template, record in self.records
        ]

    def wait_for(self, *names: str, timeout: float = PATIENCE) -> tuple[ReceivedSpan, ...]:
        """Wait until a span of each of *names* has ended; return them in this order."""
        with self._grown:
            complete = self._grown.wait_for(
                lambda: {span.name for span in self.received()} >= set(names), timeout
            )
        spans = self.received()
        assert complete, [span.name for span in spans]
        return tuple(next(span for span in spans if span.name == name) for name in names)

    def wait_for_count(self, name: str, count: int, timeout: float = PATIENCE) -> None:
        """Wait until *count* spans of one *name* have ended."""
        with self._grown:
            complete = self._grown.wait_for(
                lambda: [span.name for span in self.received()].count(name) >= count, timeout
            )
        assert complete, [span.name for span in self.received()]

    def received(self) -> list[ReceivedSpan]:
        """Return the spans that a receiver would get."""
        parts = [each.span for each in self.outgoing() if each.span is not None]
        return decode(ExportTraceServiceRequest.FromString(encode_request(parts)))
