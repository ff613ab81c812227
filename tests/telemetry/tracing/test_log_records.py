"""Log records of the standard library are recorded, and logging itself is unchanged."""

import io
import logging
import logging.config
from collections.abc import Callable, Iterator
from contextvars import copy_context
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from telemetry.config.settings import Logs
from telemetry.tracing.log_records import record_logs
from telemetry.tracing.logs import unrecorded
from telemetry.tracing.record import RecordedLog, pack, unpack_log

Start = Callable[..., list[RecordedLog]]

SHOP = logging.getLogger("shop.orders")


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Record with the given settings. The list has each record, packed and unpacked."""
    monkeypatch.setattr(logging.Logger, "callHandlers", logging.Logger.callHandlers)
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    SHOP.setLevel(logging.DEBUG)

    def start(**settings: Any) -> list[RecordedLog]:
        recorded: list[RecordedLog] = []
        record_logs(lambda log: recorded.append(unpack_log(pack(log))), Logs(**settings))
        return recorded

    yield start
    root.setLevel(level)
    root.handlers = handlers
    SHOP.handlers.clear()
    SHOP.propagate = True


@pytest.fixture
def output() -> io.StringIO:
    """The output of a handler of the application."""
    SHOP.addHandler(handler := logging.StreamHandler(io.StringIO()))
    stream: io.StringIO = handler.stream
    return stream


@pytest.fixture
def lone() -> logging.Logger:
    """A logger with one handler, to which pytest adds none of its own."""
    lone = logging.Logger("lone")
    lone.addHandler(logging.StreamHandler(io.StringIO()))
    return lone


def test_a_record_in_a_span(start: Start) -> None:
    recorded = start()
    context = SpanContext(1, 2, False, TraceFlags(1))
    with trace.use_span(NonRecordingSpan(context)):
        SHOP.warning("order %d", 7)
    (log,) = recorded
    assert (log.trace_id, log.span_id, log.flags) == (bytes(15) + b"\x01", 2, 1)
    assert (log.body, log.logger, log.level, log.level_name) == (
        *("order 7", "shop.orders", 30, "WARNING"),
    )
    assert (log.path, log.function) == (__file__, "test_a_record_in_a_span")
    assert log.line


def test_a_second_call_changes_nothing(start: Start) -> None:
    recorded = start()
    assert start() == []
    SHOP.info("once")
    assert len(recorded) == 1


class TestExtra:
    def test_plain_values_are_attributes(self, start: Start, output: io.StringIO) -> None:
        recorded = start()
        given = {"b": True, "i": 1, "f": 0.5, "s": "text", "d": {}, "o": object(), "l": [1]}
        SHOP.info("a line", extra=given)
        assert recorded[0].attributes == {"b": True, "i": 1, "f": 0.5, "s": "text"}

    def test_secrets_are_left_out(self, start: Start) -> None:
        recorded = start()
        SHOP.info("a line", extra={"password": "x", "url": "http://u:p@h/?a=b"})
        assert recorded[0].attributes == {"url": "http://***@h/?***"}

    def test_what_a_formatter_adds_is_none_of_it(self, start: Start, output: io.StringIO) -> None:
        class Adding(logging.Formatter):
            def format(self, record: logging.LogRecord) -> str:
                record.color = "red"
                return super().format(record)

        recorded = start()
        SHOP.handlers[0].setFormatter(Adding("%(asctime)s %(message)s"))
        SHOP.info("a line")
        assert recorded[0].attributes is None

    def test_odd_values_are_sent_as_text(
        self, start: Start, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(SHOP, "propagate", False)  # pytest's own handler cannot encode them
        recorded = start()
        SHOP.info("half \ud800", extra={"large": 1 << 70, "half": "\ud800", "\ud800": 1})
        assert recorded[0].body == "half ?"
        assert recorded[0].attributes == {"large": str(1 << 70), "half": "?", "?": 1}

    def test_their_number_is_bounded(self, start: Start) -> None:
        recorded = start(max_attributes=2)
        SHOP.info("a line", extra={"a": 1, "b": 2, "c": 3})
        assert (recorded[0].attributes, recorded[0].dropped_attributes) == ({"a": 1, "b": 2}, 1)


class TestExceptions:
    def test_class_message_and_traceback(self, start: Start) -> None:
        recorded = start()
        try:
            raise LookupError("no http://u:p@h/?a=b")
        except LookupError:
            SHOP.exception("failed")
        exception = recorded[0].exception
        assert exception is not None
        assert (exception.type, exception.message) == ("LookupError", "no http://***@h/?***")
        assert exception.stacktrace.startswith("Traceback (most recent call last):\n")
        assert exception.stacktrace.endswith("LookupError: no http://***@h/?***\n")
        assert __file__ in exception.stacktrace

    def test_none_is_there(self, start: Start) -> None:
        recorded = start()
        SHOP.error("no exception", exc_info=True)
        assert recorded[0].exception is None

    def test_the_stack_of_a_call(self, start: Start) -> None:
        recorded = start()
        SHOP.info("here", stack_info=True)
        assert "test_the_stack_of_a_call" in str(recorded[0].stack)


class TestBounds:
    def test_texts_are_cut(self, start: Start) -> None:
        recorded = start(max_length=20)
        try:
            raise LookupError("e" * 100)
        except LookupError:
            SHOP.exception("b" * 100, extra={"a": "a" * 100})
        (log,) = recorded
        assert log.body == "b" * 20
        assert log.attributes == {"a": "a" * 20}
        assert log.exception is not None
        assert log.exception.message == "e" * 20
        assert log.exception.stacktrace == "e" * 19 + "\n"  # its end

    def test_a_secret_at_the_cut_is_masked(self, start: Start) -> None:
        recorded = start(max_length=20)
        SHOP.info("at redis://user:secret-password@host")
        assert recorded[0].body == "at redis://***@host"


class TestWhichRecords:
    def test_the_level(self, start: Start) -> None:
        recorded = start(level=logging.WARNING)
        SHOP.info("a line")
        SHOP.warning("another")
        assert [log.body for log in recorded] == ["another"]

    def test_the_levels_of_the_loggers(self, start: Start) -> None:
        recorded = start(level=logging.DEBUG)
        SHOP.setLevel(logging.ERROR)
        SHOP.warning("a line")
        assert not recorded

    def test_the_loggers_that_are_named(self, start: Start) -> None:
        recorded = start(loggers=("shop",))
        for name in ("shop", "shop.orders", "shopping", "other"):
            logging.getLogger(name).error(name)
        assert [log.body for log in recorded] == ["shop", "shop.orders"]

    def test_none_of_the_librarys_own(self, start: Start) -> None:
        recorded = start()
        logging.getLogger("telemetry").error("a line")
        logging.getLogger("telemetry.export").error("a line")
        assert not recorded

    def test_none_of_an_export(self, start: Start) -> None:
        recorded = start()

        def export() -> None:
            unrecorded.set(True)
            SHOP.error("POST /v1/logs")

        copy_context().run(export)
        assert not recorded

    def test_a_filter_of_the_logger_holds(self, start: Start) -> None:
        recorded = start()

        def refuse(record: logging.LogRecord) -> bool:
            return False

        SHOP.addFilter(refuse)
        SHOP.error("a line")
        SHOP.removeFilter(refuse)
        assert not recorded

    def test_a_logger_that_does_not_propagate(self, start: Start) -> None:
        recorded = start()
        SHOP.propagate = False
        SHOP.info("a line")
        assert len(recorded) == 1


class TestTheApplication:
    def test_each_message_and_traceback_is_formatted_once(
        self, start: Start, lone: logging.Logger, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Argument:
            formatted = 0

            def __str__(self) -> str:
                Argument.formatted += 1
                return "an argument"

        def format_exception(*_: Any) -> Any:
            raise AssertionError("the handler's is there")

        recorded = start()
        try:
            raise LookupError("nothing")
        except LookupError:
            monkeypatch.setattr("traceback.format_exception", format_exception)
            lone.exception("%s", Argument())
        assert Argument.formatted == 1
        assert recorded[0].body == "an argument"
        assert recorded[0].exception is not None
        (handler,) = lone.handlers
        assert isinstance(handler, logging.StreamHandler)
        assert handler.stream.getvalue() == "an argument\n" + recorded[0].exception.stacktrace

    def test_what_a_filter_of_a_handler_removes_is_not_sent(
        self, start: Start, output: io.StringIO
    ) -> None:
        def redact(record: logging.LogRecord) -> bool:
            record.msg, record.args = "redacted", None
            return True

        recorded = start()
        SHOP.handlers[0].addFilter(redact)
        SHOP.info("card %s", "4111")
        assert recorded[0].body == "redacted"

    def test_arguments_that_do_not_fit_are_said_as_before(
        self, start: Start, lone: logging.Logger, capsys: pytest.CaptureFixture[str]
    ) -> None:
        recorded = start()
        lone.info("%d of %d", 1)
        assert "--- Logging error ---" in capsys.readouterr().err
        assert recorded[0].body == "%d of %d"

    def test_a_message_that_is_an_object(self, start: Start, output: io.StringIO) -> None:
        recorded = start()
        SHOP.info({"event": "paid"})
        assert recorded[0].body == str({"event": "paid"})

    def test_a_handler_that_raises_raises(self, start: Start, output: io.StringIO) -> None:
        def broken(record: logging.LogRecord) -> None:
            raise KeyError("a handler")

        recorded = start()
        SHOP.handlers[0].emit = broken  # type: ignore[method-assign]
        with pytest.raises(KeyError):
            SHOP.info("a line")
        assert len(recorded) == 1

    def test_basic_config_adds_its_handler(self, start: Start) -> None:
        root = logging.getLogger()
        root.handlers = []
        recorded = start()
        logging.basicConfig(stream=(stream := io.StringIO()), format="%(message)s")
        SHOP.warning("a line")
        assert stream.getvalue() == "a line\n"
        assert len(recorded) == 1

    def test_dict_config_replaces_all_handlers(self, start: Start) -> None:
        recorded = start()
        logging.config.dictConfig(
            {"version": 1, "disable_existing_loggers": False, "root": {"handlers": []}}
        )
        SHOP.warning("a line")
        assert len(recorded) == 1

    def test_caplog_has_its_records(self, start: Start, caplog: pytest.LogCaptureFixture) -> None:
        recorded = start()
        SHOP.warning("a line")
        assert caplog.messages == [recorded[0].body]

    def test_a_record_that_cannot_be_written_breaks_no_line(
        self,
        start: Start,
        output: io.StringIO,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        def broken(log: RecordedLog) -> None:
            raise OSError("no disk")

        record_logs(broken, Logs())
        SHOP.info("a line")
        assert output.getvalue() == "a line\n"
        assert "tracing could not record a log line" in caplog.text
