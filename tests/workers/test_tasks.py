"""The tasks as a real worker runs them."""

import re
from typing import Any

import pytest

from telemetry.otlp.decode import ReceivedSpan
from telemetry.otlp.receiver import Receiver

from ..conftest import Broker, start_worker
from ..processes import Starter
from ..system import producer


def test_ping_makes_a_string_and_retry_backs_off(
    broker: Broker, start: Starter, receiver: Receiver
) -> None:
    worker = start_worker(start)
    with producer(broker.url) as celery:

        def run(task: str, **kwargs: Any) -> Any:
            return celery.send_task(f"workers.tasks.{task}", kwargs=kwargs).get(timeout=60)

        for length in (1, 1024):
            answer = run("ping", length=length)
            assert re.fullmatch(f"[0-9A-Za-z]{{{length}}}", answer["string"])
            assert answer["length"] == length
        answers = [run("ping") for _ in range(4)]
        assert all(1 <= len(answer["string"]) == answer["length"] <= 1024 for answer in answers)
        assert len({answer["length"] for answer in answers}) > 1

        assert run("retry", length=3)["retries"] == 2
        with pytest.raises(RuntimeError, match="always fails"):
            run("fail")

    def retries(spans: list[ReceivedSpan]) -> list[ReceivedSpan]:
        return [span for span in spans if span.name == "process workers.tasks.retry"]

    arrived = receiver.wait_for(lambda spans: len(retries(spans)) == 3, 20)
    attempts = sorted(retries(arrived), key=lambda span: span.start_ns)
    errors = [span.attributes.get("error.type") for span in attempts]
    assert errors == ["workers.tasks.Unavailable", "workers.tasks.Unavailable", None]
    first, second = (span.attributes["celery.wait.scheduled"] for span in attempts[1:])
    assert 0 < first <= 0.201
    assert 0 < second <= 0.401
    assert "succeeded in" in worker.wait_for_line(f"span={attempts[-1].span_id}]")
