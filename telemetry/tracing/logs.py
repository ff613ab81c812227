"""Log correlation: every log record has the ids of the trace and the span that are current."""

import logging
from collections.abc import Mapping
from contextvars import ContextVar
from functools import wraps
from typing import Any

from opentelemetry import trace

from .faults import log_internal_error

#: Marks the wrapped method, so that it is wrapped once.
_MARK = "queuehop_correlated"


def correlate_logs() -> None:
    """Give every log record ``trace_id`` and ``span_id``: hexadecimal, zeros outside a span.

    A format uses them as ``%(trace_id)s`` and ``%(span_id)s``. Names that the application sets in
    ``extra``, in a message that is a dict, in a filter of the logger, in a record factory or in a
    class of records keep its values. A second call changes nothing.
    """
    handle: Any = logging.Handler.handle
    if hasattr(handle, _MARK):
        return

    # A record factory runs too early: logging refuses an ``extra`` whose names it has set. Here,
    # the record has everything that the application adds, and its context is still current.
    @wraps(handle)
    def handle_with_ids(handler: logging.Handler, record: logging.LogRecord) -> Any:
        _add_ids(record)
        return handle(handler, record)

    setattr(handle_with_ids, _MARK, True)
    logging.Handler.handle = handle_with_ids  # type: ignore[assignment, method-assign]


def _add_ids(record: logging.LogRecord) -> None:
    try:
        fields = vars(record)
        if "trace_id" in fields and "span_id" in fields:  # set for another handler
            return
        message = record.msg
        given: Any = message if type(message) is not str and isinstance(message, Mapping) else ()
        span_context = trace.get_current_span().get_span_context()
        trace_id, span_id = f"{span_context.trace_id:032x}", f"{span_context.span_id:016x}"
        for name, value in (("trace_id", trace_id), ("span_id", span_id)):
            if name not in given and name not in fields:
                # A class of records may have one. A format looks only among the record's own.
                fields[name] = getattr(record, name, value)
    except Exception:  # a span of another library
        log_internal_error("add the ids of the trace to a log record")


#: Set in the thread that exports: an export whose log records are sent would never end.
unrecorded: ContextVar[bool] = ContextVar("queuehop-unrecorded", default=False)
