"""What was ended is delivered: to a collector that is away, slow, full, or picky."""

import os
import re
import threading
import time

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceResponse,
)

from telemetry.otlp.decode import ReceivedSpan

from .conftest import Collector, Program, take

#: Each of them over gRPC and over HTTP.
pytestmark = pytest.mark.parametrize("collector", ["grpc", "http/protobuf"], indirect=True)

#: Ends without any of the exits that a program may prepare for.
KILLED = "os.kill(os.getpid(), signal.SIGKILL)"


def once(names: dict[str, int]) -> bool:
    return set(names.values()) == {1}


def test_the_next_start_delivers_what_a_killed_process_has_ended(
    program: Program, collector: Collector
) -> None:
    program.run(f"spans(1000); {KILLED}", status=-9)
    collector.start()
    program.run("spans(1)")
    names = collector.wait_for(1001)
    assert len(names) == 1001
    assert once(names)


def test_a_killed_process_needs_no_next_start_where_the_collector_is_there(
    program: Program, collector: Collector
) -> None:
    collector.start()
    program.run(f"spans(700); {KILLED}", status=-9)
    assert once(collector.wait_for(700))


def test_a_collector_that_comes_back_gets_all(program: Program, collector: Collector) -> None:
    process = program("spans(300); print('ended', flush=True); input()")
    process.wait_for_line("ended")
    collector.start()
    assert once(collector.wait_for(300))
    assert process.stop() == -15


def test_a_collector_that_goes_and_comes_loses_nothing(
    program: Program, collector: Collector
) -> None:
    collector.start()
    process = program(
        """
        for part in range(6):
            spans(200, f"part{part}")
            print("ended", part, flush=True)
            time.sleep(0.2)
        telemetry.flush()
        """
    )
    process.wait_for_line("ended 1")
    collector.stop()
    process.wait_for_line("ended 3")
    collector.start()
    names = collector.wait_for(1200)
    # A request that was under way when the collector went may have been taken all the same.
    assert sum(names.values()) <= 1200 + 512


def test_unavailable_is_tried_again(program: Program, collector: Collector) -> None:
    def answer(spans: list[ReceivedSpan], context: grpc.ServicerContext) -> None:
        if collector.asked <= 3:
            context.abort(grpc.StatusCode.UNAVAILABLE, "starting")

    collector.answer = answer
    collector.start()
    program.run("spans(50)")
    assert once(collector.wait_for(50))


def test_the_delay_that_a_full_collector_asks_for_is_kept(
    program: Program, collector: Collector
) -> None:
    times: list[float] = []

    def answer(spans: list[ReceivedSpan], context: grpc.ServicerContext) -> None:
        times.append(time.monotonic())
        if len(times) == 1:
            info, detail = RetryInfo(), AnyMessage()
            info.retry_delay.FromMilliseconds(1500)
            detail.Pack(info)
            status = Status(code=8, message="full", details=[detail])
            context.set_trailing_metadata(
                (("grpc-status-details-bin", status.SerializeToString()),)
            )
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "full")

    collector.answer = answer
    collector.start()
    # Flushes on the way do not make it any sooner.
    program.run("spans(50)\nfor _ in range(5): telemetry.flush(0.1)\nos._exit(0)")
    assert once(collector.wait_for(50))
    assert times[1] - times[0] >= 1.5


def test_what_a_collector_leaves_out_is_counted_and_said(
    program: Program, collector: Collector
) -> None:
    def answer(
        spans: list[ReceivedSpan], context: grpc.ServicerContext
    ) -> ExportTraceServiceResponse | None:
        if len(spans) < 40:
            return None
        partial = ExportTracePartialSuccess(rejected_spans=3, error_message="too old for us")
        return ExportTraceServiceResponse(partial_success=partial)

    collector.answer = answer
    collector.start()
    process = program.run("spans(50); telemetry.flush(); time.sleep(2.1); spans(1, 'late')")
    assert once(collector.wait_for(51))
    assert "dropped 3 spans: too old for us" in process.output


def test_one_span_that_is_refused_costs_no_other(program: Program, collector: Collector) -> None:
    def answer(spans: list[ReceivedSpan], context: grpc.ServicerContext) -> None:
        if any(span.name == "bad.0" for span in spans):
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "bad")

    collector.answer = answer
    collector.start()
    program.run("spans(300, 'a'); spans(1, 'bad'); spans(300, 'b'); telemetry.flush()")
    names = collector.wait_for(600)
    assert "bad.0" not in names
    assert once(names)


def test_a_request_that_is_too_large_is_sent_in_parts(
    program: Program, collector: Collector
) -> None:
    collector.start()  # takes 4 MiB, as every gRPC server does unless told otherwise; and HTTP here
    program.run(
        """
        for number in range(30):
            with tracer.start_as_current_span(f"large.{number}") as span:
                span.set_attribute("large", "x" * 1_000_000)
        """
    )
    assert once(collector.wait_for(30))


