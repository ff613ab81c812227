"""celery-batches: one run of many messages."""

from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery
from celery_batches import Batches

from telemetry.celery import instrument_celery

from ...conftest import Broker
from ..tracing.sinks import ListSink
from .conftest import working

COUNT = 5


@pytest.fixture
def app(broker: Broker, sink: ListSink) -> Iterator[Celery]:
    app = Celery("batches", broker=broker.url, backend=broker.url, set_as_default=False)
    app.conf.update(worker_hijack_root_logger=False, worker_prefetch_multiplier=COUNT)
    instrument_celery(app)

    @app.task(name="count", base=Batches, flush_every=COUNT, flush_interval=60, shared=False)
    def count(requests: list[Any]) -> None:
        if any(request.args[0] == "broken" for request in requests):
            raise LookupError("broken")

    yield app
    app.close()


def test_a_run_links_to_each_send(app: Celery, sink: ListSink) -> None:
    with working(app):
        for number in range(COUNT):
            app.tasks["count"].delay(number)
        (run,) = sink.wait_for("process count")
    sends = [span for span in sink.received() if span.name == "send count"]
    assert {(link.trace_id, link.span_id) for link in run.links} == {
        (send.trace_id, send.span_id) for send in sends
    }
    assert len(run.links) == COUNT
    assert run.parent_id == ""
    assert run.kind == "CONSUMER"
    assert run.attributes["messaging.batch.message_count"] == COUNT
    assert run.attributes["messaging.destination.name"] == "celery"
    assert run.attributes["celery.task.state"] == "SUCCESS"
    assert "messaging.message.id" not in run.attributes
    first = min(send.start_ns for send in sends)
    waited = run.attributes["celery.wait.queue"] + run.attributes["celery.wait.prefetch"]
    longest = (run.start_ns - first) / 1e9
    assert 0 < waited <= longest
    assert waited > longest / 2


def test_a_batch_that_failed_is_an_error(app: Celery, sink: ListSink) -> None:
    with working(app):
        for number in range(COUNT):
            app.tasks["count"].delay("broken" if number == 2 else number)
        (run,) = sink.wait_for("process count")
    assert run.status == "ERROR"
    assert run.attributes["celery.task.state"] == "FAILURE"


def test_the_metrics_count_the_messages(app: Celery, sink: ListSink) -> None:
    with working(app):
        for number in range(COUNT):
            app.tasks["count"].delay(number)
        sink.wait_for("process count")
    measured = [each.measurement for each in sink.outgoing() if each.measurement is not None]
    consumed = [
        each.values[each.series.instruments.index("messaging.client.consumed.messages")]
        for each in measured
        if "messaging.client.consumed.messages" in each.series.instruments
    ]
    assert consumed == [COUNT]


def test_called_in_place_it_is_an_ordinary_run(app: Celery, sink: ListSink) -> None:
    app.tasks["count"].apply(args=(1,))
    (run,) = sink.wait_for("process count")
    assert "messaging.batch.message_count" not in run.attributes
