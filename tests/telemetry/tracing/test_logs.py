"""Log records know the trace and the span that they are written in."""

import logging
from collections.abc import Iterator

import pytest
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext

from telemetry.tracing.logs import correlate_logs


@pytest.fixture(autouse=True)
def record_factory() -> Iterator[None]:
    before = logging.getLogRecordFactory()
    logging.setLogRecordFactory(logging.LogRecord)
    correlate_logs()
    yield
    logging.setLogRecordFactory(before)


def ids(caplog: pytest.LogCaptureFixture) -> tuple[str, str]:
    caplog.clear()
    logging.getLogger("application").warning("a line")
    (record,) = caplog.records
    return record.trace_id, record.span_id  # type: ignore[attr-defined]


def test_a_record_has_the_ids_of_the_current_span(caplog: pytest.LogCaptureFixture) -> None:
    with trace.use_span(NonRecordingSpan(SpanContext(1, 2, False))):
        assert ids(caplog) == (f"{1:032x}", f"{2:016x}")
    assert ids(caplog) == ("0" * 32, "0" * 16)


def test_a_second_call_changes_nothing() -> None:
    factory = logging.getLogRecordFactory()
    correlate_logs()
    assert logging.getLogRecordFactory() is factory