def test_a_wrong_token_is_said_and_nothing_is_lost_by_it(
    program: Program, collector: Collector
) -> None:
    def refuse(spans: list[ReceivedSpan], context: grpc.ServicerContext) -> None:
        context.abort(grpc.StatusCode.UNAUTHENTICATED, "no such token")

    collector.answer = refuse
    collector.start()
    process = program(
        """
        spans(50)
        telemetry.flush()
        while not os.path.exists(os.environ["STOP"]):
            spans(1, "more")
            time.sleep(0.1)
        """,
        STOP=str(program.directory / "stop"),
    )
    line = process.wait_for_line("spans are not delivered, and wait on disk")
    assert ("UNAUTHENTICATED" if collector.protocol == "grpc" else "401 Unauthorized") in line
    assert "no such token" in line
    assert collector.names == {}
    collector.answer = take
    (program.directory / "stop").touch()
    assert process.wait() == 0
    names = collector.wait_for(51)
    assert all(names[f"program1.{number}"] == 1 for number in range(50))
    assert process.output.count("spans are not delivered, and wait on disk") == 1


def test_a_collector_that_hangs_holds_up_nobody(program: Program, collector: Collector) -> None:
    let_go = threading.Event()
    collector.answer = lambda spans, context: let_go.wait(30) and None
    collector.start()
    process = program("spans(50)\nprint('ended', flush=True)\nspans(50, 'more')\nos._exit(0)")
    assert process.wait() == 0
    collector.wait_to_be_asked(1)
    let_go.set()
    assert once(collector.wait_for(100))


def test_past_the_bound_the_oldest_go_and_are_counted(
    program: Program, collector: Collector
) -> None:
    bound = 128 * 1024
    bounds = {"QUEUEHOP_SPOOL_MAX_BYTES": str(bound)}
    process = program.run(
        """
        spans(3000)
        telemetry.flush()
        time.sleep(2.1)
        spans(1, "last")
        """,
        **bounds,
    )
    assert sum(path.stat().st_size for path in program.segments) <= bound * 1.5
    assert re.search(rf"dropped \d+ spans: more than {bound} bytes wait", process.output)
    collector.start()
    program.run("spans(1)", **bounds)
    names = collector.wait_for(2)
    program.run("telemetry.flush()", **bounds)
    names = collector.names
    assert "program1.0" not in names
    assert "program1.2999" in names
    assert "last.0" in names
    assert once(names)


def test_past_their_age_spans_go(program: Program, collector: Collector) -> None:
    program.run(f"spans(10); {KILLED}", status=-9)
    program.wait_for_sender_to_end()
    for path in program.segments:
        os.utime(path, (time.time() - 7200,) * 2)
    collector.start()
    program.run("spans(1)", QUEUEHOP_SPOOL_MAX_AGE="3600")
    assert collector.wait_for(1) == {"program2.0": 1}


def test_without_a_disk_spans_wait_in_memory(program: Program, collector: Collector) -> None:
    collector.start()
    process = program.run("spans(100)", QUEUEHOP_SPOOL="memory")
    assert once(collector.wait_for(100))
    assert process.output == ""
    assert not program.files


def test_an_outage_that_answers_internal_costs_no_span(
    program: Program, collector: Collector
) -> None:
    """As a proxy answers that has no collector behind it, whatever it is asked."""

    def answer(spans: list[ReceivedSpan], context: grpc.ServicerContext) -> None:
        if collector.asked <= 60:
            context.abort(grpc.StatusCode.INTERNAL, "no healthy upstream")

    collector.answer = answer
    collector.start()
    process = program(
        """
        spans(20)
        while True:
            telemetry.flush(0.1)  # has the sender try again at once
        """
    )
    collector.wait_to_be_asked(61)
    assert once(collector.wait_for(20))
    process.stop()


def test_without_a_sender_the_disk_is_bounded_too(program: Program, collector: Collector) -> None:
    bound = 128 * 1024
    process = program.run(
        """
        from telemetry.export.spool import spawn

        spawn.start = lambda *_: None
        spans(5000)
        """,
        QUEUEHOP_SPOOL_MAX_BYTES=str(bound),
    )
    assert sum(path.stat().st_size for path in program.segments) <= 2.2 * bound
    assert re.search(r"dropped \d+ bytes of undelivered spans in .+: size limit", process.output)


@pytest.mark.parametrize(
    ("started", "reason"),
    [
        ("raise OSError('no more processes')", "no process can be started: no more processes"),
        ("pass", "it ends as soon as it is started"),
    ],
)
def test_where_no_sender_stays_spans_go_on_from_memory(
    program: Program, collector: Collector, started: str, reason: str
) -> None:
    collector.start()
    process = program.run(
        f"""
        from telemetry.export.spool import spawn, watch

        def start(*_):
            {started}

        spawn.start = start
        watch.INTERVAL = 0.01
        for number in range(10):
            spans(1, f"first{{number}}")
            time.sleep(0.02)
        spans(10)
        """
    )
    line = process.wait_for_line("the process that sends spans cannot be started")
    assert reason in line
    names = collector.wait_for(10)
    assert {f"program1.{number}" for number in range(10)} <= set(names)
    # What was written before waits for the next start.
    program.run("spans(1)")
    assert once(collector.wait_for(21))


def test_within_the_bound_nothing_goes_though_nobody_delivers(
    program: Program, collector: Collector
) -> None:
    """Segments are small beside the bound that is the default."""
    process = program.run(
        """
        for number in range(5000):
            with tracer.start_as_current_span("large", attributes={"text": "x" * 20_000}):
                pass
        """
    )
    assert sum(path.stat().st_size for path in program.segments) > 5000 * 20_000
    assert "dropped" not in process.output
