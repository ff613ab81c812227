"""A collector that takes spans and refuses metrics: one log line, and no span waits for it."""

import re

import pytest

from .conftest import Answered, HttpCollector, Program, Request

#: Ends a span that is counted.
COUNTED = """
        import requests
        from telemetry.requests import traced_session

        session = traced_session()

        def get():
            try:
                session.get("http://127.0.0.1:1/")
            except requests.ConnectionError:
                pass
"""


@pytest.fixture
def program(program: Program, http_collector: HttpCollector) -> Program:
    program.endpoint, program.protocol = http_collector.endpoint, "http/protobuf"
    return program


def refuse_metrics(collector: HttpCollector, answer: Answered) -> None:
    respond = collector.respond

    def answered(request: Request) -> Answered:
        return answer if request.path == "/v1/metrics" else respond(request)

    collector.respond = answered  # type: ignore[method-assign]
    collector.start()


@pytest.mark.parametrize("spool", ["disk", "memory"])
def test_refused_metrics_are_one_line(
    program: Program, http_collector: HttpCollector, spool: str
) -> None:
    refuse_metrics(http_collector, Answered(400, b"no sums", {"Content-Type": "text/plain"}))
    process = program(
        COUNTED
        + """
        while True:
            get()
            telemetry.flush()
            time.sleep(0.1)
        """,
        QUEUEHOP_SPOOL=spool,
    )
    line = process.wait_for_line(" metrics: ")
    address = f"{http_collector.endpoint}/v1/metrics"
    assert re.search(rf"dropped \d+ metrics: {address} answers 400 Bad Request: no sums$", line)
    process.stop()


def test_a_flush_does_not_wait_for_the_time_that_metrics_are_asked_to_wait(
    program: Program, http_collector: HttpCollector
) -> None:
    refuse_metrics(http_collector, Answered(429, headers={"Retry-After": "300"}))
    program.run(
        COUNTED
        + """
        for _ in range(2):
            get()
            assert telemetry.flush(100)
        """
    )
    assert http_collector.names["GET"] == 2


def test_files_of_delivered_spans_are_removed_though_no_metrics_are_accepted(
    program: Program, http_collector: HttpCollector
) -> None:
    bound = 80 * 1024
    refuse_metrics(http_collector, Answered(403))
    program.run(
        COUNTED
        + f"""
        for number in range(30):
            get()
            with tracer.start_as_current_span(f"{{number}}") as span:
                span.set_attribute("large", "x" * {bound // 10})
            assert telemetry.flush(100)
        """,
        QUEUEHOP_SPOOL_MAX_BYTES=str(bound),
    )
    program.wait_for_sender_to_end()
    assert http_collector.wait_for(31)["GET"] == 30
    assert sum(path.stat().st_size for path in program.segments) <= 1.5 * bound
