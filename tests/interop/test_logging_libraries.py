"""Log correlation beside structlog, Loguru and python-json-logger keeps their values."""

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import loguru
import pytest
import structlog
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext
from pythonjsonlogger.json import JsonFormatter

from telemetry.tracing.logs import correlate_logs

#: The ids of the span that is current in these tests, as a format shows them.
TRACE_ID, SPAN_ID = f"{7:032x}", f"{8:016x}"
FORMAT = "%(trace_id)s %(span_id)s %(message)s"
OURS = f"{TRACE_ID} {SPAN_ID} paid"


@pytest.fixture(autouse=True)
def correlated() -> Iterator[None]:
    """Correlate logs, as ``telemetry.setup`` does, inside a span."""
    factory = logging.getLogRecordFactory()
    logging.setLogRecordFactory(logging.LogRecord)
    correlate_logs()
    with trace.use_span(NonRecordingSpan(SpanContext(7, 8, False))):
        yield
    logging.setLogRecordFactory(factory)


class Log:
    """A logger of the standard library with one handler, and the lines that it wrote."""

    def __init__(self, name: str) -> None:
        self._stream = io.StringIO()
        self.handler = logging.StreamHandler(self._stream)
        self.handler.setFormatter(logging.Formatter(FORMAT))
        self.logger = logging.getLogger(name)
        self.logger.setLevel(logging.INFO)
        self.logger.propagate = False
        self.logger.handlers = [self.handler]

    @property
    def lines(self) -> list[str]:
        return self._stream.getvalue().splitlines()

    @property
    def json(self) -> dict[str, Any]:
        """The last line, which is JSON."""
        found: dict[str, Any] = json.loads(self.lines[-1])
        return found


@pytest.fixture
def log(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Log]:
    # An error inside a handler must fail the test; logging prints it.
    def failed(handler: logging.Handler, record: logging.LogRecord) -> None:
        raise AssertionError(f"a handler failed at {vars(record)}")

    monkeypatch.setattr(logging.Handler, "handleError", failed)
    log = Log(f"interop.{request.node.name}")
    yield log
    log.logger.handlers = []


@pytest.fixture
def configured_structlog() -> Iterator[None]:
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def to_stdlib(*processors: Any) -> None:
    """Configure structlog to write through the standard library's logging."""
    structlog.configure(
        processors=[*processors],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
    )


@pytest.mark.usefixtures("configured_structlog")
class TestStructlog:
    @pytest.mark.interop(
        "structlog",
        "`render_to_log_kwargs`, with a bound `trace_id`",
        "no call raises; the bound value is written",
    )
    @pytest.mark.parametrize("name", ["trace_id", "span_id", "service_name"])
    def test_bound_names(self, log: Log, name: str) -> None:
        to_stdlib(structlog.stdlib.render_to_log_kwargs)
        log.handler.setFormatter(logging.Formatter(f"%({name})s %(message)s"))
        structlog.stdlib.get_logger(log.logger.name).bind(**{name: "mine"}).info("paid")
        assert log.lines == ["mine paid"]

    @pytest.mark.interop(
        "structlog",
        "`render_to_log_kwargs`, with nothing bound",
        "`%(trace_id)s` and `%(span_id)s` are the current span's",
    )
    def test_nothing_bound(self, log: Log) -> None:
        to_stdlib(structlog.stdlib.render_to_log_kwargs)
        structlog.stdlib.get_logger(log.logger.name).info("paid")
        assert log.lines == [OURS]

    @pytest.mark.interop(
        "structlog",
        "`merge_contextvars`, with `trace_id` in structlog's context variables",
        "no call raises; the bound value is written",
    )
    def test_context_variables(self, log: Log) -> None:
        to_stdlib(
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.filter_by_level,
            structlog.stdlib.add_log_level,
            structlog.stdlib.render_to_log_kwargs,
        )
        structlog.contextvars.bind_contextvars(trace_id="mine")
        structlog.stdlib.get_logger(log.logger.name).info("paid")
        assert log.lines == [f"mine {SPAN_ID} paid"]

    @pytest.mark.interop(
        "structlog",
        "`ProcessorFormatter`, with a bound `trace_id`",
        "no call raises; the bound value is written",
    )
    def test_processor_formatter(self, log: Log) -> None:
        to_stdlib(structlog.stdlib.ProcessorFormatter.wrap_for_formatter)
        log.handler.setFormatter(self._json_formatter())
        structlog.stdlib.get_logger(log.logger.name).bind(trace_id="mine").info("paid")
        assert log.json == {"event": "paid", "trace_id": "mine"}

    @pytest.mark.interop(
        "structlog",
        "`ProcessorFormatter` with `ExtraAdder`, for records of the standard library",
        "the ids are the current span's; those in `extra` win",
    )
    def test_records_of_others(self, log: Log) -> None:
        to_stdlib(structlog.stdlib.ProcessorFormatter.wrap_for_formatter)
        log.handler.setFormatter(self._json_formatter(structlog.stdlib.ExtraAdder()))
        log.logger.info("paid")
        assert log.json == {"event": "paid", "trace_id": TRACE_ID, "span_id": SPAN_ID}
        log.logger.info("paid", extra={"trace_id": "mine"})
        assert log.json == {"event": "paid", "trace_id": "mine", "span_id": SPAN_ID}

    @staticmethod
    def _json_formatter(*foreign: Any) -> logging.Formatter:
        return structlog.stdlib.ProcessorFormatter(
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
            foreign_pre_chain=list(foreign),
        )


