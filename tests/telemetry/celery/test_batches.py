"""One run of many messages, as celery-batches makes it.

The package cannot be installed beside the newest Celery, so these tests send its signals by hand.
``tests/interop`` runs it in a real worker.
"""

import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery, signals
from celery.app.task import Context

from telemetry.celery import instrument_celery
from telemetry.otlp.decode import ReceivedSpan

from ..tracing.sinks import ListSink

COUNT = 5
RUN_COUNT = "messaging.client.consumed.messages"


@pytest.fixture
def app(sink: ListSink) -> Iterator[Celery]:
    app = Celery("batches", broker="memory://", set_as_default=False)
    instrument_celery(app)

    @app.task(name="count", shared=False)
    def count(requests: list[Any]) -> None:
        """Never called: the tests send its signals alone."""

    app.finalize()
    yield app
    app.close()


def requests(**headers: Any) -> list[Any]:
    now = time.time()
    return [
        SimpleNamespace(
            request_dict={
                "id": f"task-{number}",
                "traceparent": f"00-{number:032x}-{number:016x}-01",
                "queuehop-sent-at": str(now - 10 * number),
                "queuehop-received-at": now - number,
                **headers,
            },
            delivery_info={"routing_key": "celery", "redelivered": False},
        )
        for number in range(1, COUNT + 1)
    ]


def run_of(
    app: Celery, sink: ListSink, batch: list[Any], state: str = "SUCCESS", **request: Any
) -> ReceivedSpan:
    """Run the task with *batch* as ``celery_batches.trace.apply_batches_task`` does."""
    task = app.tasks["count"]
    task.request_stack.push(Context(loglevel=0, logfile=None, **request))
    common = {"sender": task, "task_id": "batch", "task": task, "args": (batch,), "kwargs": {}}
    signals.task_prerun.send(**common)
    signals.task_postrun.send(**common, retval=None, state=state)
    task.request_stack.pop()
    (run,) = sink.received()
    return run


def test_a_run_links_to_each_send_and_counts_them(app: Celery, sink: ListSink) -> None:
    run = run_of(app, sink, requests())
    assert [int(link.span_id, 16) for link in run.links] == list(range(1, COUNT + 1))
    assert (run.name, run.kind, run.parent_id) == ("process count", "CONSUMER", "")
    assert run.attributes["messaging.batch.message_count"] == COUNT
    assert run.attributes["messaging.destination.name"] == "celery"
    assert run.attributes["celery.task.state"] == "SUCCESS"
    assert "messaging.message.id" not in run.attributes


def test_its_waits_are_those_of_the_message_that_waited_longest(
    app: Celery, sink: ListSink
) -> None:
    run = run_of(app, sink, requests())
    assert run.attributes["celery.wait.queue"] == pytest.approx(9 * COUNT, abs=1)
    assert run.attributes["celery.wait.prefetch"] >= COUNT


def test_a_batch_that_failed_is_an_error(app: Celery, sink: ListSink) -> None:
    run = run_of(app, sink, requests(), "FAILURE")
    assert run.status == "ERROR"
    assert run.attributes["celery.task.state"] == "FAILURE"


def test_the_metrics_count_the_messages(app: Celery, sink: ListSink) -> None:
    run_of(app, sink, requests())
    (measured,) = [each.measured[1] for each in sink.outgoing() if each.measured is not None]
    assert measured.values[measured.series.instruments.index(RUN_COUNT)] == COUNT


def test_a_list_of_other_things_is_an_ordinary_argument(app: Celery, sink: ListSink) -> None:
    run = run_of(app, sink, [1, 2], id="batch")
    assert "messaging.batch.message_count" not in run.attributes
