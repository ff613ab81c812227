"""Decode OTLP exports of logs: each log record as a plain Python object."""

import json
from dataclasses import dataclass
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.semconv.attributes.service_attributes import SERVICE_NAME

from .decode import Attributes, decode_attributes, decode_items, decode_value

__all__ = ["ReceivedLog", "decode_log", "decode_logs"]


@dataclass(frozen=True, slots=True)
class ReceivedLog:
    """A log record. Its time is Unix nanoseconds; ids are lower-case hex, empty outside a span.

    *severity* is the ``SeverityNumber``, 0 if there is none, and *level* is its text.
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
        """The body as text. A body that is not a string is converted to JSON."""
        if isinstance(self.body, str):
            return self.body
        return "" if self.body is None else json.dumps(self.body, default=repr)


def decode_logs(export: ExportLogsServiceRequest) -> list[ReceivedLog]:
    """Return the log records of an OTLP export, in its order."""
    return decode_items(export, decode_log)


def decode_log(log: LogRecord, resource: Attributes, scope: str, time_ns: int = 0) -> ReceivedLog:
    """Return one log record of an export in plain Python.

    *time_ns* is the time of a log record that has none.
    """
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
