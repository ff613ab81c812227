"""Ended spans and log records are delivered to a collector that is down, slow, full or strict."""

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

from .conftest import OF_ALL, Collector, Program, take

pytestmark = OF_ALL

#: Ends the process without its exit handlers.
KILLED = "os.kill(os.getpid(), signal.SIGKILL)"


def once(names: dict[str, int]) -> bool:
    return set(names.values()) == {1}


def test_the_next_start_delivers_what_a_killed_process_has_ended(
    program: Program, collector: Collector
) -> None:
    program.run(f"items(1000); {KILLED}", status=-9)
    collector.start()
    program.run("items(1)")
    names = collector.wait_for(1001)
    assert len(names) == 1001
    assert once(names)


def test_a_killed_process_needs_no_next_start_where_the_collector_is_there(
    program: Program, collector: Collector
) -> None:
    collector.start()
    program.run(f"items(700); {KILLED}", status=-9)
    assert once(collector.wait_for(700))


def test_a_collector_that_comes_back_gets_all(program: Program, collector: Collector) -> None:
    process = program("items(300); print('ended', flush=True); input()")
    process.wait_for_line("ended")
    collector.start()
    assert once(collector.wait_for(300))
    assert process.stop() == -15


def test_a_flush_reaches_a_collector_that_was_down_for_long(
    program: Program, collector: Collector
) -> None:
    process = program(
        """
        import socket
        from contextlib import suppress
        from urllib.parse import urlsplit
        from telemetry.setup import sink
        items(1)
        until = time.monotonic() + 2.5  # gRPC waits longer after each failure to connect
        while time.monotonic() < until:
            telemetry.flush(1)
        print("failed", flush=True)
        url = urlsplit(os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"])
        while True:
            with suppress(OSError):
                socket.create_connection((url.hostname, url.port)).close()
                break
            time.sleep(0.01)
        telemetry.flush()  # it may end with a try that began before
        telemetry.flush()
        assert not sink().last_export_error(), sink().last_export_error()
        """
    )
    process.wait_for_line("failed")
    collector.start()
    assert process.wait() == 0, process.output
    assert once(collector.wait_for(1))


