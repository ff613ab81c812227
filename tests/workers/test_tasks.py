"""The tasks as a real worker runs them."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery

from telemetry.viewer.receiver import Receiver

from ..conftest import Broker
from ..processes import Process, Starter
from ..system import start_worker


@pytest.fixture
def celery(broker: Broker) -> Iterator[Celery]:
    """A producer that knows of the tasks nothing but their names."""
    with Celery(broker=broker.url, backend=broker.url) as app:
        yield app


@pytest.fixture
def worker(start: Starter) -> Process:
    return start_worker(start)


def run(celery: Celery, task: str, **kwargs: Any) -> Any:
    return celery.send_task(f"workers.tasks.{task}", kwargs=kwargs).get(timeout=20)


def test_ping_makes_a_string_of_the_length(worker: Process, celery: Celery) -> None:
    for length in (1, 1024):
        answer = run(celery, "ping", length=length)
        assert re.fullmatch(f"[0-9A-Za-z]{{{length}}}", answer["string"])
        assert answer["length"] == length
    answers = [run(celery, "ping") for _ in range(4)]
    assert all(len(answer["string"]) == answer["length"] for answer in answers)
    assert len({answer["length"] for answer in answers}) > 1


def test_retry_backs_off_and_succeeds(worker: Process, celery: Celery, receiver: Receiver) -> None:
    assert run(celery, "retry", length=3)["retries"] == 2

    def runs(spans: list[Any]) -> list[Any]:
        return [span for span in spans if span.name == "process workers.tasks.retry"]

    arrived = receiver.wait_for(lambda spans: len(runs(spans)) == 3, 20)
    attempts = sorted(runs(arrived), key=lambda span: span.start_ns)
    assert [span.attributes["celery.task.state"] for span in attempts] == [
        *("RETRY", "RETRY", "SUCCESS")
    ]
    assert [span.status for span in attempts] == ["ERROR", "ERROR", "UNSET"]
    assert {span.attributes.get("error.type") for span in attempts[:2]} == {
        "workers.tasks.Unavailable"
    }
    waits = [span.attributes["celery.wait.scheduled"] for span in attempts]
    assert waits == [0.0, pytest.approx(0.2, abs=0.1), pytest.approx(0.4, abs=0.1)]


def test_fail_fails(worker: Process, celery: Celery, receiver: Receiver) -> None:
    with pytest.raises(RuntimeError, match="always fails"):
        run(celery, "fail")
    arrived = receiver.wait_for(lambda spans: spans, 20)
    assert [(span.name, span.status) for span in arrived] == [
        ("process workers.tasks.fail", "ERROR")
    ]


def test_the_line_of_a_task_in_the_log_is_in_its_trace(
    worker: Process, celery: Celery, receiver: Receiver
) -> None:
    run(celery, "retry", length=3)
    line = worker.wait_for_line("succeeded in")
    spans = receiver.wait_for(
        lambda spans: [span for span in spans if span.status == "UNSET" and span.kind == "CONSUMER"]
    )
    last = next(span for span in spans if span.status == "UNSET" and span.kind == "CONSUMER")
    assert f"[trace={last.trace_id} span={last.span_id}]" in line