@pytest.fixture
def loguru_logger() -> Iterator[Any]:
    """Loguru's logger without a sink; it has a sink on stderr from the start."""
    loguru.logger.remove()
    yield loguru.logger
    loguru.logger.remove()


class _Intercept(logging.Handler):
    """The handler of Loguru's documentation that passes records on to Loguru."""

    def emit(self, record: logging.LogRecord) -> None:
        ids = {name: getattr(record, name) for name in ("trace_id", "span_id")}
        logger = loguru.logger.opt(depth=6, exception=record.exc_info).bind(**ids)
        logger.log(record.levelname, record.getMessage())


class _Propagate(logging.Handler):
    """The handler of Loguru's documentation that passes records on to the standard library."""

    def __init__(self, logger: logging.Logger) -> None:
        super().__init__()
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        self._logger.handle(record)


class TestLoguru:
    @pytest.mark.interop(
        "loguru",
        "an intercept handler, from `logging` to Loguru",
        "the ids are the current span's; those in `extra` win",
    )
    def test_intercept(self, log: Log, loguru_logger: Any) -> None:
        lines: list[str] = []
        log.logger.handlers = [_Intercept()]
        loguru_logger.add(lines.append, format="{extra[trace_id]} {extra[span_id]} {message}")
        log.logger.info("paid")
        log.logger.info("paid", extra={"trace_id": "mine"})
        assert lines == [f"{OURS}\n", f"mine {SPAN_ID} paid\n"]

    @pytest.mark.interop(
        "loguru",
        "a propagate handler, from Loguru to `logging`",
        "`%(trace_id)s` is the current span's; no call raises whatever is bound",
    )
    def test_propagate(self, log: Log, loguru_logger: Any) -> None:
        loguru_logger.add(_Propagate(log.logger), format="{message}")
        loguru_logger.info("paid")
        assert log.lines == [OURS]
        loguru_logger.bind(trace_id="mine").info("paid")
        assert len(log.lines) == 2

    @pytest.mark.interop(
        "loguru",
        "a handler of the standard library as a sink, with `%(trace_id)s` in its format",
        "the ids are the current span's",
    )
    def test_handler_as_a_sink(self, log: Log, loguru_logger: Any) -> None:
        loguru_logger.add(log.handler, format="{message}", catch=False)
        loguru_logger.info("paid")
        assert log.lines == [OURS]


class TestPythonJsonLogger:
    @pytest.mark.interop(
        "python-json-logger",
        "`JsonFormatter`, with `trace_id` in `extra`",
        "no call raises; the application's value is written",
    )
    def test_extra(self, log: Log) -> None:
        log.handler.setFormatter(JsonFormatter())
        log.logger.info("paid", extra={"trace_id": "mine"})
        assert log.json == {"message": "paid", "trace_id": "mine", "span_id": SPAN_ID}

    @pytest.mark.interop(
        "python-json-logger",
        "`JsonFormatter`, with a message that is a dict with `trace_id`",
        "the application's value is written",
    )
    def test_message_that_is_a_dict(self, log: Log) -> None:
        log.handler.setFormatter(JsonFormatter())
        log.logger.info({"message": "paid", "trace_id": "mine"})
        assert log.json["trace_id"] == "mine"

    @pytest.mark.interop(
        "python-json-logger",
        "`JsonFormatter` with `%(trace_id)s` in its format",
        "the ids are the current span's",
    )
    def test_ids_are_written(self, log: Log) -> None:
        log.handler.setFormatter(JsonFormatter(FORMAT))
        log.logger.info("paid")
        assert log.json == {"message": "paid", "trace_id": TRACE_ID, "span_id": SPAN_ID}

    @pytest.mark.interop(
        "python-json-logger",
        "`JsonFormatter` and a `LoggerAdapter` with a `trace_id`",
        "no call raises; the application's value is written",
    )
    def test_logger_adapter(self, log: Log) -> None:
        log.handler.setFormatter(JsonFormatter())
        logging.LoggerAdapter(log.logger, {"trace_id": "mine"}).info("paid")
        assert log.json["trace_id"] == "mine"


class _Record(logging.LogRecord):
    """A record that an application makes, with a name of ours."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.trace_id = "mine"


@pytest.mark.parametrize("theirs_first", [True, False])
class TestRecordFactories:
    """An application's own record factory, set before or after ours."""

    def test_its_ids_win(self, log: Log, theirs_first: bool) -> None:
        logging.setLogRecordFactory(_Record)
        if theirs_first:
            correlate_logs()
        log.logger.info("paid")
        assert log.lines == [f"mine {SPAN_ID} paid"]

    def test_ours_are_there_where_it_sets_none(self, log: Log, theirs_first: bool) -> None:
        logging.setLogRecordFactory(logging.LogRecord)
        if theirs_first:
            correlate_logs()
        log.logger.info("paid")
        log.logger.handle(logging.makeLogRecord({"msg": "paid", "levelno": logging.INFO}))
        assert log.lines == [OURS, OURS]