def test_a_collector_that_goes_and_comes_loses_nothing(
    program: Program, collector: Collector
) -> None:
    collector.start()
    process = program(
        """
        for part in range(6):
            items(200, f"part{part}")
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
    # The collector may have accepted the request that was in progress when it ended.
    assert sum(names.values()) <= 1200 + 512


def test_unavailable_is_tried_again_also_if_one_answer_takes_all_the_time_that_is_left(
    program: Program, collector: Collector
) -> None:
    def answer(names: list[str], context: grpc.ServicerContext) -> None:
        if collector.asked == 3:  # the application has ended, and the sender counts its time
            time.sleep(5.5)
        if collector.asked <= 3:
            context.abort(grpc.StatusCode.UNAVAILABLE, "starting")

    collector.answer = answer
    collector.start()
    program.run("items(50)")
    assert once(collector.wait_for(50))


def test_the_delay_that_a_full_collector_asks_for_is_kept(
    program: Program, collector: Collector
) -> None:
    times: list[float] = []

    def answer(names: list[str], context: grpc.ServicerContext) -> None:
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
    # Flushes in between do not shorten the wait.
    program.run("items(50)\nfor _ in range(5): telemetry.flush(0.1)\nos._exit(0)")
    assert once(collector.wait_for(50))
    assert times[1] - times[0] >= 1.5


def test_what_a_collector_leaves_out_is_counted_and_said(
    program: Program, collector: Collector
) -> None:
    def answer(
        names: list[str], context: grpc.ServicerContext
    ) -> ExportTraceServiceResponse | None:
        if len(names) < 40:
            return None
        partial = ExportTracePartialSuccess(rejected_spans=3, error_message="too old for us")
        return ExportTraceServiceResponse(partial_success=partial)

    collector.answer = answer
    collector.start()
    process = program.run("items(50); telemetry.flush(); time.sleep(2.1); items(1, 'late')")
    assert once(collector.wait_for(51))
    assert f"dropped 3 {collector.items}: too old for us" in process.output


def test_one_span_that_is_refused_costs_no_other(program: Program, collector: Collector) -> None:
    def answer(names: list[str], context: grpc.ServicerContext) -> None:
        if "bad.0" in names:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "bad")

    collector.answer = answer
    collector.start()
    program.run("items(300, 'a'); items(1, 'bad'); items(300, 'b'); telemetry.flush()")
    names = collector.wait_for(600)
    assert "bad.0" not in names
    assert once(names)


def test_a_request_that_is_too_large_is_sent_in_parts(
    program: Program, collector: Collector
) -> None:
    collector.start()  # takes 4 MiB, as every gRPC server does unless told otherwise; and HTTP here
    program.run(
        """
        items(30, "large", text="x" * 1_000_000)
        """
    )
    assert once(collector.wait_for(30))


def test_a_wrong_token_is_said_and_nothing_is_lost_by_it(
    program: Program, collector: Collector
) -> None:
    def refuse(names: list[str], context: grpc.ServicerContext) -> None:
        context.abort(grpc.StatusCode.UNAUTHENTICATED, "no such token")

    collector.answer = refuse
    collector.start()
    process = program(
        """
        items(50)
        telemetry.flush()
        while not os.path.exists(os.environ["STOP"]):
            items(1, "more")
            time.sleep(0.1)
        """,
        STOP=str(program.directory / "stop"),
    )
    line = process.wait_for_line(f"{collector.items} are not delivered, and wait on disk")
    assert ("UNAUTHENTICATED" if collector.protocol == "grpc" else "401 Unauthorized") in line
    assert "no such token" in line
    assert collector.names == {}
    collector.answer = take
    (program.directory / "stop").touch()
    assert process.wait() == 0
    names = collector.wait_for(51)
    assert all(names[f"program1.{number}"] == 1 for number in range(50))
    assert process.output.count("wait on disk") == 1


def test_a_token_that_the_collector_repeats_is_in_no_line(
    program: Program, collector: Collector
) -> None:
    def refuse(names: list[str], context: grpc.ServicerContext) -> None:
        context.abort(grpc.StatusCode.UNAUTHENTICATED, "t0ken-of-staging is wrong")

    collector.answer = refuse
    collector.start()
    process = program(
        """
        while True:
            items(1)
            telemetry.flush()
            time.sleep(0.1)
        """,
        OTEL_EXPORTER_OTLP_HEADERS="authorization=Bearer%20t0ken-of-staging",
    )
    assert "*** is wrong" in process.wait_for_line("are not delivered")
    process.stop()
    assert "t0ken" not in process.output


def test_a_collector_that_hangs_holds_up_nobody(program: Program, collector: Collector) -> None:
    let_go = threading.Event()
    collector.answer = lambda names, context: let_go.wait(30) and None
    collector.start()
    process = program("items(50)\nprint('ended', flush=True)\nitems(50, 'more')\nos._exit(0)")
    assert process.wait() == 0
    collector.wait_to_be_asked(1)
    let_go.set()
    assert once(collector.wait_for(100))


def test_without_a_disk_spans_wait_in_memory(program: Program, collector: Collector) -> None:
    collector.start()
    process = program.run("items(100)", QUEUEHOP_SPOOL="memory")
    assert once(collector.wait_for(100))
    assert process.output == ""
    assert not program.files


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_a_child_of_multiprocessing_sends_what_waits_in_memory_before_it_ends(
    program: Program, collector: Collector, method: str
) -> None:
    collector.start()
    program.run(
        f"""
        from multiprocessing import get_context

        if __name__ == "__main__":
            spans(1, "parent")
            child = get_context("{method}").Process(target=spans, args=(10, "child"))
            child.start()
            child.join()
        """,
        QUEUEHOP_SPOOL="memory",
    )
    assert once(collector.wait_for(11))


def test_a_shutdown_in_memory_may_be_followed_by_another_and_by_a_flush(
    program: Program, collector: Collector
) -> None:
    collector.start()
    program.run(
        """
        items(10)
        telemetry.shutdown(100)
        assert telemetry.flush(100) is True
        telemetry.shutdown(100)
        """,
        QUEUEHOP_SPOOL="memory",
    )
    assert once(collector.wait_for(10))


def test_a_flush_in_memory_does_not_count_what_ends_meanwhile(
    program: Program, collector: Collector
) -> None:
    collector.answer = lambda names, context: time.sleep(0.2)
    collector.start()
    program.run(
        """
        is_over = threading.Event()

        def work():
            while not is_over.wait(0.001):
                items(1)

        thread = threading.Thread(target=work)
        thread.start()
        items(1)
        flushed = telemetry.flush(10)
        is_over.set()
        thread.join()
        assert flushed
        """,
        QUEUEHOP_SPOOL="memory",
    )


def test_an_outage_that_answers_internal_costs_no_span(
    program: Program, collector: Collector
) -> None:
    """A proxy without a collector behind it answers every request like this."""

    def answer(names: list[str], context: grpc.ServicerContext) -> None:
        if collector.asked <= 60:
            context.abort(grpc.StatusCode.INTERNAL, "no healthy upstream")

    collector.answer = answer
    collector.start()
    process = program(
        """
        items(20)
        while True:
            telemetry.flush(0.1)  # has the sender try again at once
        """
    )
    collector.wait_to_be_asked(61)
    assert once(collector.wait_for(20))
    process.stop()


def test_a_span_that_ends_while_the_thread_of_the_memory_mode_starts(
    program: Program, collector: Collector
) -> None:
    """A signal handler or a finalizer ends it, in the same thread."""
    collector.start()
    program.run(
        """
        class Thread(threading.Thread):
            def __init__(self, *args, **options):
                if options.get("name") == "queuehop-export":
                    spans(1, "handler")
                super().__init__(*args, **options)

        threading.Thread = Thread
        spans(1)
        """,
        QUEUEHOP_SPOOL="memory",
    )
    assert collector.wait_for(2) == {"handler.0": 1, "program1.0": 1}
