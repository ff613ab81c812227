"""Log correlation: every log record knows the trace and the span that it was written in."""

import logging
from typing import Any

from opentelemetry import trace

__all__ = ["correlate_logs"]


class _RecordFactory:
    """Adds ``trace_id`` and ``span_id`` to what the factory before it makes."""

    def __init__(self, make: Any) -> None:
        self._make = make

    def __call__(self, *args: Any, **kwargs: Any) -> logging.LogRecord:
        record: logging.LogRecord = self._make(*args, **kwargs)
        trace_id, span_id, *_ = trace.get_current_span().get_span_context()
        record.trace_id = f"{trace_id:032x}"
        record.span_id = f"{span_id:016x}"
        return record


def correlate_logs() -> None:
    """Give every log record ``trace_id`` and ``span_id``, hexadecimal, zeros outside a span.

    They are used in a format as ``%(trace_id)s`` and ``%(span_id)s``. Done once; a factory that
    was set before goes on working.
    """
    current = logging.getLogRecordFactory()
    if not isinstance(current, _RecordFactory):
        logging.setLogRecordFactory(_RecordFactory(current))
