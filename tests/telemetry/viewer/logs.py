"""Exports of logs, as on the wire."""

from collections.abc import Iterable
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs

from .exports import pairs, span_id

SECOND = 10**9


def log(
    text: str,
    trace: str = "",
    span: str = "",
    at: float = 1.0,
    severity: int = 9,
    level: str = "INFO",
    **attributes: Any,
) -> LogRecord:
    """Return a log record; *at* is Unix time in seconds, *span* what tests name a span."""
    return LogRecord(
        trace_id=bytes.fromhex(trace),
        span_id=span_id(span),
        time_unix_nano=int(at * SECOND),
        severity_number=severity,  # type: ignore[arg-type]
        severity_text=level,
        body={"string_value": text},
        attributes=pairs({key.replace("__", "."): value for key, value in attributes.items()}),
    )


def export_logs(
    logs: Iterable[LogRecord], service: str = "worker", scope: str = "shop"
) -> ExportLogsServiceRequest:
    """Return *logs* as one export."""
    return ExportLogsServiceRequest(
        resource_logs=[
            ResourceLogs(
                resource={"attributes": pairs({"service.name": service})},
                scope_logs=[ScopeLogs(scope={"name": scope}, log_records=list(logs))],
            )
        ]
    )
