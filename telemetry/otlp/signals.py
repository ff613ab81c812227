"""The names and types in which OTLP's exports of traces, metrics and logs differ."""

from dataclasses import dataclass, field
from typing import TypeVar

from google.protobuf.message import Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

Export = TypeVar("Export", ExportTraceServiceRequest, ExportLogsServiceRequest)


@dataclass(frozen=True, slots=True)
class Signal:
    """The service of gRPC, its response, and the fields of an export from outside to inside."""

    service: str
    response: type[Message]
    #: The field of a partial success that counts rejected items.
    rejected: str
    resources: str
    scopes: str
    items: str


SIGNALS: dict[type[Message], Signal] = {
    ExportTraceServiceRequest: Signal(
        *("trace.v1.TraceService", ExportTraceServiceResponse, "rejected_spans"),
        *("resource_spans", "scope_spans", "spans"),
    ),
    ExportMetricsServiceRequest: Signal(
        *("metrics.v1.MetricsService", ExportMetricsServiceResponse, "rejected_data_points"),
        *("resource_metrics", "scope_metrics", "metrics"),
    ),
    ExportLogsServiceRequest: Signal(
        *("logs.v1.LogsService", ExportLogsServiceResponse, "rejected_log_records"),
        *("resource_logs", "scope_logs", "log_records"),
    ),
}


@dataclass(frozen=True, slots=True)
class Exports:
    """The spans and log records of one body."""

    spans: ExportTraceServiceRequest = field(default_factory=ExportTraceServiceRequest)
    logs: ExportLogsServiceRequest = field(default_factory=ExportLogsServiceRequest)
