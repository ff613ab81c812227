"""Measure what sending a log line costs the process that logs it: ``python -m bench.logs``.

A line with an argument is logged in a span to a handler that writes to nowhere: alone, with
``OTEL_LOGS_EXPORTER=otlp``, and with the SDK's handler, whose exporter here drops what it gets. The
figures are processor time of the whole process, so the SDK's batches count where its own thread
makes them. The sender, which encodes our lines, is a process of its own and is not counted. The SDK
has work left over: its exporter would encode each line in the application's process.
"""

import io
import logging
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler, ReadableLogRecord
from opentelemetry.sdk._logs.export import (
    BatchLogRecordProcessor,
    LogRecordExporter,
    LogRecordExportResult,
)

import telemetry

#: Lines that one figure covers, and the number of figures that make a median.
LINES, TIMES = 2_000, 25

logger = logging.getLogger("bench")


class Encoding(LogRecordExporter):
    """Encodes as the OTLP exporter does, and sends nothing."""

    def export(self, batch: Sequence[ReadableLogRecord]) -> LogRecordExportResult:
        encode_logs(batch).SerializeToString()
        return LogRecordExportResult.SUCCESS

    def shutdown(self) -> None:
        pass

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return True


def seconds(log: Callable[[], object], finish: Callable[[], object]) -> float:
    """Return the processor time of one line: the median of many figures."""
    figures = []
    for _ in range(TIMES):
        began = time.process_time()
        for _ in range(LINES):
            log()
        finish()
        figures.append((time.process_time() - began) / LINES)
    return statistics.median(figures)


def main() -> None:
    """Print a table."""
    os.environ.update(
        OTEL_LOGS_EXPORTER="otlp",
        OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1",  # the lines wait on disk
        QUEUEHOP_STATE_DIR=tempfile.mkdtemp(),
    )
    alone = logging.Logger.callHandlers
    telemetry.setup("bench")
    recording = logging.Logger.callHandlers
    logging.Logger.callHandlers = alone  # type: ignore[method-assign]
    handler = logging.StreamHandler(io.StringIO())
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False

    def line() -> None:
        logger.info("order %d is paid", 7)

    def error() -> None:
        try:
            raise LookupError("nothing there")
        except LookupError:
            logger.exception("order %d is not paid", 7)

    def nothing() -> None:
        handler.stream.seek(0)
        handler.stream.truncate()

    kinds = {"a line": line, "a line with `extra`": _with_extra, "an exception": error}
    with trace.get_tracer("bench").start_as_current_span("order"):
        bare = {name: seconds(log, nothing) for name, log in kinds.items()}
        provider = LoggerProvider()
        processor = BatchLogRecordProcessor(Encoding(), max_queue_size=4 * LINES)
        provider.add_log_record_processor(processor)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            sdk = LoggingHandler(logger_provider=provider)
        logger.addHandler(sdk)

        def finish() -> None:
            nothing()
            processor.force_flush()

        theirs = {name: seconds(log, finish) for name, log in kinds.items()}
        logger.removeHandler(sdk)
        provider.shutdown()
        logging.Logger.callHandlers = recording  # type: ignore[method-assign]
        ours = {name: seconds(log, nothing) for name, log in kinds.items()}
    print("| | logging alone | queuehop adds | the SDK's handler adds |\n|---|---|---|---|")
    for name in kinds:
        added = (f"{(each[name] - bare[name]) * 1e6:.1f} µs" for each in (ours, theirs))
        print(f"| {name} | {bare[name] * 1e6:.1f} µs | {' | '.join(added)} |")


def _with_extra() -> None:
    logger.info("order %d is paid", 7, extra={"order": 7, "customer": "a name"})


if __name__ == "__main__":
    main()
