"""Queues and map do not count the doctor's own requests and tasks."""

from dataclasses import replace

import pytest

from telemetry.otlp.decode import ReceivedSpan
from telemetry.viewer.analysis.summary import summarize

from ..spans import derived, order, send


def marked(spans: list[ReceivedSpan], state: str) -> list[ReceivedSpan]:
    return [replace(span, trace_state=state) for span in spans]


@pytest.mark.parametrize(
    ("state", "is_counted"),
    [("queuehop=doctor", False), ("x=y,queuehop=doctor", False), ("queuehop=x", True), ("", True)],
)
def test_a_trace_of_the_doctor_is_not_counted(state: str, is_counted: bool) -> None:
    assert bool(summarize(derived(*marked(order(), state))).counts) == is_counted


def test_a_waiting_probe_is_no_backlog() -> None:
    waiting = send("send", "", (0, 1))
    assert [wait.send for wait in summarize(derived(waiting)).untaken] == [waiting]
    assert summarize(derived(*marked([waiting], "queuehop=doctor"))).untaken == []


def test_propagators_without_a_tracestate() -> None:
    """The name of the task identifies the probe."""
    probe = send("send", "", (0, 1), celery__task__name="queuehop.doctor")
    assert not summarize(derived(probe)).counts
