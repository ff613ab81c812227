"""Log correlation: every log record has the ids of the trace and the span that are current."""

import logging
from typing import Any

from opentelemetry import trace

__all__ = ["correlate_logs"]


class _RecordFactory:
    """Adds ``trace_id`` and ``span_id`` to the records of another factory."""

    def __init__(self, make: Any) -> None:
        self._make = make

    def __call__(self, *args: Any, **kwargs: Any) -> logging.LogRecord:
        record: logging.LogRecord = self._make(*args, **kwargs)
        span_context = trace.get_current_span().get_span_context()
        record.trace_id = f"{span_context.trace_id:032x}"
        record.span_id = f"{span_context.span_id:016x}"
        return record


def correlate_logs() -> None:
    """Add ``trace_id`` and ``span_id`` to every log record: hexadecimal, zeros outside a span.

    A format uses them as ``%(trace_id)s`` and ``%(span_id)s``. A record factory that was set
    before stays in use. A second call changes nothing.
    """
    current = logging.getLogRecordFactory()
    if not isinstance(current, _RecordFactory):
        logging.setLogRecordFactory(_RecordFactory(current))
