"""Decode OTLP exports of logs: each log record as a plain Python object."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.logs.v1 import logs_pb2
from opentelemetry.semconv.attributes.service_attributes import SERVICE_NAME

from .decode import decode_attributes, decode_value

__all__ = ["ReceivedLog", "decode_log", "decode_logs"]

Attributes = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ReceivedLog:
    """A log record. Ids are lower-case hex, empty outside a span; the time is Unix nanoseconds.

    *severity* is the ``SeverityNumber``, 0 where there is none, and *level* its text.
    """

    trace_id: str
    span_id: str
    time_ns: int
    severity: int
    level: str
    body: Any
    attributes: Attributes
    scope: str
    resource: Attributes
    flags: int = 0
    dropped: int = 0

    @property
    def service(self) -> str:
        """The name of its service."""
        return str(self.resource.get(SERVICE_NAME, ""))

    @property
    def text(self) -> str:
        """The body as text: as JSON, where it is no string."""
        if isinstance(self.body, str):
            return self.body
        return "" if self.body is None else json.dumps(self.body, default=repr)


def decode_logs(request: ExportLogsServiceRequest) -> list[ReceivedLog]:
    """Return the log records of an OTLP export, in its order."""
    logs = []
    for resource_logs in request.resource_logs:
        resource = decode_attributes(resource_logs.resource.attributes)
        for scope_logs in resource_logs.scope_logs:
            scope = scope_logs.scope.name
            logs += [decode_log(log, resource, scope) for log in scope_logs.log_records]
    return logs


def decode_log(
    log: logs_pb2.LogRecord, resource: Attributes, scope: str, time_ns: int = 0
) -> ReceivedLog:
    """Return one log record of an export in plain Python. *time_ns* is for one without a time."""
    return ReceivedLog(
        # Outside a span, SDKs send ids of zeros.
        trace_id=log.trace_id.hex() if any(log.trace_id) else "",
        span_id=log.span_id.hex() if any(log.span_id) else "",
        time_ns=log.time_unix_nano or log.observed_time_unix_nano or time_ns,
        severity=log.severity_number,
        level=log.severity_text,
        body=decode_value(log.body),
        attributes=decode_attributes(log.attributes),
        scope=scope,
        resource=resource,
        flags=log.flags,
        dropped=log.dropped_attributes_count,
    )
