"""Record what the application logs, with the ids of the trace in which it logs.

No handler is added to any logger. A handler on the root logger would make ``logging.basicConfig``
do nothing, would be removed by Celery, and would not see the records of tasks, whose logger does
not propagate. Each logger calls ``Logger.callHandlers`` once for a record that it does not filter
out, whatever its handlers are.
"""

import logging
import sys
import traceback
from collections.abc import Callable, Iterable
from functools import lru_cache, wraps
from typing import Any

from ..config.settings import Logs
from .context import get_current, parent_in
from .faults import is_soft_time_limit, log_internal_error
from .interrupts import uninterrupted
from .logs import unrecorded
from .masking import is_secret_name, mask
from .record import RecordedException, RecordedLog
from .span import error_type, exception_message

#: Marks the wrapped method, so that it is wrapped once.
_MARK = "queuehop_recorded"

#: The attributes of every record, and what a formatter adds. All others come from ``extra``.
_STANDARD = vars(logging.makeLogRecord({})).keys() | {"message", "asctime", "taskName"}

#: The loggers of this library, whatever the package is called where it is installed.
_OWN = ("telemetry", __package__.rpartition(".")[0])

#: The modules of Celery that log that a message was received and that a task succeeded.
_OF_CELERY = frozenset({"celery.worker.strategy", "celery.app.trace"})

#: Characters that masking may remove before the end of a text is cut off.
_MARGIN = 512

_PLAIN = frozenset({str, int, float, bool})
_INT64 = 1 << 63


def record_logs(append: Callable[[RecordedLog], None], settings: Logs) -> None:
    """Call *append* with each record that a logger passes to its handlers, if *settings* select it.

    A second call changes nothing.
    """
    call_handlers: Any = logging.Logger.callHandlers
    if hasattr(call_handlers, _MARK):
        return
    recorder = LogRecorder(append, settings)

    @wraps(call_handlers)
    def call_handlers_and_record(logger: logging.Logger, record: logging.LogRecord) -> Any:
        if not recorder.wants(record):
            return call_handlers(logger, record)
        extra = vars(record).keys() - _STANDARD
        try:
            return call_handlers(logger, record)
        finally:
            # A handler may have formatted the message by now, and a filter redacted it.
            recorder.record(record, extra)

    setattr(call_handlers_and_record, _MARK, True)
    logging.Logger.callHandlers = call_handlers_and_record  # type: ignore[assignment, method-assign]


class LogRecorder:
    """Makes a ``RecordedLog`` of each record of the standard library's that is wanted."""

    def __init__(self, append: Callable[[RecordedLog], None], settings: Logs) -> None:
        self._append = append
        self._settings = settings
        self._wants_logger = lru_cache(maxsize=4096)(self._is_wanted)

    def wants(self, record: logging.LogRecord) -> bool:
        """Return whether *record* is to be sent."""
        name, settings = record.name, self._settings
        if record.levelno < settings.level or unrecorded.get() or not self._wants_logger(name):
            return False
        return settings.celery or name not in _OF_CELERY or not _is_of_a_run(record)

    def _is_wanted(self, name: str) -> bool:
        loggers = self._settings.loggers
        if _is_below(name, _OWN):
            return False
        return not loggers or "root" in loggers or _is_below(name, loggers)

    @uninterrupted  # traceback and the text of an object may swallow what is raised
    def record(self, record: logging.LogRecord, extra: Iterable[str]) -> None:
        """Append *record*, with those of its attributes that *extra* names."""
        try:
            self._append(self._recorded(record, extra))
        except Exception:
            log_internal_error("record a log line")

    def _recorded(self, record: logging.LogRecord, extra: Iterable[str]) -> RecordedLog:
        parent = parent_in(get_current())
        log = RecordedLog(
            int(record.created * 1e9),
            str(record.name),
            record.levelno,
            str(record.levelname),
            self._cut(_message(record)),
            str(record.pathname),
            str(record.funcName),
            record.lineno if type(record.lineno) is int else 0,
        )
        if parent is not None:
            log.trace_id, log.span_id, log.flags = parent.trace_id, parent.span_id, parent.flags
        exc_info = record.exc_info
        if exc_info and exc_info[1] is not None:
            log.exception = self._exception(record, exc_info[1])
        if record.stack_info:
            log.stack = self._cut(str(record.stack_info))
        if extra:
            self._add_attributes(log, vars(record), extra)
        return log

    def _exception(self, record: logging.LogRecord, exc: BaseException) -> RecordedException:
        stacktrace = record.exc_text  # a formatter's, if it made one
        if type(stacktrace) is str and stacktrace.startswith("Traceback "):
            stacktrace += "\n"  # which formatters cut off
        else:
            stacktrace = "".join(traceback.format_exception(exc))
        # The end of it is where the exception was raised.
        length = self._settings.max_length
        stacktrace = mask(stacktrace[-length - _MARGIN :])[-length:]
        message = self._cut(exception_message(exc))
        return RecordedException(error_type(exc), message, stacktrace)

    def _add_attributes(
        self, log: RecordedLog, fields: dict[str, Any], extra: Iterable[str]
    ) -> None:
        attributes: dict[str, Any] = {}
        most = self._settings.max_attributes
        # In the order in which the application gave them.
        for name in [name for name in fields if name in extra]:
            value = fields[name]
            kind = type(value)
            if kind not in _PLAIN or type(name) is not str or is_secret_name(name):
                continue
            if most is not None and len(attributes) >= most:
                log.dropped_attributes += 1
                continue
            if kind is str:
                value = self._cut(value)
            elif kind is int and not -_INT64 <= value < _INT64:
                value = str(value)
            attributes[name] = value
        log.attributes = attributes or None

    def _cut(self, text: str) -> str:
        """Return *text* without secrets, at most as long as it may be."""
        length = self._settings.max_length
        if len(text) > length:
            return mask(text[: length + _MARGIN])[:length]
        return mask(text)


def _is_below(name: str, loggers: Iterable[str]) -> bool:
    return any(name == each or name.startswith(f"{each}.") for each in loggers)


def _is_of_a_run(record: logging.LogRecord) -> bool:
    """Return whether *record* is one of Celery's own lines that a span replaces."""
    celery = sys.modules.get("celery.app.trace")
    return celery is not None and record.msg in (celery.LOG_RECEIVED, celery.LOG_SUCCESS)


def _message(record: logging.LogRecord) -> str:
    """Return the message of *record*, as a formatter has formatted it, if one has."""
    message: Any = vars(record).get("message")
    if type(message) is str and message:
        return message
    try:
        return str(record.getMessage())
    except Exception as exc:  # arguments that do not fit: logging itself has printed that
        if is_soft_time_limit(exc):
            raise
        return str(record.msg)
