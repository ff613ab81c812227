"""Hops 3 and 4: the headers of a message, and the spans at both of its ends."""

import json
import time

import pytest
import redis
from opentelemetry import baggage, context, trace

from telemetry.celery import instrument_celery
from telemetry.otlp.decode import ReceivedSpan

from ...conftest import Broker
from .conftest import Queue

TASK = "tests.telemetry.celery.project"
POOLS = ["prefork", "solo", "threads", "gevent"]


def message(broker: Broker) -> dict[str, object]:
    """Return the headers of the only message in the queue."""
    with redis.Redis(port=broker.port) as client:
        (raw,) = client.lrange("celery", 0, -1)
    headers: dict[str, object] = json.loads(raw)["headers"]
    return headers


def ids(span: ReceivedSpan) -> tuple[str, str]:
    return span.trace_id, span.span_id


def links(span: ReceivedSpan) -> list[tuple[str, str]]:
    return [(link.trace_id, link.span_id) for link in span.links]


@pytest.mark.parametrize("pool", POOLS)
def test_a_run_is_under_its_send_and_linked_to_it(queue: Queue, broker: Broker, pool: str) -> None:
    queue.worker(pool)
    with trace.get_tracer("test").start_as_current_span("root"):
        result = queue.send("where")
    root, send, run = queue.spans("root", "send where", "process where")

    assert (send.kind, run.kind) == ("PRODUCER", "CONSUMER")
    assert send.trace_id == run.trace_id == root.trace_id
    assert (send.parent_id, run.parent_id) == (root.span_id, send.span_id)
    assert links(run) == [ids(send)]
    assert links(send) == []
    assert (send.status, run.status) == ("UNSET", "UNSET")
    assert run.service == "worker"
    common = {
        "messaging.system": "redis",
        "messaging.destination.name": "celery",
        "messaging.message.id": result.id,
        "server.address": "127.0.0.1",
        "server.port": broker.port,
        "celery.task.name": f"{TASK}.where",
        "celery.root_id": result.id,
    }
    assert send.attributes == common | {
        "messaging.operation.name": "send",
        "messaging.operation.type": "send",
    }
    waits = {key: run.attributes.pop(f"celery.wait.{key}") for key in ("queue", "prefetch")}
    assert all(0 <= wait < 5 for wait in waits.values())
    assert run.attributes == common | {
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "celery.task.state": "SUCCESS",
        "celery.wait.scheduled": 0.0,
    }
    assert result.get(timeout=60) == root.trace_id


def test_the_message_carries_the_w3c_headers_and_when_it_was_sent(
    queue: Queue, broker: Broker
) -> None:
    own = {"tenant": "blue"}
    before = time.time()
    token = context.attach(baggage.set_baggage("who", "me"))
    try:
        queue.send("add", 1, 2, headers=own)
    finally:
        context.detach(token)
    (send,) = queue.spans("send add")
    headers = message(broker)

    assert headers["traceparent"] == f"00-{send.trace_id}-{send.span_id}-03"
    assert headers["baggage"] == "who=me"
    assert headers["tenant"] == "blue"
    assert isinstance(headers["queuehop-sent-at"], str)
    assert before <= float(headers["queuehop-sent-at"]) <= time.time()
    assert own == {"tenant": "blue"}
    assert "queuehop-links" not in headers
    assert "tracestate" not in headers


def test_a_traceparent_of_the_callers_own_is_left_and_the_send_says_so(
    queue: Queue, broker: Broker
) -> None:
    given = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    queue.send("add", 1, 2, headers={"traceparent": given})
    (send,) = queue.spans("send add")
    assert message(broker)["traceparent"] == given
    assert send.kind == "CLIENT"
    assert links(send) == [("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")]
    queue.worker("solo")
    (run,) = queue.spans("process add")
    assert ids(run)[0] == "0af7651916cd43dd8448eb211c80319c"
    assert run.parent_id == "b7ad6b7169203331"


@pytest.mark.parametrize("pool", POOLS)
def test_a_failure_is_an_error_with_one_exception(queue: Queue, pool: str) -> None:
    queue.worker(pool)
    queue.send("fail")
    (run,) = queue.spans("process fail")
    assert run.status == "ERROR"
    assert run.attributes["error.type"] == "LookupError"
    assert run.attributes["celery.task.state"] == "FAILURE"
    assert [event.name for event in run.events] == ["exception"]


def test_an_exception_that_the_task_announces_is_no_error(solo: Queue) -> None:
    solo.send("expected")
    (run,) = solo.spans("process expected")
    assert run.status == "UNSET"
    assert run.attributes["celery.task.state"] == "FAILURE"
    assert [event.name for event in run.events] == ["exception"]


