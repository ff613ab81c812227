"""Export a trace as a file: its spans and log records as OTLP/JSON, for ``import_files``."""

import base64
import sqlite3
from typing import Any

from google.protobuf import json_format
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import ResourceLogs

from ..otlp.server import grouped, to_json
from .store.logs import stored_logs
from .store.read import stored_spans

__all__ = ["trace_document"]


def trace_document(db: sqlite3.Connection, number: int, trace_id: str) -> dict[str, Any]:
    """Return all spans and log records of a trace: ids in hex, 64-bit integers as strings."""
    document = to_json(grouped(stored_spans(db, number)))
    sources: dict[bytes, ResourceLogs] = {}
    for source, log in stored_logs(db, bytes.fromhex(trace_id)):
        if source not in sources:
            sources[source] = ResourceLogs.FromString(source)
        sources[source].scope_logs[0].log_records.append(log)
    if not sources:
        return document
    logs = json_format.MessageToDict(
        ExportLogsServiceRequest(resource_logs=sources.values()), use_integers_for_enums=True
    )
    for log in (r for s in logs["resourceLogs"] for r in s["scopeLogs"][0]["logRecords"]):
        for field in ("traceId", "spanId"):
            if field in log:
                log[field] = base64.b64decode(log[field]).hex()
    return document | logs
