"""The rows of the span model on every pool and broker, through one worker for each."""

import json
from collections.abc import Iterator

import pytest
from celery import chain, chord, group
from celery.canvas import xmap, xstarmap
from opentelemetry import context, trace

import telemetry
from telemetry.otlp.decode import ReceivedSpan

from ...conftest import Broker
from ...in_process import Switch
from .conftest import Queue, shared_worker
from .test_endings import s, state
from .test_hops import TASK, ids, links
from .test_waiting import check_waits, waited

row = pytest.mark.conformance

PLACES = [
    ("prefork", "redis"),
    ("solo", "redis"),
    ("threads", "redis"),
    ("gevent", "redis"),
    ("prefork", "rabbitmq"),
]


#: The pools and brokers with child processes.
with_children = pytest.mark.parametrize(
    "place",
    [place for place in PLACES if place[0] == "prefork"],
    indirect=True,
    ids=lambda place: "-".join(place),
    scope="module",
)


@pytest.fixture(scope="module", params=PLACES, ids=lambda place: "-".join(place))
def place(
    request: pytest.FixtureRequest,
    broker_server: Broker,
    switch: Switch,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Queue, str]]:
    """A worker that many tests send to, and its pool."""
    pool, broker = request.param
    results = f"redis://127.0.0.1:{broker_server.port}/1"
    url = results if broker == "redis" else request.getfixturevalue("rabbitmq").url
    state = tmp_path_factory.mktemp("state")
    with shared_worker(pool, url, results, switch, state) as queue:
        yield queue, pool


@pytest.fixture
def queue(place: tuple[Queue, str], request: pytest.FixtureRequest) -> Queue:
    """The queue of the worker, without the spans of earlier tests."""
    queue, pool = place
    return queue.as_seen_by(request.node, pool)


@row("success")
def test_success(queue: Queue) -> None:
    queue.send("add", 1, 2)
    send, run = queue.spans("send add", "process add")
    assert (send.kind, run.kind) == ("PRODUCER", "CONSUMER")
    assert run.parent_id == send.span_id
    assert links(run) == [ids(send)]
    assert (state(run), run.status) == ("SUCCESS", "UNSET")


@row("exception")
def test_exception(queue: Queue) -> None:
    queue.send("fail")
    (run,) = queue.spans("process fail")
    assert (state(run), run.status) == ("FAILURE", "ERROR")
    assert run.attributes["error.type"] == "LookupError"
    assert [event.name for event in run.events] == ["exception"]


@row("exception listed in `throws`")
def test_throws(queue: Queue) -> None:
    queue.send("expected")
    (run,) = queue.spans("process expected")
    assert (state(run), run.status) == ("FAILURE", "UNSET")
    assert [event.name for event in run.events] == ["exception"]


@row("`Ignore`")
def test_ignore(queue: Queue) -> None:
    queue.send("ignore")
    (run,) = queue.spans("process ignore")
    assert (state(run), run.status) == ("IGNORED", "UNSET")


def siblings(first: ReceivedSpan, second: ReceivedSpan) -> None:
    """Two attempts under one send, the second linked to the first."""
    assert (state(first), first.status) == ("RETRY", "ERROR")
    assert second.parent_id == first.parent_id
    assert ids(first) in links(second)
    assert (
        second.attributes["celery.task.retries"]
        == first.attributes.get("celery.task.retries", 0) + 1
    )


@row("`autoretry_for`, and retries that run out")
def test_retries_that_run_out(queue: Queue) -> None:
    queue.send("hopeless")
    first, last = queue.spans("process hopeless", "process hopeless")
    siblings(first, last)
    assert (state(last), last.attributes["error.type"]) == ("FAILURE", "LookupError")


@row("chain")
def test_chain(queue: Queue) -> None:
    chain(s(queue, "add", 1, 2), s(queue, "add", 3), s(queue, "add", 4)).apply_async()
    sends = queue.spans(*["send add"] * 3)
    steps = queue.spans(*["process add"] * 3)
    assert [step.parent_id for step in steps] == [send.span_id for send in sends]
    assert [send.parent_id for send in sends] == ["", steps[0].span_id, steps[1].span_id]


