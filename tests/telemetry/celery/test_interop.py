"""Messages from and to programs without this library: one trace, or a clean new one."""

import json
import textwrap
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from telemetry.otlp.decode import ReceivedSpan

from ...rabbitmq import RabbitMQ
from .conftest import Queue
from .project import make_app
from .test_hops import TASK, ids, links

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"

CONTRIB = """
    import sys
    from celery import Celery, signals
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.instrumentation.celery import CeleryInstrumentor
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor

    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    CeleryInstrumentor().instrument()
    app = Celery("theirs")

    @app.task(name="{task}.add")
    def add(x, y):
        return x + y

    if __name__ == "__main__":
        app.send_task("{task}.add", (1, 2))
"""


def publish(app: Celery, headers: dict[str, Any], body: Any, **properties: Any) -> None:
    """Publish a message unchanged, without Celery and without this library."""
    with app.connection_for_write() as connection:
        connection.Producer(serializer="json").publish(
            body, routing_key="celery", headers=headers, declare=[app.amqp.queues["celery"]],
            **properties,
        )  # fmt: skip


def protocol_2(task_id: str = "one", **headers: Any) -> tuple[dict[str, Any], Any]:
    """Return the headers and the body of the smallest message that Celery accepts as a task."""
    return {"task": f"{TASK}.add", "id": task_id, **headers}, ([1, 2], {}, None)


@pytest.fixture
def contrib(tmp_path: Path) -> str:
    (tmp_path / "theirs.py").write_text(textwrap.dedent(CONTRIB.format(task=TASK)))
    return f"{tmp_path}:."


class TestContrib:
    """The real ``opentelemetry-instrumentation-celery``."""

    def test_their_message_to_our_worker(self, queue: Queue, contrib: str) -> None:
        queue.worker("solo")
        assert queue.start("theirs", PYTHONPATH=contrib).wait() == 0
        (run,) = queue.spans("process add")
        (send,) = [span for span in queue.receiver.spans if span.kind == "PRODUCER"]
        assert run.trace_id == send.trace_id
        assert run.parent_id == send.span_id
        assert links(run) == [ids(send)]

    def test_our_message_to_their_worker(self, queue: Queue, contrib: str) -> None:
        worker = queue.start(
            *("celery", "-A", "theirs", "worker", "-P", "solo", "-l", "INFO"), PYTHONPATH=contrib
        )
        worker.wait_for_line(" ready.")
        queue.send("add", 1, 2)
        (send,) = queue.spans("send add")
        spans = queue.receiver.wait_for(lambda spans: [s for s in spans if s.kind == "CONSUMER"])
        (run,) = [span for span in spans if span.kind == "CONSUMER"]
        assert run.trace_id == send.trace_id
        assert send.span_id in (run.parent_id, *(link.span_id for link in run.links))


class TestWireFormats:
    """The headers of Sentry and Datadog, written by hand. The tests run neither here."""

    def test_sentry(self, queue: Queue) -> None:
        sentry = {
            "sentry-trace": f"{TRACE}-{PARENT}-1",
            "baggage": f"sentry-trace_id={TRACE},sentry-environment=production,sentry-sampled=true",
            "sentry-monitor-start-timestamp-s": "1700000000.1",
        }
        headers, body = protocol_2(**sentry, headers=sentry)
        run = _run(queue, headers, body)
        assert run.parent_id == ""
        assert run.status == "UNSET"

    def test_datadog(self, queue: Queue) -> None:
        datadog = {
            "x-datadog-trace-id": "1234567890123456789",
            "x-datadog-parent-id": "987654321",
            "x-datadog-sampling-priority": "1",
            "x-datadog-tags": "_dd.p.dm=-1,_dd.p.tid=0af7651916cd43dd",
            "traceparent": TRACEPARENT,
            "tracestate": "dd=p:b7ad6b7169203331;s:1;t.dm:-1",
        }
        headers, body = protocol_2(**datadog)
        run = _run(queue, headers, body)
        assert (run.trace_id, run.parent_id) == (TRACE, PARENT)
        assert run.trace_state == "dd=p:b7ad6b7169203331;s:1;t.dm:-1"

    def test_another_language_with_the_least_that_a_message_needs(self, queue: Queue) -> None:
        # Go's http.Header writes names so, and W3C wants them read in any case.
        headers, body = protocol_2(lang="go", Traceparent=TRACEPARENT, Tracestate="a=1")
        run = _run(queue, headers, body)
        assert (run.trace_id, run.parent_id) == (TRACE, PARENT)
        assert run.trace_state == "a=1"
        assert "celery.wait.queue" not in run.attributes
        assert run.attributes["celery.wait.prefetch"] >= 0

    @pytest.mark.parametrize("context", [{}, {"Traceparent": TRACEPARENT}], ids=["none", "Go"])
    def test_a_retry_is_linked_to_the_attempt_before(
        self, queue: Queue, context: dict[str, str]
    ) -> None:
        queue.worker("solo")
        headers, body = protocol_2(task=f"{TASK}.retry", **context)
        publish(queue.app, headers, ((0,), {}, body[2]))
        first, second, third = queue.spans("process retry", "process retry", "process retry")
        assert first.parent_id == (PARENT if context else "")
        assert first.trace_id == second.trace_id == third.trace_id
        assert second.parent_id == third.parent_id
        assert [links(second)[-1], links(third)[-1]] == [ids(first), ids(second)]


