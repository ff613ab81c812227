"""The three waits of known schedules, and messages that are delivered more than once."""

import os
import time
from datetime import datetime
from pathlib import Path

import pytest

from telemetry.otlp.decode import ReceivedSpan

from .conftest import Queue
from .test_hops import ids, links
from .test_interop import protocol_2, publish

#: The most seconds between two records of one moment: one of them is rounded to microseconds.
CLOSE = 2e-6


def waited(span: ReceivedSpan) -> tuple[float, float, float]:
    scheduled, queue, prefetch = (
        span.attributes[f"celery.wait.{name}"] for name in ("scheduled", "queue", "prefetch")
    )
    return scheduled, queue, prefetch


def check_waits(send: ReceivedSpan, run: ReceivedSpan) -> None:
    """Check that the waits of *run* add up to the time since *send*.

    The producer hands the message over during *send*. If the message has an ETA, its scheduled wait
    ends then.
    """
    scheduled, queue, prefetch = waited(run)
    assert min(scheduled, queue, prefetch) >= 0
    began, ended, ran = (ns / 1e9 for ns in (send.start_ns, send.end_ns, run.start_ns))
    assert ran - ended - CLOSE <= scheduled + queue + prefetch <= ran - began + CLOSE
    eta = send.attributes.get("celery.task.eta")
    due = datetime.fromisoformat(eta).timestamp() if eta else None
    if due is None:
        assert scheduled == 0
    else:
        assert 0 < scheduled <= due - began + CLOSE
        # A timer of gevent may fire a little early, and no wait is negative.
        assert queue + prefetch == pytest.approx(max(0.0, ran - due), abs=CLOSE)
    assert "celery.wait.skewed" not in run.attributes


class Gate:
    """A task that reports its start, and ends when the test says so."""

    def __init__(self, queue: Queue, directory: Path) -> None:
        self._arrived, self._leave = directory / "arrived", directory / "leave"
        os.mkfifo(self._arrived)
        os.mkfifo(self._leave)
        queue.send("gate", str(self._arrived), str(self._leave))
        self.wait()

    def wait(self) -> None:
        """Wait until the task runs."""
        self._arrived.read_text()

    def open(self) -> None:
        self._leave.write_text("go\n")


def test_a_countdown_with_an_idle_worker(queue: Queue) -> None:
    queue.worker("prefork")
    queue.send("add", 1, 2, countdown=2)
    send, run = queue.spans("send add", "process add")
    check_waits(send, run)
    scheduled, in_queue, _ = waited(run)
    assert scheduled > 1
    assert in_queue == 0  # the worker had it long before it was due


def test_a_message_that_waits_for_a_worker_to_start(queue: Queue) -> None:
    queue.send("add", 1, 2)
    started = time.time()
    queue.worker("prefork")
    send, run = queue.spans("send add", "process add")
    check_waits(send, run)
    _, in_queue, prefetch = waited(run)
    assert in_queue > started - send.end_ns / 1e9
    assert in_queue > prefetch  # a worker takes longer to start than to give it to a child


@pytest.mark.parametrize("protocol", [1, 2])
def test_a_prefetched_message_waits_in_the_worker(
    queue: Queue, tmp_path: Path, protocol: int
) -> None:
    queue.app.conf.task_protocol = protocol
    worker = queue.worker("prefork", 1)
    gate = Gate(queue, tmp_path)
    queue.send("add", 1, 2)
    worker.wait_for_line("project.add")  # taken, though no process is free
    assert queue.app.control.ping(limit=1, timeout=30)  # and dealt with
    taken = time.time()
    gate.open()
    first, send, run = queue.spans("process gate", "send add", "process add")
    check_waits(send, run)
    assert run.start_ns >= first.end_ns
    assert waited(run)[2] > 0
    received = run.start_ns / 1e9 - waited(run)[2]
    assert send.start_ns / 1e9 - CLOSE <= received <= taken + CLOSE


def test_the_backoff_of_a_retry_is_scheduled(queue: Queue) -> None:
    queue.worker("prefork")
    queue.send("retry", 0.5)
    runs = queue.spans(*["process retry"] * 3)
    sends = queue.spans(*["send retry"] * 3)
    for send, run in zip(sends, runs, strict=True):
        check_waits(send, run)
    assert ["celery.task.eta" in send.attributes for send in sends] == [False, True, True]


@pytest.mark.conformance("clock of the producer ahead")
def test_a_producer_whose_clock_is_ahead_is_said(queue: Queue) -> None:
    queue.worker("prefork")
    now = time.time()
    headers = {"traceparent": f"00-{1:032x}-{1:016x}-01", "queuehop-sent-at": f"{now + 60}"}
    publish(queue.app, *protocol_2(**headers))
    (run,) = queue.spans("process add")
    assert run.attributes["celery.wait.skewed"] is True
    scheduled, in_queue, prefetch = waited(run)
    assert (scheduled, in_queue) == (0, 0)
    assert 0 <= prefetch <= run.start_ns / 1e9 - now


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
