"""A trace as a file: its spans and its log records as OTLP/JSON, as ``import_files`` reads them."""

import sqlite3
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from ..otlp.otlp_json import grouped, to_json
from .store.log_table import stored_logs
from .store.read import stored_spans


def trace_document(db: sqlite3.Connection, number: int, trace_id: str) -> dict[str, Any]:
    """Return all spans and log records of a trace: ids in hex, 64-bit numbers as strings."""
    spans = grouped(ExportTraceServiceRequest, stored_spans(db, number))
    logs = grouped(ExportLogsServiceRequest, stored_logs(db, bytes.fromhex(trace_id)))
    return to_json(spans) | to_json(logs)
