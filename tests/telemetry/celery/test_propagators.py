"""``OTEL_PROPAGATORS`` is for the queue as well as for HTTP."""

import json
from typing import Any

import pytest
import redis
from celery import Celery, Task

from telemetry.celery import instrument_celery
from telemetry.selfcheck import describe_process

from ...conftest import Broker
from ..tracing.sinks import ListSink
from .conftest import working
from .test_headers_of_others import is_under

FORMATS = ["b3", "b3multi", "jaeger", "xray", "tracecontext,b3", "b3multi,tracecontext,baggage"]


def make_app(broker: Broker, **options: Any) -> Celery:
    app = Celery("formats", broker=broker.url, backend=broker.url, set_as_default=False)
    app.conf.worker_hijack_root_logger = False
    instrument_celery(app, **options)

    @app.task(name="twice", shared=False, bind=True, max_retries=1)
    def twice(task: Task) -> None:
        if not task.request.retries:
            raise task.retry(countdown=0)

    @app.task(name="parent", shared=False, bind=True)
    def parent(task: Task) -> None:
        twice.apply_async(headers=task.request.headers)

    return app


@pytest.mark.parametrize("setting", FORMATS)
def test_a_retry_and_a_task_of_a_task_are_one_trace(
    broker: Broker, sink: ListSink, setting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_PROPAGATORS", setting)
    app = make_app(broker)
    with working(app):
        app.tasks["parent"].apply_async().get(timeout=60)
        sink.wait_for_count("process twice", 2)
    spans = sink.received()
    # The run may end before its send does.
    sent, ran = (
        next(span for span in spans if span.name == name)
        for name in ("send parent", "process parent")
    )
    assert is_under(ran, sent)
    runs = [span for span in spans if span.name == "process twice"]
    first, second = sorted(runs, key=lambda run: run.attributes.get("celery.task.retries", 0))
    send = next(span for span in spans if span.name == "send twice" and span.kind == "PRODUCER")
    assert is_under(send, ran)
    assert is_under(first, send)
    assert is_under(second, send), "a sibling"
    app.close()


@pytest.mark.parametrize("setting", ["none", "baggage"])
def test_without_a_format_of_contexts_nothing_is_written(
    broker: Broker, sink: ListSink, setting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_PROPAGATORS", setting)
    app = make_app(broker)
    app.tasks["parent"].apply_async()
    with redis.Redis(port=broker.port) as client:
        headers = json.loads(client.lindex("celery", 0))["headers"]
    assert not {"traceparent", "tracestate", "b3"} & headers.keys()
    with working(app):
        (run,) = sink.wait_for("process parent")
    assert run.parent_id == ""
    app.close()


@pytest.mark.parametrize("setting", FORMATS)
def test_the_doctor_knows_that_a_context_is_carried(
    sink: ListSink, setting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_PROPAGATORS", setting)
    assert describe_process().carries