@row("chain of 50")
def test_a_long_chain(queue: Queue) -> None:
    chain(s(queue, "add", 1, 2), *(s(queue, "add", 1) for _ in range(49))).apply_async()
    sends = queue.spans(*["send add"] * 50)
    steps = queue.spans(*["process add"] * 50)
    assert [step.parent_id for step in steps] == [send.span_id for send in sends]
    assert [send.parent_id for send in sends[1:]] == [step.span_id for step in steps[:-1]]
    assert len({step.trace_id for step in steps}) == 1


@row("group")
def test_group(queue: Queue) -> None:
    with trace.get_tracer("test").start_as_current_span("root"):
        group(s(queue, "add", n, n) for n in range(4)).apply_async()
    (root,) = queue.spans("root")
    sends = queue.spans(*["send add"] * 4)
    members = queue.spans(*["process add"] * 4)
    assert {send.parent_id for send in sends} == {root.span_id}
    assert {run.parent_id for run in members} == {send.span_id for send in sends}


@row("chord")
def test_chord(queue: Queue) -> None:
    chord([s(queue, "add", n, n) for n in range(4)], s(queue, "total")).apply_async()
    send, body = queue.spans("send total", "process total")
    headers = queue.spans(*["process add"] * 4)
    assert set(links(body)) == {ids(send), *map(ids, headers)}
    assert body.parent_id == send.span_id


@row("link and link_error")
def test_link_and_link_error(queue: Queue) -> None:
    s(queue, "add", 1, 2).apply_async(link=s(queue, "add", 5))
    first, second = queue.spans("process add", "process add")
    sends = queue.spans("send add", "send add")
    assert sends[1].parent_id == first.span_id
    assert second.parent_id == sends[1].span_id
    s(queue, "fail").apply_async(link_error=s(queue, "caught"))
    failed, send, errback = queue.spans("process fail", "send caught", "process caught")
    assert send.parent_id == failed.span_id
    assert errback.parent_id == send.span_id


@row("replace")
def test_replace(queue: Queue) -> None:
    queue.send("replace")
    replaced, send, run = queue.spans("process replace", "send add", "process add")
    assert (state(replaced), replaced.status) == ("IGNORED", "UNSET")
    assert send.parent_id == replaced.span_id
    assert run.parent_id == send.span_id


@row("send_task of a task that the producer does not have")
def test_a_task_that_the_producer_does_not_have(queue: Queue) -> None:
    assert f"{TASK}.only_here" not in queue.app.tasks
    queue.send("only_here")
    send, run = queue.spans("send only_here", "process only_here")
    assert run.parent_id == send.span_id


@row("nested delay")
def test_nested(queue: Queue) -> None:
    queue.send("outer")
    outer, send, inner = queue.spans("process outer", "send add", "process add")
    assert send.parent_id == outer.span_id
    assert inner.parent_id == send.span_id


@row("map, starmap, chunks")
def test_map_and_starmap(queue: Queue) -> None:
    xmap(s(queue, "total"), [[1], [2], [3]], app=queue.app).apply_async()
    xstarmap(s(queue, "add"), [(1, 2)] * 4, app=queue.app).apply_async()
    mapped, starred = queue.spans("process celery.map", "process celery.starmap")
    assert mapped.attributes["celery.task.items"] == 3
    assert starred.attributes["celery.task.items"] == 4


@row("eager")
def test_eager_in_a_task(queue: Queue) -> None:
    queue.send("eagerly")
    outer, inner = queue.spans("process eagerly", "process add")
    assert inner.parent_id == outer.span_id
    assert links(inner) == []


@row("rejected")
def test_rejected(queue: Queue) -> None:
    queue.send("reject")
    (run,) = queue.spans("process reject")
    assert (state(run), run.status) == ("REJECTED", "ERROR")
    assert run.attributes["error.type"] == "celery.exceptions.Reject"


def publish(queue: Queue, body: str, **headers: str) -> None:
    """Publish *body* unchanged."""
    with queue.app.connection_for_write() as connection:
        connection.Producer().publish(
            body, headers=headers, routing_key="celery", content_type="application/json",
            content_encoding="utf-8",
        )  # fmt: skip


@row("undecodable body")
def test_undecodable(queue: Queue) -> None:
    with trace.get_tracer("test").start_as_current_span("root") as root:
        context = root.get_span_context()
    parent = f"00-{context.trace_id:032x}-{context.span_id:016x}-01"
    publish(queue, "not json", task=f"{TASK}.add", id="1", lang="py", traceparent=parent)
    root_span, run = queue.spans("root", "process add")
    assert run.parent_id == root_span.span_id
    assert (state(run), run.status) == ("REJECTED", "ERROR")