@pytest.mark.parametrize("pool", POOLS)
def test_retries_are_siblings_each_linked_to_the_one_before(queue: Queue, pool: str) -> None:
    queue.worker(pool)
    queue.send("retry", 0.3)
    first, second, third = queue.spans("process retry", "process retry", "process retry")
    sends = queue.spans("send retry", "send retry", "send retry")

    assert {run.parent_id for run in (first, second, third)} == {sends[0].span_id}
    assert [run.attributes["celery.task.state"] for run in (first, second, third)] == [
        "RETRY",
        "RETRY",
        "SUCCESS",
    ]
    assert [run.status for run in (first, second, third)] == ["ERROR", "ERROR", "UNSET"]
    assert [run.attributes.get("celery.task.retries") for run in (first, second, third)] == [
        None,
        1,
        2,
    ]
    assert links(first) == [ids(sends[0])]
    assert links(second) == [ids(sends[0]), ids(first)]
    assert links(third) == [ids(sends[0]), ids(second)]
    assert [send.kind for send in sends] == ["PRODUCER", "CLIENT", "CLIENT"]
    assert [send.parent_id for send in sends[1:]] == [first.span_id, second.span_id]
    assert links(sends[1]) == links(sends[2]) == [ids(sends[0])]
    for run in (second, third):
        assert 0 < run.attributes["celery.wait.scheduled"] <= 0.301


def test_a_nested_publish_is_under_the_run(prefork: Queue) -> None:
    prefork.send("outer")
    outer, send, inner = prefork.spans("process outer", "send add", "process add")
    assert send.parent_id == outer.span_id
    assert inner.parent_id == send.span_id
    assert outer.trace_id == inner.trace_id


def test_a_retry_with_headers_of_its_own_is_a_sibling_too(prefork: Queue) -> None:
    prefork.send("again")
    sent, first, resent, second = prefork.spans(
        "send again", "process again", "send again", "process again"
    )
    assert (sent.kind, resent.kind) == ("PRODUCER", "CLIENT")
    assert first.parent_id == second.parent_id == sent.span_id
    assert ids(first) in links(second)
    # The task gave the retry no exception, so the one being handled counts.
    assert first.attributes["celery.task.state"] == "RETRY"
    assert (first.status, first.attributes["error.type"]) == ("ERROR", "ConnectionError")
    assert second.attributes["celery.task.state"] == "SUCCESS"


@pytest.mark.conformance("publish failed")
def test_a_failed_publish_ends_its_span_and_leaves_nothing_current(
    queue: Queue, reporting: None
) -> None:
    from .project import make_app

    app = make_app("redis://127.0.0.1:1/0")
    app.conf.update(
        task_publish_retry=False,
        task_ignore_result=True,
        result_backend_transport_options={"retry_policy": {"timeout": 0.1}},
    )
    with trace.get_tracer("test").start_as_current_span("root") as root:
        with pytest.raises(Exception, match=r"(?i)connect"):
            app.send_task("whatever", ignore_result=True)
        assert trace.get_current_span() is root
    (send,) = queue.spans("send whatever")
    assert send.status == "ERROR"
    assert send.attributes["error.type"] == "kombu.exceptions.OperationalError"
    assert [event.name for event in send.events] == ["exception"]


def test_the_children_of_a_pool_that_grows_have_no_message_current(queue: Queue) -> None:
    worker = queue.worker("prefork", 4, "--autoscale=4,1")
    for _ in range(8):
        queue.send("hang", 0.2)
    queue.spans(*["process hang"] * 8)
    worker.wait_for_line("Scaling up")
    assert "a span is current outside of tasks" not in worker.output


def test_instrumenting_twice_makes_one_span(queue: Queue) -> None:
    assert instrument_celery(queue.app) is queue.app
    queue.send("add", 1, 2)
    queue.spans("send add")
    assert len(queue.receiver.spans) == 1


def test_a_publisher_keeps_the_name_of_its_own_process(queue: Queue) -> None:
    queue.send("add", 1, 2)
    (send,) = queue.spans("send add")
    assert send.service != "worker"


def test_another_word_for_relation_is_refused(queue: Queue) -> None:
    with pytest.raises(ValueError, match="'child' or 'link'"):
        instrument_celery(queue.app, relation="sibling")  # type: ignore[arg-type]


@pytest.mark.parametrize("pool", ["prefork", "solo"])
def test_the_workers_log_lines_of_a_message_name_its_trace(queue: Queue, pool: str) -> None:
    worker = queue.worker(pool, 1, LOG_IDS="1")
    queue.send("add", 1, 2)
    (send, run) = queue.spans("send add", "process add")
    received = worker.wait_for_line("received")
    succeeded = worker.wait_for_line("succeeded")
    assert f"{send.trace_id} {send.span_id}" in received
    assert f"{run.trace_id} {run.span_id}" in succeeded


def test_what_a_task_held_is_free_once_it_has_ended(solo: Queue) -> None:
    held = [solo.send("hold") for _ in range(3)]
    assert [result.get(timeout=60) for result in held] == [0, 0, 0]
