"""The names and types in which OTLP's exports of traces and of logs differ."""

from dataclasses import dataclass, field
from typing import TypeVar

from google.protobuf.message import Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

__all__ = ["SIGNALS", "Export", "Exports", "Signal"]

Export = TypeVar("Export", ExportTraceServiceRequest, ExportLogsServiceRequest)


@dataclass(frozen=True, slots=True)
class Signal:
    """The fields of an export, from the outside to the inside, and its response."""

    resources: str
    scopes: str
    items: str
    response: type[Message]
    #: The field of a partial success that counts rejected items.
    rejected: str


SIGNALS: dict[type[Message], Signal] = {
    ExportTraceServiceRequest: Signal(
        *("resource_spans", "scope_spans", "spans"), ExportTraceServiceResponse, "rejected_spans"
    ),
    ExportLogsServiceRequest: Signal(
        *("resource_logs", "scope_logs", "log_records"),
        ExportLogsServiceResponse,
        "rejected_log_records",
    ),
}


@dataclass(frozen=True, slots=True)
class Exports:
    """The spans and log records of one body."""

    spans: ExportTraceServiceRequest = field(default_factory=ExportTraceServiceRequest)
    logs: ExportLogsServiceRequest = field(default_factory=ExportLogsServiceRequest)
