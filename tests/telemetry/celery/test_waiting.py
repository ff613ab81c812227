"""The three waits of known schedules, and messages that are delivered more than once."""

import os
import time
from pathlib import Path

import pytest

from telemetry.otlp.decode import ReceivedSpan

from .conftest import Queue
from .test_hops import ids, links
from .test_interop import protocol_2, publish

#: Seconds by which a wait may differ from the schedule.
CLOSE = 0.15


def waited(span: ReceivedSpan) -> tuple[float, float, float]:
    scheduled, queue, prefetch = (
        span.attributes[f"celery.wait.{name}"] for name in ("scheduled", "queue", "prefetch")
    )
    return scheduled, queue, prefetch


def warm(queue: Queue) -> None:
    """Run one task, since the first of a worker is slower than the others."""
    queue.send("where")
    queue.spans("process where")


class Gate:
    """A task that reports its start, and ends when the test says so."""

    def __init__(self, queue: Queue, directory: Path) -> None:
        self._arrived, self._leave = directory / "arrived", directory / "leave"
        os.mkfifo(self._arrived)
        os.mkfifo(self._leave)
        queue.send("gate", str(self._arrived), str(self._leave))
        self._arrived.read_text()

    def open(self) -> None:
        self._leave.write_text("go\n")


@pytest.mark.alone
def test_a_countdown_with_an_idle_worker(queue: Queue) -> None:
    queue.worker("prefork")
    warm(queue)
    queue.send("add", 1, 2, countdown=1)
    (run,) = queue.spans("process add")
    assert waited(run) == pytest.approx((1, 0, 0), abs=CLOSE)
    assert "celery.wait.skewed" not in run.attributes


@pytest.mark.alone
def test_a_message_that_waits_for_a_worker_to_start(queue: Queue) -> None:
    queue.send("add", 1, 2)
    queue.worker("prefork")
    send, run = queue.spans("send add", "process add")
    scheduled, in_queue, prefetch = waited(run)
    assert scheduled == 0
    assert scheduled + in_queue + prefetch == pytest.approx(
        (run.start_ns - send.end_ns) / 1e9, abs=CLOSE
    )
    assert in_queue > 0.3  # a worker takes longer than this to start
    assert prefetch < 0.3


@pytest.mark.alone
def test_a_prefetched_message_waits_in_the_worker(queue: Queue, tmp_path: Path) -> None:
    worker = queue.worker("prefork", 1)
    gate = Gate(queue, tmp_path)
    queue.send("add", 1, 2)
    worker.wait_for_line("project.add", timeout=10)  # taken, though no process is free
    taken = time.time()
    gate.open()
    first, send, run = queue.spans("process gate", "send add", "process add")
    scheduled, in_queue, prefetch = waited(run)
    assert (scheduled, in_queue) == pytest.approx((0, 0), abs=CLOSE)
    assert run.start_ns >= first.end_ns
    assert send.start_ns / 1e9 - CLOSE <= run.start_ns / 1e9 - prefetch <= taken + CLOSE


@pytest.mark.alone
def test_the_backoff_of_a_retry_is_scheduled(queue: Queue) -> None:
    queue.worker("prefork")
    warm(queue)
    queue.send("retry", 0.5)
    _, second, third = queue.spans("process retry", "process retry", "process retry")
    assert waited(second) == pytest.approx((0.5, 0, 0), abs=CLOSE)
    assert waited(third) == pytest.approx((0.5, 0, 0), abs=CLOSE)


@pytest.mark.alone
@pytest.mark.conformance("clock of the producer ahead")
def test_a_producer_whose_clock_is_ahead_is_said(queue: Queue) -> None:
    queue.worker("prefork")
    warm(queue)
    headers = {"traceparent": f"00-{1:032x}-{1:016x}-01", "queuehop-sent-at": f"{time.time() + 60}"}
    publish(queue.app, *protocol_2(**headers))
    (run,) = queue.spans("process add")
    assert run.attributes["celery.wait.skewed"] is True
    assert waited(run) == pytest.approx((0, 0, 0), abs=CLOSE)


@pytest.mark.conformance("redelivered after a lost worker")
def test_each_delivery_of_a_lost_worker_is_its_own_run(queue: Queue, tmp_path: Path) -> None:
    late = {"ACKS_LATE": "1", "VISIBILITY_TIMEOUT": "1"}
    worker = queue.worker("prefork", 1, **late)
    gate = Gate(queue, tmp_path)
    worker.kill()
    queue.worker("prefork", 1, **late)
    # The next worker gets the message again, with the same paths.
    assert (tmp_path / "arrived").read_text() == "running\n"
    gate.open()
    send, run = queue.spans("send gate", "process gate")
    assert run.parent_id == send.span_id
    assert run.attributes["celery.redelivered"] is True
    assert run.attributes["celery.task.state"] == "SUCCESS"


@pytest.mark.conformance("redelivered after the visibility timeout")
def test_a_message_whose_time_is_up_runs_twice_under_one_send(queue: Queue, tmp_path: Path) -> None:
    late = {"ACKS_LATE": "1", "VISIBILITY_TIMEOUT": "3"}
    queue.worker("prefork", 2, **late)
    gate = Gate(queue, tmp_path)
    # The task still runs, and its message is delivered again, to the other process.
    assert (tmp_path / "arrived").read_text() == "running\n"
    gate.open()  # both runs wait for it
    send, first, again = queue.spans("send gate", "process gate", "process gate")
    assert first.parent_id == again.parent_id == send.span_id
    assert links(first) == links(again) == [ids(send)]
    assert "celery.redelivered" not in first.attributes
    assert again.attributes["celery.redelivered"] is True


@pytest.mark.conformance("beat")
def test_each_tick_of_beat_is_a_trace_of_its_own(queue: Queue, tmp_path: Path) -> None:
    queue.worker("prefork")
    beat = ("celery", "-A", "tests.telemetry.celery.project", "beat", "--pidfile=")
    queue.start(*beat, "--schedule", str(tmp_path / "schedule"), TICKS="1")
    sends = queue.spans(*["send add"] * 3)
    found = queue.spans(*["process add"] * 3)
    assert {send.parent_id for send in sends} == {""}
    assert len({send.trace_id for send in sends}) == 3
    assert {run.parent_id for run in found} <= {send.span_id for send in sends}
    assert {send.service for send in sends} == {"worker"}