@row("a message that names no task")
def test_no_task(queue: Queue) -> None:
    publish(queue, json.dumps({"not": "a task"}))
    (run,) = queue.spans("process unknown")
    assert run.parent_id == ""
    assert (state(run), run.status) == ("REJECTED", "ERROR")


@row("retry")
def test_retry(queue: Queue) -> None:
    queue.send("retry", 0.3)
    sends = queue.spans(*["send retry"] * 3)
    first, second, third = queue.spans(*["process retry"] * 3)
    assert first.parent_id == sends[0].span_id
    siblings(first, second)
    siblings(second, third)
    check_waits(sends[1], second)


@row("retry with another countdown and queue")
def test_retry_elsewhere(queue: Queue) -> None:
    queue.send("elsewhere", "other")
    _, again = queue.spans(*["send elsewhere"] * 2)
    first, second = queue.spans("process elsewhere", "process elsewhere")
    assert second.parent_id == first.parent_id
    assert ids(first) in links(second)
    assert state(second) == "SUCCESS"
    assert second.attributes["messaging.destination.name"] == "other"
    check_waits(again, second)


@row("expired")
def test_expired(queue: Queue) -> None:
    queue.send("add", 1, 2, expires=0.001, countdown=0.2)
    send, run = queue.spans("send add", "process add")
    assert run.parent_id == send.span_id
    assert (state(run), run.status) == ("EXPIRED", "UNSET")
    assert run.duration < 0.5


@row("revoked before it ran")
def test_revoked_before_it_ran(queue: Queue) -> None:
    result = queue.send("add", 1, 2, countdown=2)
    assert queue.app.control.revoke(result.id, reply=True, limit=1)
    send, run = queue.spans("send add", "process add")
    assert run.parent_id == send.span_id
    assert state(run) == "REVOKED"
    assert run.duration < 0.5


@row("unknown task")
def test_unknown(queue: Queue) -> None:
    queue.app.send_task("nobody.knows")
    send, run = queue.spans("send nobody.knows", "process nobody.knows")
    assert run.parent_id == send.span_id
    assert (state(run), run.status) == ("UNKNOWN", "ERROR")
    assert run.duration < 0.5


@row("waits against a known schedule")
def test_a_countdown(queue: Queue) -> None:
    queue.send("add", 1, 2, countdown=2)
    send, run = queue.spans("send add", "process add")
    check_waits(send, run)
    assert waited(run)[1] == 0  # the worker had it long before it was due


@with_children
@row("soft time limit")
def test_soft_limit(queue: Queue) -> None:
    queue.send("hang", soft_time_limit=0.5)
    (run,) = queue.spans("process hang")
    assert run.attributes["error.type"] == "billiard.exceptions.SoftTimeLimitExceeded"
    assert run.status == "ERROR"


@with_children
@row("hard time limit")
def test_hard_limit(queue: Queue) -> None:
    queue.send("hang", time_limit=1)
    send, run = queue.spans("send hang", "process hang")
    assert run.parent_id == send.span_id
    assert (state(run), run.status) == ("FAILURE", "ERROR")
    assert run.attributes["error.type"] == "billiard.exceptions.TimeLimitExceeded"


@with_children
@row("child killed")
def test_child_killed(queue: Queue) -> None:
    queue.send("die")
    send, run = queue.spans("send die", "process die")
    assert run.parent_id == send.span_id
    assert (state(run), run.status) == ("FAILURE", "ERROR")
    assert run.attributes["error.type"] == "billiard.exceptions.WorkerLostError"


@row("sampled out")
def test_a_task_sampled_out_leaves_no_span_and_its_context_travels(queue: Queue) -> None:
    asked = {"traceparent": f"00-{7:032x}-{7:016x}-00"}
    token = context.attach(telemetry.extract(asked))
    try:
        result = queue.send("where")
    finally:
        context.detach(token)
    assert result.get(timeout=60) == f"{7:032x}"
    queue.send("add", 1, 2)
    queue.spans("process add")
    assert not [span for span in queue.receiver.spans if span.trace_id == f"{7:032x}"]
