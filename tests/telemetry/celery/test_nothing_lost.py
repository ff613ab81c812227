"""A worker ends in every possible way: each finished run is in its trace, once."""

import os
import random
import signal
import subprocess
from collections import Counter
from pathlib import Path

import pytest
import redis

from telemetry.otlp.decode import ReceivedSpan

from ...conftest import Broker
from ...processes import Process
from .conftest import Queue

ADD = "tests.telemetry.celery.project.add"


def send(queue: Queue, count: int) -> list[str]:
    """Publish *count* tasks; return their ids."""
    return [queue.send("add", 1, 2).id for _ in range(count)]


def runs(spans: list[ReceivedSpan]) -> Counter[object]:
    """Count the runs of each message."""
    return Counter(
        span.attributes["messaging.message.id"] for span in spans if span.name == f"process {ADD}"
    )


def wait_for_runs(queue: Queue, ids: list[str], timeout: float = 60.0) -> None:
    """Wait until each message has a run; then there is one of each, in the trace of its send."""
    wanted = set(ids)
    spans = queue.receiver.wait_for(lambda spans: wanted <= set(runs(spans)), timeout)
    assert runs(spans) == Counter(ids)
    sends = {span.span_id: span.trace_id for span in spans if span.name == f"send {ADD}"}
    for span in spans:
        if span.name == f"process {ADD}":
            assert sends[span.parent_id] == span.trace_id


def finished(broker: Broker, ids: list[str]) -> set[str]:
    """Return those of *ids* that have a result."""
    with redis.Redis(port=broker.port) as client:
        found = client.mget([f"celery-task-meta-{each}" for each in ids])
    return {each for each, result in zip(ids, found, strict=True) if result is not None}


def wait_until_some_are_finished(broker: Broker, ids: list[str], count: int) -> None:
    with redis.Redis(port=broker.port) as client, client.pubsub() as channel:
        channel.subscribe(*(f"celery-task-meta-{each}" for each in ids))
        seen = 0
        for message in channel.listen():
            seen += message["type"] == "message"
            if seen >= count or len(finished(broker, ids)) >= count:
                return


def children(worker: Process) -> list[int]:
    listed = Path(f"/proc/{worker.pid}/task/{worker.pid}/children").read_text()
    return [int(pid) for pid in listed.split()]


@pytest.mark.parametrize(
    ("pool", "count", "options"),
    [
        ("prefork", 200, []),
        ("threads", 200, []),
        ("gevent", 200, []),
        ("solo", 200, []),
        ("prefork", 50, ["--max-tasks-per-child=1"]),
        ("prefork", 50, ["--max-memory-per-child=1"]),
    ],
    ids=lambda value: str(value[0]) if isinstance(value, list) and value else None,
)
def test_a_warm_shutdown_right_after_the_last_task(
    queue: Queue, broker: Broker, pool: str, count: int, options: list[str]
) -> None:
    ids = send(queue, count)
    worker = queue.worker(pool, 2, *options)
    wait_until_some_are_finished(broker, ids, count)
    assert worker.stop() == 0
    wait_for_runs(queue, ids)


def test_a_pool_that_shrinks_and_one_that_is_restarted(queue: Queue, broker: Broker) -> None:
    worker = queue.worker("prefork", 4, "--autoscale=4,1", AUTOSCALE_KEEPALIVE="0.5")
    ids = send(queue, 400)
    worker.wait_for_line("Scaling down")
    wait_until_some_are_finished(broker, ids, 400)
    restarted = send(queue, 100)
    queue.app.control.broadcast("pool_restart", arguments={"reload": False})
    ids += restarted + send(queue, 100)
    wait_for_runs(queue, ids)


def test_children_killed_at_any_moment(queue: Queue) -> None:
    worker = queue.worker("prefork", 2)
    ids = send(queue, 300)
    for _ in range(6):
        queue.receiver.wait_for(lambda spans: len(runs(spans)) >= random.randrange(50, 250))
        # The pool replaces killed children, and for a moment there may be none.
        while not (alive := children(worker)):
            pass
        os.kill(random.choice(alive), signal.SIGKILL)
    ids += send(queue, 200)
    wait_for_runs(queue, ids)


@pytest.mark.parametrize("how", ["SIGKILL", "SIGQUIT"])
def test_a_worker_that_ends_in_the_middle(queue: Queue, broker: Broker, how: str) -> None:
    ids = send(queue, 1000)
    worker = queue.worker("prefork", 2)
    wait_until_some_are_finished(broker, ids, 200)
    if how == "SIGKILL":
        worker.kill()
    else:
        worker.signal(signal.SIGQUIT)
        try:
            worker.wait(15)
        except subprocess.TimeoutExpired:
            # The pool may wait for a lock that a child had when it was terminated: then a
            # supervisor kills the worker.
            worker.kill()
    done = finished(broker, ids)
    # Celery stores a result before the run ends: each child may be in between.
    spans = queue.receiver.wait_for(lambda spans: len(done - set(runs(spans))) <= 2)
    assert 200 <= len(done) < 1000
    assert set(runs(spans).values()) == {1}


@pytest.mark.conformance("child killed between its last span and its result")
@pytest.mark.parametrize("concurrency", [1, 2])
@pytest.mark.parametrize("task", ["die_in_a_handler", "die_at_the_end"])
def test_a_child_killed_between_its_last_span_and_its_result(
    queue: Queue, task: str, concurrency: int
) -> None:
    worker = queue.worker("prefork", concurrency)
    queue.send(task)
    send, run = queue.spans(f"send {task}", f"process {task}")
    worker.wait_for_line("WorkerLostError")
    assert worker.stop() == 0
    assert run.parent_id == send.span_id
    assert run.attributes["celery.task.state"] == "SUCCESS"
    assert [span.name for span in queue.receiver.spans].count(run.name) == 1
