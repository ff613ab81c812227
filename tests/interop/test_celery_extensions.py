"""celery-batches, celery-singleton and RedBeat, on real workers."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from celery import Celery, chord

from telemetry.celery import instrument_celery
from telemetry.otlp.decode import ReceivedSpan
from telemetry.otlp.receiver import Receiver

from ..conftest import Broker
from ..processes import Process, Starter
from .environment import python_with

pytestmark = pytest.mark.usefixtures("reporting")


def named(spans: list[ReceivedSpan], *names: str) -> list[ReceivedSpan]:
    return sorted((s for s in spans if s.name in names), key=lambda span: span.start_ns)


def wait_for(receiver: Receiver, **counts: int) -> list[ReceivedSpan]:
    """Wait for these numbers of sends and runs of each task; return all spans."""

    def arrived(spans: list[ReceivedSpan]) -> bool:
        return all(
            len(named(spans, f"{kind} {task}")) >= count
            for task, count in counts.items()
            for kind in ("send", "process")
        )

    return receiver.wait_for(arrived, timeout=60.0)


def start_worker(start: Starter, app: str, *more: str) -> Process:
    worker = start(
        *("celery", "-A", app, "worker", "-c", "1", "--loglevel=INFO", "--without-gossip"),
        *("--without-mingle", "--without-heartbeat", *more),
    )
    worker.wait_for_line(" ready.")
    return worker


class TestBatches:
    """celery-batches takes an older Celery than the newest: the worker has it from elsewhere."""

    pytestmark = pytest.mark.timeout(600)

    @pytest.fixture
    def worker(self, start: Starter) -> Process:
        start.python = python_with("batches")
        return start_worker(start, "tests.interop.batches")

    @pytest.fixture
    def app(self, broker: Broker) -> Iterator[Celery]:
        app = instrument_celery(Celery("sender", broker=broker.url, backend=broker.url))
        yield app
        app.close()

    @pytest.mark.interop(
        "celery-batches",
        "three messages, one run",
        "a run that links to each message's send, with their number, the queue and the waits; "
        "what it publishes is under it",
    )
    def test_one_run_of_three_messages(
        self, worker: Process, app: Celery, receiver: Receiver
    ) -> None:
        began = time.time()
        results = [app.send_task("three") for _ in range(3)]
        assert [result.get(timeout=60) for result in results] == [3, 3, 3]
        receiver.wait_for(
            lambda spans: len(named(spans, "send three", "process three", "process single")) >= 5
        )
        sends = named(receiver.spans, "send three")
        (run,) = named(receiver.spans, "process three")
        assert run.kind == "CONSUMER"
        assert {link.span_id for link in run.links} == {send.span_id for send in sends}
        assert run.attributes["messaging.batch.message_count"] == 3
        assert run.attributes["messaging.destination.name"] == "celery"
        assert run.attributes["messaging.system"] == "redis"
        assert run.attributes["celery.task.state"] == "SUCCESS"
        elapsed = time.time() - began
        assert 0 <= run.attributes["celery.wait.queue"] <= elapsed
        assert 0 <= run.attributes["celery.wait.prefetch"] <= elapsed
        assert {send.status for send in sends} | {run.status} == {"UNSET"}

        (inside,) = named(receiver.spans, "process single")
        (published,) = named(receiver.spans, "send single")
        assert (published.trace_id, published.parent_id) == (run.trace_id, run.span_id)
        assert (inside.trace_id, inside.parent_id) == (run.trace_id, published.span_id)
        assert "tracing could not" not in worker.output

        self._failing(app, receiver)
        self._flushed(app, receiver)

    def test_a_chord_on_this_older_celery(
        self, worker: Process, app: Celery, receiver: Receiver
    ) -> None:
        chord([app.signature("part")] * 2, app.signature("body"))()
        spans = wait_for(receiver, part=2, body=1)
        (body,), (send,) = named(spans, "process body"), named(spans, "send body")
        parts = named(spans, "process part")
        assert {link.span_id for link in body.links} == {each.span_id for each in [send, *parts]}

    @staticmethod
    def _failing(app: Celery, receiver: Receiver) -> None:
        """A batch that raises is an ERROR, and the next is a run of its own."""
        for fail in (False, True, False):
            app.send_task("three", kwargs={"fail": fail})
        receiver.wait_for(lambda spans: len(named(spans, "send three", "process three")) >= 8)
        _, run = named(receiver.spans, "process three")
        assert (run.status, run.attributes["celery.task.state"]) == ("ERROR", "FAILURE")
        last = named(receiver.spans, "send three")[-3:]
        assert {link.span_id for link in run.links} == {send.span_id for send in last}

    @staticmethod
    def _flushed(app: Celery, receiver: Receiver) -> None:
        """One message that waits for others: the wait is the worker's."""
        app.send_task("soon")
        receiver.wait_for(lambda spans: len(named(spans, "send soon", "process soon")) >= 2)
        (send,) = named(receiver.spans, "send soon")
        (run,) = named(receiver.spans, "process soon")
        assert [link.span_id for link in run.links] == [send.span_id]
        assert run.attributes["messaging.batch.message_count"] == 1
        waited = run.attributes["celery.wait.queue"] + run.attributes["celery.wait.prefetch"]
        least, most = ((run.start_ns - sent) / 1e9 for sent in (send.end_ns, send.start_ns))
        assert least - 0.1 <= waited <= most + 0.1


@pytest.fixture
def extended(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module of the app, whose broker is that of the tests."""
    monkeypatch.setenv("CELERY_BROKER_URL", broker.url)
    from . import tasks

    tasks.app.conf.update(broker_url=broker.url, result_backend=broker.url)
    yield tasks
    tasks.app.close()


@pytest.mark.interop(
    "celery-singleton",
    "a singleton task that is published twice while it waits",
    "one send and one run, in one trace",
)
@pytest.mark.interop(
    "celery-redbeat",
    "`--scheduler redbeat.RedBeatScheduler`",
    "each tick's send and run are a trace of their own",
)
def test_singleton_and_redbeat(
    extended: Any, start: Starter, broker: Broker, receiver: Receiver
) -> None:
    first, again = extended.once.delay(7), extended.once.delay(7)
    assert first.id == again.id
    worker = start_worker(
        start, "tests.interop.tasks", "--beat", "--scheduler", "redbeat.RedBeatScheduler"
    )
    assert first.get(timeout=60) == 7
    spans = wait_for(receiver, once=1, tick=2)
    (send,) = named(spans, "send once")
    (run,) = named(spans, "process once")
    assert (run.trace_id, run.parent_id) == (send.trace_id, send.span_id)

    sends = named(spans, "send tick")
    runs = named(spans, "process tick")[:2]
    assert len({send.trace_id for send in sends}) == len(sends)
    by_id = {send.span_id: send for send in sends}
    for run in runs:
        assert by_id[run.parent_id].trace_id == run.trace_id
        assert by_id[run.parent_id].parent_id == ""
    with redis.Redis(port=broker.port) as client:
        assert client.exists("redbeat:tick")
    assert "tracing could not" not in worker.output