class TestProtocol1:
    def test_our_own(self, queue: Queue) -> None:
        queue.app.conf.task_protocol = 1
        queue.worker("prefork")
        result = queue.send("retry", 0.2, headers={"tenant": "blue"})
        send, first, last = queue.spans("send retry", "process retry", "process retry")
        assert first.parent_id == last.parent_id == send.span_id
        assert first.attributes["messaging.message.id"] == result.id
        assert ids(first) in links(last)

    def test_a_foreign_one(self, queue: Queue) -> None:
        body = {"task": f"{TASK}.add", "id": "one", "args": [1, 2], "kwargs": {}}
        publish(queue.app, {}, {**body, "id": "without a trace"})
        run = _run(queue, {"traceparent": TRACEPARENT}, body)
        assert (run.trace_id, run.parent_id) == (TRACE, PARENT)
        other, _ = queue.spans("process add", "process add")
        assert (other.attributes["messaging.message.id"], other.parent_id) == (
            "without a trace",
            "",
        )

    def test_a_task_that_nobody_knows(self, queue: Queue) -> None:
        body = {"task": "nobody.knows", "id": "one", "args": [], "kwargs": {}}
        publish(queue.app, {"traceparent": TRACEPARENT}, body)
        queue.worker("solo")
        (run,) = queue.spans("process nobody.knows")
        assert (run.trace_id, run.parent_id) == (TRACE, PARENT)
        assert run.attributes["celery.task.state"] == "UNKNOWN"
        assert run.attributes["messaging.message.id"] == "one"


HOSTILE: list[Any] = [None, 7, -1.5, True, "", "00", "x" * 100_000, [], [1], {"a": {"b": []}}]


@pytest.mark.parametrize("pool", ["prefork", "solo"])
def test_whatever_the_headers_hold_the_task_runs(queue: Queue, pool: str) -> None:
    ours = ["traceparent", "tracestate", "baggage", "queuehop-sent-at", "queuehop-links",
            "queuehop-relation", "queuehop-received-at", "queuehop-ids"]  # fmt: skip
    worker = queue.worker(pool)
    for number, value in enumerate(HOSTILE):
        headers, body = protocol_2(f"hostile-{number}", **dict.fromkeys(ours, value))
        publish(queue.app, headers, body)
    runs = queue.spans(*["process add"] * len(HOSTILE))
    assert {run.attributes["celery.task.state"] for run in runs} == {"SUCCESS"}
    assert {run.parent_id for run in runs} == {""}
    assert len({run.trace_id for run in runs}) == len(HOSTILE)
    assert "Traceback" not in worker.output


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_on_rabbitmq(queue: Queue, rabbitmq: RabbitMQ, pool: str) -> None:
    app = make_app(rabbitmq.url)
    there = Queue(app, queue.receiver, queue.start)
    app.control.purge()  # the server is the session's: others may have left messages
    worker = there.worker(pool, CELERY_BROKER_URL=rabbitmq.url)
    there.send("retry", 0.2)
    send, first, last, _ = there.spans("send retry", *["process retry"] * 3)
    assert first.parent_id == last.parent_id == send.span_id
    assert ids(first) in links(last)
    assert send.attributes["messaging.system"] == first.attributes["messaging.system"] == "rabbitmq"
    assert 0 < last.attributes["celery.wait.scheduled"] <= 0.201

    for number, value in enumerate([b"\xff\x00", b"00-abc", 1 << 40, {"deep": {"er": [1, b"2"]}}]):
        headers, body = protocol_2(f"bytes-{number}", traceparent=value, baggage=value)
        publish(app, headers, body)
    headers, body = protocol_2("well", traceparent=TRACEPARENT.encode())
    publish(app, headers, body)
    runs = there.spans(*["process add"] * 5)
    by_id = {run.attributes["messaging.message.id"]: run for run in runs}
    assert (by_id["well"].trace_id, by_id["well"].parent_id) == (TRACE, PARENT)
    assert {run.attributes["celery.task.state"] for run in runs} == {"SUCCESS"}

    app.send_task("nobody.knows")
    (unknown,) = there.spans("process nobody.knows")
    assert unknown.attributes["celery.task.state"] == "UNKNOWN"
    assert "tracing could not" not in worker.output
    app.close()


def _run(queue: Queue, headers: dict[str, Any], body: Any) -> ReceivedSpan:
    """Publish a message, run it on a solo worker, and return the span of its run."""
    assert json.dumps(headers)
    publish(queue.app, headers, body)
    queue.worker("solo").wait_for_line("succeeded")
    task_id = headers.get("id") or body["id"]

    def ran(spans: list[ReceivedSpan]) -> list[ReceivedSpan]:
        return [span for span in spans if span.attributes.get("messaging.message.id") == task_id]

    (run,) = ran(queue.receiver.wait_for(ran))
    return run
