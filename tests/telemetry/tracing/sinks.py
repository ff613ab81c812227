"""A sink in memory, and what a receiver would get of its records."""

from collections.abc import Iterator

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource

from telemetry.export.outgoing import Outgoing, origin_of, outgoing
from telemetry.otlp.decode import ReceivedSpan, decode
from telemetry.otlp.encode import encode_request
from telemetry.tracing.record import Record, SpanTemplate, pack, unpack

RESOURCE = Resource({"service.name": "test"})


class ListSink:
    """Holds records, each packed and unpacked as on its way through a file."""

    measures = True

    def __init__(self) -> None:
        self.records: list[tuple[SpanTemplate, Record]] = []

    def append(self, template: SpanTemplate, record: Record) -> None:
        self.records.append((template, unpack(pack(record))))

    def recent_spans(self) -> Iterator[tuple[SpanTemplate, Record]]:
        return iter(self.records)

    def flush(self, timeout: float) -> bool:
        return True

    def last_export_error(self) -> str:
        return ""

    def before_exit(self) -> None:
        pass

    def shutdown(self, timeout: float) -> None:
        pass

    def outgoing(self) -> list[Outgoing]:
        """Return what would leave, in order."""
        return [
            outgoing(origin_of(RESOURCE, template, False), record)
            for template, record in self.records
        ]

    def received(self) -> list[ReceivedSpan]:
        """Return the spans that a receiver would get."""
        parts = [
            (each.origin.resource_spans(), each.origin.scope_spans(), each.span)
            for each in self.outgoing()
            if each.span is not None
        ]
        return decode(ExportTraceServiceRequest.FromString(encode_request(parts)))
