"""Log records have the ids of the trace and of the span in which they are made."""

import io
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext

from telemetry.tracing.logs import correlate_logs

TRACE, SPAN = f"{1:032x}", f"{2:016x}"
FORMAT = "%(trace_id)s %(span_id)s %(message)s"


@pytest.fixture(autouse=True)
def correlated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.Handler, "handle", logging.Handler.handle)
    correlate_logs()


@pytest.fixture(autouse=True)
def record_factory() -> Iterator[None]:
    before = logging.getLogRecordFactory()
    logging.setLogRecordFactory(logging.LogRecord)
    yield
    logging.setLogRecordFactory(before)


@pytest.fixture
def logger() -> logging.Logger:
    logger = logging.Logger("application")
    logger.addHandler(handler := logging.StreamHandler(io.StringIO()))
    handler.setFormatter(logging.Formatter(FORMAT))
    return logger


def written(logger: logging.Logger) -> str:
    (handler,) = logger.handlers
    assert isinstance(handler, logging.StreamHandler)
    text: str = handler.stream.getvalue()
    return text.rstrip("\n")


@pytest.fixture
def current() -> Iterator[None]:
    with trace.use_span(NonRecordingSpan(SpanContext(1, 2, False))):
        yield


@pytest.mark.usefixtures("current")
def test_a_record_has_the_ids_of_the_current_span(logger: logging.Logger) -> None:
    logger.warning("a line")
    assert written(logger) == f"{TRACE} {SPAN} a line"


def test_outside_a_span_they_are_zeros(logger: logging.Logger) -> None:
    logger.warning("a line")
    assert written(logger) == f"{'0' * 32} {'0' * 16} a line"


def test_a_second_call_changes_nothing() -> None:
    method = logging.Handler.handle
    correlate_logs()
    assert logging.Handler.handle is method


@pytest.mark.usefixtures("current")
class TestNamesOfTheApplication:
    def test_in_extra(self, logger: logging.Logger) -> None:
        logger.warning("paid", extra={"span_id": "r-1"})
        assert written(logger) == f"{TRACE} r-1 paid"

    def test_in_an_adapter(self, logger: logging.Logger) -> None:
        logging.LoggerAdapter(logger, {"trace_id": "r-1"}).warning("paid")
        assert written(logger) == f"r-1 {SPAN} paid"

    def test_in_a_filter_that_sets_what_is_missing(self, logger: logging.Logger) -> None:
        def number(record: Any) -> bool:
            if not hasattr(record, "trace_id"):
                record.trace_id = "r-1"
            return True

        logger.addFilter(number)
        logger.warning("paid")
        assert written(logger) == f"r-1 {SPAN} paid"

    def test_in_a_message_that_is_a_dict(self, logger: logging.Logger) -> None:
        written_records: list[Any] = []
        logger.handlers[0].emit = written_records.append  # type: ignore[method-assign]
        logger.warning({"trace_id": "r-1"})
        (record,) = written_records
        assert not hasattr(record, "trace_id")
        assert record.span_id == SPAN

    @pytest.mark.parametrize("base", ["the factory before", "LogRecord"])
    def test_in_a_record_factory(self, logger: logging.Logger, base: str) -> None:
        make: Any = logging.LogRecord if base == "LogRecord" else logging.getLogRecordFactory()

        def factory(*args: Any, **kwargs: Any) -> logging.LogRecord:
            record: Any = make(*args, **kwargs)
            record.trace_id = "r-1"
            return record  # type: ignore[no-any-return]

        logging.setLogRecordFactory(factory)
        correlate_logs()
        logger.warning("paid")
        assert written(logger) == f"r-1 {SPAN} paid"

    @pytest.mark.parametrize("given", ["r-1", property(lambda record: "r-1")])
    def test_in_a_class_of_records(self, logger: logging.Logger, given: Any) -> None:
        logging.setLogRecordFactory(type("Record", (logging.LogRecord,), {"trace_id": given}))
        logger.warning("paid")
        assert written(logger) == f"r-1 {SPAN} paid"


@pytest.mark.usefixtures("current")
@pytest.mark.parametrize("by", ["logger", "handler"])
def test_a_record_that_others_made_has_the_ids_too(logger: logging.Logger, by: str) -> None:
    record = logging.LogRecord("other", logging.INFO, "", 0, "a line", (), None)
    (logger if by == "logger" else logger.handlers[0]).handle(record)
    assert written(logger) == f"{TRACE} {SPAN} a line"


def test_a_span_that_raises_breaks_no_line(
    logger: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> Any:
        raise RuntimeError("no span")

    monkeypatch.setattr(trace, "get_current_span", broken)
    logger.handlers[0].setFormatter(logging.Formatter("%(message)s"))
    logger.warning("a line")
    assert written(logger) == "a line"
