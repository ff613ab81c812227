"""Log records are delivered as spans are: over gRPC and HTTP, from the disk and from memory."""

import pytest

from telemetry.otlp.decode import ReceivedLog

from .conftest import OF_SPANS, Collector, Program

pytestmark = OF_SPANS

HEAD = """
import logging

logging.basicConfig(level=logging.INFO, format="%(message)s")
logger = logging.getLogger("shop.orders")
"""

#: Ends the process without its exit handlers.
KILLED = "os.kill(os.getpid(), signal.SIGKILL)"

LOGS = {"OTEL_LOGS_EXPORTER": "otlp"}


def texts(logs: list[ReceivedLog]) -> list[str]:
    return [log.text for log in logs]


@pytest.mark.parametrize("spool", ["disk", "memory"])
def test_a_line_arrives_with_the_ids_of_its_span(
    program: Program, collector: Collector, spool: str
) -> None:
    collector.takes_logs = True
    collector.start()
    process = program.run(
        HEAD
        + """
with tracer.start_as_current_span("order") as span:
    logger.info("order %d", 7, extra={"items": 2})
    ids = span.get_span_context()
    print(f"{ids.trace_id:032x} {ids.span_id:016x}", flush=True)
logger.warning("outside")
assert telemetry.flush()
""",
        **LOGS,
        QUEUEHOP_SPOOL=spool,
    )
    inside, outside = collector.wait_for_logs(2)
    assert f"{inside.trace_id} {inside.span_id}" in process.output
    assert (inside.text, inside.level, inside.severity, inside.scope) == (
        *("order 7", "INFO", 9, "shop.orders"),
    )
    assert inside.attributes["items"] == 2
    assert inside.service == outside.service == f"program{program.number}"
    assert (outside.text, outside.level, outside.trace_id) == ("outside", "WARN", "")
    # The application's own handler has written them too, once each.
    assert process.output.count("order 7") == process.output.count("outside") == 1


def test_the_last_line_of_a_killed_process_arrives(program: Program, collector: Collector) -> None:
    collector.takes_logs = True
    program.run(
        HEAD + f"[logger.info('line %d', number) for number in range(700)]; {KILLED}",
        status=-9,
        **LOGS,
    )
    collector.start()
    program.run("spans(1)", **LOGS)
    assert texts(collector.wait_for_logs(700)) == [f"line {number}" for number in range(700)]


@pytest.mark.parametrize("spool", ["disk", "memory"])
def test_a_collector_without_logs_is_asked_once_and_gets_the_spans(
    program: Program, collector: Collector, spool: str
) -> None:
    collector.start()
    process = program.run(
        """
        import logging
        logger = logging.getLogger("shop")
        for part in range(3):
            spans(1, f"part{part}")
            logger.error("part %d", part)
            assert telemetry.flush()
        time.sleep(2.1)  # the sender's status is looked at every 2 seconds
        spans(1, "late")
        telemetry.flush()
        """,
        **LOGS,
        QUEUEHOP_SPOOL=spool,
    )
    collector.wait_for(4)
    (line,) = (line for line in process.output.splitlines() if line.startswith("dropped"))
    assert line.startswith("dropped 1 log records")
    assert "OTEL_LOGS_EXPORTER=none" in line


def test_logs_that_cannot_be_delivered_hold_up_no_span(
    program: Program, collector: Collector
) -> None:
    collector.start()
    process = program(
        HEAD + "logger.info('a line'); spans(3); telemetry.flush(); print('done'); input()",
        **LOGS,
        OTEL_EXPORTER_OTLP_LOGS_ENDPOINT="http://127.0.0.1:1/v1/logs",
    )
    collector.wait_for(3)
    process.wait_for_line("done")
    process.kill()


@pytest.mark.parametrize("exporter", [None, "none"])
def test_nothing_is_wrapped_and_nothing_loaded_where_logs_are_off(
    program: Program, collector: Collector, exporter: str | None
) -> None:
    collector.start()
    program.run(
        """
        import logging
        assert logging.Logger.callHandlers.__module__ == "logging"
        assert not logging.getLogger().handlers
        assert "telemetry.tracing.log_records" not in sys.modules
        """,
        OTEL_LOGS_EXPORTER=exporter,
    )


def test_the_export_of_logs_logs_nothing_that_is_exported(
    program: Program, collector: Collector
) -> None:
    """In memory mode urllib3 and gRPC are in this process, and log at DEBUG."""
    collector.takes_logs = True
    collector.start()
    program.run(
        """
        import logging
        logging.basicConfig(level=logging.DEBUG)
        for part in range(3):
            logging.getLogger("shop").debug("part %d", part)
            assert telemetry.flush()
        """,
        **LOGS,
        QUEUEHOP_SPOOL="memory",
        QUEUEHOP_LOGS_LEVEL="debug",
    )
    assert texts(collector.wait_for_logs(3)) == ["part 0", "part 1", "part 2"]
