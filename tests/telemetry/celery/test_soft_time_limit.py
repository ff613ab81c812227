"""On a real worker, each soft time limit ends its task, even in the middle of tracing."""

import random
import sys
from typing import Any

import pytest
from billiard import pool
from billiard.exceptions import SoftTimeLimitExceeded
from billiard.pool import SIG_SOFT_TIMEOUT
from celery import Celery, Task
from celery.result import allow_join_result
from celery.signals import task_prerun

from telemetry.celery import instrument_celery, time_limit
from telemetry.otlp.decode import ReceivedSpan
from telemetry.otlp.receiver import Receiver
from telemetry.tracing.interrupts import uninterrupted

from ...conftest import Broker
from ...processes import Starter

#: Tasks, and how often each runs.
RUNS = {"make_spans": 10, "fail_in_spans": 10, "publish": 10}


@pytest.mark.alone
def test_each_run_ends_with_the_exception(
    broker: Broker, start: Starter, receiver: Receiver
) -> None:
    worker = start(
        *("celery", "-A", "tests.telemetry.celery.limited", "worker", "--concurrency", "2"),
        *("--without-gossip", "--without-mingle", "--loglevel", "INFO"),
    )
    worker.wait_for_line(" ready.")
    chance = random.Random(17)
    with Celery("sends", broker=broker.url, backend=broker.url, set_as_default=False) as app:
        results = [
            app.send_task(
                f"tests.telemetry.celery.limited.{task}",
                soft_time_limit=chance.uniform(0.03, 0.12),
                time_limit=30,
            )
            for task, count in RUNS.items()
            for _ in range(count)
        ]
        with allow_join_result():
            for result in results:
                with pytest.raises(SoftTimeLimitExceeded):
                    result.get(timeout=60)
                assert result.state == "FAILURE"
                result.forget()
        # Celery may hang if it is stopped while its main process reads a child's result.
        while any(app.control.inspect(timeout=5).active().values()):
            pass
    worker.stop()
    assert "a span is current" not in worker.output
    assert "Hard time limit" not in worker.output
    arrived = receiver.wait_for(lambda spans: sum(map(is_run, spans)) >= len(results), 60)
    runs = {span.attributes["messaging.message.id"]: span for span in arrived if is_run(span)}
    assert runs.keys() == {result.id for result in results}
    for result in results:
        run = runs[result.id]
        assert (run.status, run.attributes["celery.task.state"]) == ("ERROR", "FAILURE")
        assert run.attributes["error.type"] == "billiard.exceptions.SoftTimeLimitExceeded"


def is_run(span: ReceivedSpan) -> bool:
    return span.name.startswith("process ")


class Signals:
    """The handler in front of one that raises, and the signals that it sends once more."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.again: list[tuple[Any, ...]] = []
        monkeypatch.setattr(
            time_limit._thread, "start_new_thread", lambda _, args: self.again.append(args)
        )
        time_limit.guard_soft_time_limit()
        self.handler = time_limit.SoftTimeLimit(raise_exception)

    def arrive(self) -> None:
        self.handler(SIG_SOFT_TIMEOUT, sys._getframe(1))


def raise_exception(number: int, frame: object) -> None:
    raise SoftTimeLimitExceeded


@pytest.fixture
def signals(monkeypatch: pytest.MonkeyPatch) -> Signals:
    return Signals(monkeypatch)


def test_it_waits_for_a_receiver_whose_exceptions_celery_swallows(signals: Signals) -> None:
    def receiver(**_: object) -> None:
        signals.arrive()

    task_prerun.connect(receiver)
    try:
        responses = dict(task_prerun.send(sender=None, task_id="", task=Task()))
    finally:
        task_prerun.disconnect(receiver)
    assert responses[receiver] is None
    assert len(signals.again) == 1
    with pytest.raises(SoftTimeLimitExceeded):
        signals.arrive()


def test_it_does_not_wait_for_ever(signals: Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time_limit, "TRIES", 3)
    hangs = uninterrupted(lambda: signals.arrive())
    for _ in range(3):
        hangs()
    with pytest.raises(SoftTimeLimitExceeded):
        hangs()
    hangs()  # that of the next task


def test_it_stands_in_front_of_billiards_handler() -> None:
    app = instrument_celery(Celery("guarded", broker="memory://", set_as_default=False))
    assert isinstance(pool.soft_timeout_sighandler, time_limit.SoftTimeLimit)
    assert time_limit.guard_soft_time_limit() is pool.soft_timeout_sighandler
    with pytest.raises(SoftTimeLimitExceeded):
        pool.soft_timeout_sighandler(SIG_SOFT_TIMEOUT, None)
    app.close()
