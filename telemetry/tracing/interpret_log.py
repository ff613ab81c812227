"""From a log record to OTLP: the severity, and the attributes of the conventions.

Pure, as ``interpret`` is; the sender calls it.
"""

from typing import Any

from opentelemetry.semconv.attributes.code_attributes import (
    CODE_FILE_PATH,
    CODE_FUNCTION_NAME,
    CODE_LINE_NUMBER,
    CODE_STACKTRACE,
)
from opentelemetry.semconv.attributes.exception_attributes import (
    EXCEPTION_MESSAGE,
    EXCEPTION_STACKTRACE,
    EXCEPTION_TYPE,
)

from .record import RecordedLog

__all__ = ["log_attributes", "severity_number", "severity_text"]

#: The first ``SeverityNumber`` of each range, by the tens of a level: TRACE, DEBUG, … FATAL.
_RANGES = (1, 5, 9, 13, 17, 21)

_TEXTS = {"WARNING": "WARN", "CRITICAL": "FATAL"}


def severity_number(level: int) -> int:
    """Return the ``SeverityNumber`` of a *level* of logging, 0 where it has none."""
    if level <= 0:
        return 0
    tens, ones = divmod(level, 10)
    if tens >= len(_RANGES):
        return 24
    return _RANGES[tens] + min(ones, 3)


def severity_text(level_name: str) -> str:
    """Return the name of a level as the specification has it."""
    return _TEXTS.get(level_name, level_name)


def log_attributes(log: RecordedLog) -> dict[str, Any]:
    """Return the attributes of *log*: those of ``extra``, and where it is from."""
    attributes: dict[str, Any] = dict(log.attributes or {})
    attributes[CODE_FILE_PATH] = log.path
    attributes[CODE_FUNCTION_NAME] = log.function
    attributes[CODE_LINE_NUMBER] = log.line
    if log.stack:
        attributes[CODE_STACKTRACE] = log.stack
    if log.exception is not None:
        attributes[EXCEPTION_TYPE] = log.exception.type
        attributes[EXCEPTION_MESSAGE] = log.exception.message
        attributes[EXCEPTION_STACKTRACE] = log.exception.stacktrace
    return attributes
