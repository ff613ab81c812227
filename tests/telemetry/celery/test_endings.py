"""The trace of a message shows how it ended: the span model's second table, row by row."""

import json
import os
import signal
from pathlib import Path

import pytest
import redis
from celery import chain, chord, group
from celery.worker.request import Request
from kombu import pools

from telemetry.otlp.decode import ReceivedSpan

from ...conftest import Broker
from ...rabbitmq import RabbitMQ
from .conftest import Queue
from .project import make_app
from .test_hops import ids, links
from .test_waiting import Gate

TASK = "tests.telemetry.celery.project"


def state(span: ReceivedSpan) -> object:
    return span.attributes.get("celery.task.state")


def s(queue: Queue, name: str, *args: object, **options: object):  # type: ignore[no-untyped-def]
    """Return the signature of a task of the project."""
    return queue.app.signature(f"{TASK}.{name}", args=args, **options)


def runs(queue: Queue, name: str) -> list[ReceivedSpan]:
    return [span for span in queue.receiver.spans if span.name == f"process {TASK}.{name}"]


class TestAttemptsThatAreKilled:
    def test_the_hard_time_limit(self, queue: Queue) -> None:
        worker = queue.worker("prefork")
        queue.send("hang", time_limit=1)
        send, run = queue.spans("send hang", "process hang")
        assert run.parent_id == send.span_id
        assert run.status == "ERROR"
        assert run.attributes["error.type"] == "billiard.exceptions.TimeLimitExceeded"
        assert state(run) == "FAILURE"
        assert run.duration > 0.9
        assert worker.stop() == 0
        assert len(runs(queue, "hang")) == 1

    def test_a_child_killed_in_the_middle(self, queue: Queue) -> None:
        worker = queue.worker("prefork")
        queue.send("die")
        send, run = queue.spans("send die", "process die")
        assert run.parent_id == send.span_id
        assert links(run) == [ids(send)]
        assert run.status == "ERROR"
        assert run.attributes["error.type"] == "billiard.exceptions.WorkerLostError"
        assert state(run) == "FAILURE"
        assert run.end_ns > run.start_ns > send.start_ns
        assert worker.stop() == 0
        assert len(runs(queue, "die")) == 1

    @pytest.mark.parametrize("relation", ["child", "link"])
    def test_what_a_killed_attempt_did_is_under_it(self, queue: Queue, relation: str) -> None:
        queue.worker("prefork", RELATION=relation)
        queue.send("die_in_the_middle")
        died, inside, send = queue.spans("process die_in_the_middle", "inside", "send add")
        assert state(died) == "FAILURE"
        assert inside.parent_id == send.parent_id == died.span_id
        assert inside.trace_id == send.trace_id == died.trace_id

    def test_a_child_that_leaves_by_itself_tells_of_it_once(self, queue: Queue) -> None:
        worker = queue.worker("prefork")
        queue.send("leave")
        (run,) = queue.spans("process leave")
        assert run.attributes["error.type"] == "SystemExit"
        assert worker.stop() == 0
        assert len(runs(queue, "leave")) == 1

    @pytest.mark.parametrize("spool", ["disk", "memory"])
    def test_a_child_that_leaves_after_a_success(self, queue: Queue, spool: str) -> None:
        worker = queue.worker("prefork", QUEUEHOP_SPOOL=spool)
        queue.send("leave_at_the_end")
        (run,) = queue.spans("process leave_at_the_end")
        assert state(run) == "SUCCESS"
        worker.wait_for_line("WorkerLostError")
        assert worker.stop() == 0
        assert len(runs(queue, "leave_at_the_end")) == 1

    def test_a_child_that_leaves_in_an_eager_task(self, prefork: Queue) -> None:
        prefork.send("leave_eagerly")
        outer, inner = prefork.spans("process leave_eagerly", "process leave")
        assert inner.parent_id == outer.span_id
        assert outer.attributes["error.type"] == inner.attributes["error.type"] == "SystemExit"

    def test_an_exception_outside_of_exception(self, prefork: Queue) -> None:
        prefork.send("panic")
        send, run = prefork.spans("send panic", "process panic")
        assert run.parent_id == send.span_id
        assert (state(run), run.status) == ("FAILURE", "ERROR")
        assert run.attributes["error.type"] == "tests.telemetry.celery.project.Panic"

    @pytest.mark.conformance("revoked while running")
    def test_revoked_while_running(self, queue: Queue, tmp_path: Path) -> None:
        worker = queue.worker("prefork")
        fifo = tmp_path / "running"
        os.mkfifo(fifo)
        result = queue.send("tell", str(fifo))
        fifo.read_text()  # returns when the task runs and has said so
        result.revoke(terminate=True)
        send, run = queue.spans("send tell", "process tell")
        assert run.parent_id == send.span_id
        assert state(run) == "REVOKED"
        assert run.status == "ERROR"
        assert run.attributes["error.type"] == "billiard.exceptions.Terminated"
        assert worker.stop() == 0
        assert len(runs(queue, "tell")) == 1

    def test_cancelled_because_the_connection_was_lost(
        self, queue: Queue, rabbitmq: RabbitMQ, tmp_path: Path
    ) -> None:
        app = make_app(rabbitmq.url)
        app.control.purge()  # the server is the session's: others may have left messages
        there = Queue(app, queue.receiver, queue.start)
        there.worker("prefork", CELERY_BROKER_URL=rabbitmq.url, ACKS_LATE="1")
        gate = Gate(there, tmp_path)
        pools.reset()  # this process needs its connections in later tests
        rabbitmq.drop_connections()
        gate.wait()
        gate.open()
        send, first, last = there.spans("send gate", "process gate", "process gate")
        assert first.parent_id == last.parent_id == send.span_id
        assert (state(first), state(last)) == ("RETRY", "SUCCESS")
        assert first.attributes["error.type"] == "billiard.exceptions.Terminated"
        assert last.attributes["celery.redelivered"] is True
        app.close()

    def test_the_soft_time_limit_is_an_error_of_the_task(self, prefork: Queue) -> None:
        prefork.send("hang", soft_time_limit=1)
        (run,) = prefork.spans("process hang")
        assert run.status == "ERROR"
        assert run.attributes["error.type"] == "billiard.exceptions.SoftTimeLimitExceeded"

    def test_errbacks_of_a_killed_attempt_are_under_it(self, prefork: Queue) -> None:
        s(prefork, "die").apply_async(link_error=[s(prefork, "caught"), s(prefork, "inline")])
        died, send, errback, inline = prefork.spans(
            "process die", "send caught", "process caught", "inline errback"
        )
        assert send.parent_id == inline.parent_id == died.span_id
        assert errback.parent_id == send.span_id

    @pytest.mark.skipif(
        not hasattr(Request, "_retry_worker_lost"), reason="Celery has no such retries"
    )
    @pytest.mark.parametrize("protocol", [1, 2])
    def test_a_retry_of_a_killed_attempt(
        self, prefork: Queue, protocol: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(prefork.app.conf, "task_protocol", protocol)
        prefork.send("die_once")
        send, died, resent, last = prefork.spans(
            "send die_once", "process die_once", "send die_once", "process die_once"
        )
        assert died.parent_id == last.parent_id == send.span_id
        assert (died.status, state(died), state(last)) == ("ERROR", "RETRY", "SUCCESS")
        assert links(last) == [ids(send), ids(died)]
        assert (resent.kind, resent.parent_id, links(resent)) == (
            "CLIENT",
            died.span_id,
            [ids(send)],
        )


class TestGreenletsThatAreEnded:
    def test_the_hard_time_limit(self, queue: Queue) -> None:
        worker = queue.worker("gevent")
        queue.send("hang", time_limit=1)
        (run,) = queue.spans("process hang")
        assert (run.status, state(run)) == ("ERROR", "FAILURE")
        assert run.attributes["error.type"] == "gevent.timeout.Timeout"
        assert worker.stop() == 0
        assert len(runs(queue, "hang")) == 1

    def test_revoked_while_running(self, queue: Queue, tmp_path: Path) -> None:
        queue.worker("gevent")
        while not queue.app.control.ping():  # it is ready before it takes commands
            pass
        fifo = tmp_path / "running"
        os.mkfifo(fifo)
        result = queue.send("tell", str(fifo))
        fifo.read_text()
        result.revoke(terminate=True)
        (run,) = queue.spans("process tell")
        assert (run.status, state(run)) == ("ERROR", "REVOKED")


class TestAttemptsThatAreHandledBadly:
    @pytest.mark.parametrize("retry", [False, True])
    def test_a_handler_that_raises(self, prefork: Queue, retry: bool) -> None:
        prefork.send("mishandled", retry)
        send, run = prefork.spans("send mishandled", "process mishandled")
        assert run.parent_id == send.span_id
        assert (run.status, state(run)) == ("ERROR", "FAILURE")
        assert run.attributes["error.type"] == "RuntimeError"
        (event,) = run.events
        assert event.attributes["exception.message"] == "a bug in a handler"

    def test_an_errback_that_raises(self, prefork: Queue) -> None:
        # Celery calls it where the failure is handled, and it takes two arguments more.
        s(prefork, "fail").apply_async(link_error=s(prefork, "inline").set(args=(1,)))
        send, run = prefork.spans("send fail", "process fail")
        assert run.parent_id == send.span_id
        assert (run.status, state(run)) == ("ERROR", "FAILURE")

    def test_an_exception_without_a_message(self, prefork: Queue) -> None:
        prefork.send("unprintable")
        (run,) = prefork.spans("process unprintable")
        (event,) = run.events
        assert (run.status, state(run)) == ("ERROR", "FAILURE")
        assert event.attributes["exception.type"] == f"{TASK}.Unprintable"
        assert event.attributes["exception.message"] == "<exception str() failed>"


class TestMessagesThatNeverRun:
    @pytest.mark.parametrize("pool", ["prefork", "solo", "threads", "gevent"])
    def test_expired(self, queue: Queue, pool: str) -> None:
        queue.send("add", 1, 2, expires=0.001, countdown=0.1)
        queue.worker(pool)
        send, run = queue.spans("send add", "process add")
        assert run.parent_id == send.span_id
        assert state(run) == "EXPIRED"
        assert run.status == "UNSET"
        assert run.duration < 0.5

    def test_revoked_before_it_ran(self, queue: Queue) -> None:
        worker = queue.worker("solo")
        result = queue.send("add", 1, 2, countdown=2)
        worker.wait_for_line("received")
        result.revoke()
        (run,) = queue.spans("process add")
        assert state(run) == "REVOKED"
        assert run.duration < 0.5

    def test_a_task_that_the_worker_does_not_have(self, solo: Queue) -> None:
        solo.app.send_task("nobody.knows")
        send, run = solo.spans("send nobody.knows", "process nobody.knows")
        assert run.parent_id == send.span_id
        assert state(run) == "UNKNOWN"
        assert run.status == "ERROR"
        assert run.attributes["error.type"] == "celery.exceptions.NotRegistered"
        assert run.duration < 0.5

    def test_a_time_that_the_worker_cannot_have(self, solo: Queue) -> None:
        solo.send("add", 1, 2, eta="0001-01-01T00:00:00+14:00")
        send, run = solo.spans("send add", "process add")
        assert run.parent_id == send.span_id
        assert (run.status, state(run)) == ("ERROR", "REJECTED")
        assert run.attributes["error.type"] == "OverflowError"
        assert run.duration < 0.5

    def test_a_body_that_cannot_be_decoded(self, queue: Queue, broker: Broker) -> None:
        queue.send("add", 1, 2)
        with redis.Redis(port=broker.port) as client:
            raw = json.loads(client.lpop("celery"))
            raw["body"] = "bm90IGpzb24="
            client.rpush("celery", json.dumps(raw))
        queue.worker("solo")
        send, run = queue.spans("send add", "process add")
        assert run.parent_id == send.span_id
        assert state(run) == "REJECTED"
        assert run.status == "ERROR"
        assert run.attributes["error.type"] == "kombu.exceptions.DecodeError"

    def test_a_message_that_is_no_task_has_a_trace_of_its_own(
        self, queue: Queue, broker: Broker
    ) -> None:
        with (
            queue.app.connection_for_write() as connection,
            connection.SimpleQueue("celery", serializer="json") as plain,
        ):
            plain.put({"not": "a task"})
        queue.worker("solo")
        (run,) = queue.spans("process unknown")
        assert run.parent_id == ""
        assert state(run) == "REJECTED"
        assert run.status == "ERROR"

    def test_rejected_by_the_task(self, prefork: Queue) -> None:
        prefork.send("reject")
        (run,) = prefork.spans("process reject")
        assert state(run) == "REJECTED"
        assert run.status == "ERROR"
        assert run.attributes["error.type"] == "celery.exceptions.Reject"


class TestCanvas:
    def test_each_step_of_a_chain_is_under_the_run_that_published_it(self, prefork: Queue) -> None:
        chain(s(prefork, "add", 1, 2), s(prefork, "add", 3), s(prefork, "add", 4)).apply_async()
        sends = prefork.spans("send add", "send add", "send add")
        steps = prefork.spans("process add", "process add", "process add")
        assert [step.parent_id for step in steps] == [send.span_id for send in sends]
        assert [send.parent_id for send in sends] == ["", steps[0].span_id, steps[1].span_id]
        assert len({step.trace_id for step in steps}) == 1

    def test_the_members_of_a_group_are_siblings(self, prefork: Queue) -> None:
        from opentelemetry import trace

        with trace.get_tracer("test").start_as_current_span("root"):
            group(s(prefork, "add", n, n) for n in range(5)).apply_async()
        (root,) = prefork.spans("root")
        sends = prefork.spans(*["send add"] * 5)
        members = prefork.spans(*["process add"] * 5)
        assert {send.parent_id for send in sends} == {root.span_id}
        assert {run.parent_id for run in members} == {send.span_id for send in sends}
        assert len({run.attributes["celery.group_id"] for run in members}) == 1

    @pytest.mark.conformance("chord of 200")
    @pytest.mark.parametrize("size", [1, 3, 200])
    def test_the_body_of_a_chord_links_to_every_header(self, prefork: Queue, size: int) -> None:
        chord((s(prefork, "add", n, n) for n in range(size)), s(prefork, "total")).apply_async()
        send, body = prefork.spans("send total", "process total", timeout=60)
        headers = prefork.spans(*["process add"] * size)
        if size > 1:  # Celery makes a chain of a chord with one header
            assert set(links(body)) == {ids(send), *map(ids, headers)}
            assert len(links(body)) == size + 1
        assert state(body) == "SUCCESS"
        assert not prefork.app.backend.client.keys("*queuehop*")

    def test_each_body_of_a_chord_links_to_every_header(self, prefork: Queue) -> None:
        bodies = group(s(prefork, "total"), s(prefork, "total"))
        chord([s(prefork, "add", 1, 1), s(prefork, "add", 2, 2)], bodies).apply_async()
        sends = prefork.spans("send total", "send total")
        runs = prefork.spans("process total", "process total")
        headers = set(map(ids, prefork.spans("process add", "process add")))
        by_id = {send.span_id: send for send in sends}
        for run in runs:
            assert set(links(run)) == {ids(by_id[run.parent_id]), *headers}
        assert not prefork.app.backend.client.keys("*queuehop*")

    @pytest.mark.conformance("chord of chords")
    def test_a_chord_of_chords(self, prefork: Queue) -> None:
        inner = [
            chord([s(prefork, "add", n, n), s(prefork, "add", n, 1)], s(prefork, "total"))
            for n in range(2)
        ]
        chord(inner, s(prefork, "total")).apply_async()
        first, second, last = prefork.spans("process total", "process total", "process total")
        assert {ids(first), ids(second)} <= set(links(last))
        assert len(links(first)) == len(links(second)) == len(links(last)) == 3

    def test_replace(self, prefork: Queue) -> None:
        prefork.send("replace")
        replaced, send, run = prefork.spans("process replace", "send add", "process add")
        assert state(replaced) == "IGNORED"
        assert replaced.status == "UNSET"
        assert send.kind == "PRODUCER"
        assert send.parent_id == replaced.span_id
        assert run.parent_id == send.span_id

    def test_link_and_link_error(self, prefork: Queue) -> None:
        s(prefork, "add", 1, 2).apply_async(link=s(prefork, "add", 5))
        first, second = prefork.spans("process add", "process add")
        sends = prefork.spans("send add", "send add")
        assert sends[1].parent_id == first.span_id
        assert second.parent_id == sends[1].span_id
        s(prefork, "fail").apply_async(link_error=[s(prefork, "caught"), s(prefork, "inline")])
        failed, send, errback, inline = prefork.spans(
            "process fail", "send caught", "process caught", "inline errback"
        )
        assert send.parent_id == inline.parent_id == failed.span_id
        assert errback.parent_id == send.span_id

    def test_map_starmap_and_chunks_count_their_items(self, prefork: Queue) -> None:
        from celery.canvas import chunks, xmap, xstarmap

        xmap(s(prefork, "total"), [[1], [2], [3]], app=prefork.app).apply_async()
        xstarmap(s(prefork, "add"), [(1, 2)] * 4, app=prefork.app).apply_async()
        (mapped,) = prefork.spans("process celery.map")
        (starred,) = prefork.spans("process celery.starmap")
        assert mapped.attributes["celery.task.items"] == 3
        assert starred.attributes["celery.task.items"] == 4
        chunks(s(prefork, "add"), [(n, n) for n in range(5)], 2, app=prefork.app).apply_async()
        pieces = prefork.spans(*["process celery.starmap"] * 4)
        # Two children take them: which piece starts first is open.
        assert sorted(piece.attributes["celery.task.items"] for piece in pieces) == [1, 2, 2, 4]

    def test_retries_that_run_out(self, prefork: Queue) -> None:
        prefork.send("hopeless")
        first, last = prefork.spans("process hopeless", "process hopeless")
        assert (state(first), state(last)) == ("RETRY", "FAILURE")
        assert last.parent_id == first.parent_id
        assert last.attributes["error.type"] == "LookupError"
        assert ids(first) in links(last)

    def test_ignored(self, solo: Queue) -> None:
        solo.send("ignore")
        (run,) = solo.spans("process ignore")
        assert (state(run), run.status) == ("IGNORED", "UNSET")


class TestWithoutAWorker:
    def test_eager_runs_are_nested_in_the_caller(self, queue: Queue) -> None:
        from opentelemetry import trace

        from . import project

        queue.app.finalize()
        with trace.get_tracer("test").start_as_current_span("root"):
            found = queue.app.tasks[f"{TASK}.where"].apply().get()
            assert project.where.name == f"{TASK}.where"
        root, run = queue.spans("root", "process where")
        assert run.parent_id == root.span_id
        assert found == root.trace_id
        assert links(run) == []


class TestRelation:
    @pytest.mark.conformance("relation: link")
    def test_link_makes_each_run_a_trace_of_its_own(self, queue: Queue) -> None:
        queue.worker("solo", RELATION="link")
        queue.send("where")
        send, run = queue.spans("send where", "process where")
        assert run.trace_id != send.trace_id
        assert run.parent_id == ""
        assert links(run) == [ids(send)]

    def test_a_retry_links_to_the_first_send_and_to_the_attempt_before(self, queue: Queue) -> None:
        queue.worker("solo", RELATION="link")
        queue.send("retry", 0)
        send, first, resent, second = queue.spans(
            "send retry", "process retry", "send retry", "process retry"
        )
        assert len({span.trace_id for span in (send, first, second)}) == 3
        assert links(second) == [ids(send), ids(first)]
        assert (resent.kind, links(resent)) == ("CLIENT", [ids(send)])

    @pytest.mark.conformance("relation chosen by the message")
    def test_a_message_may_choose(self, solo: Queue) -> None:
        solo.send("where", headers={"queuehop-relation": "link"})
        send, run = solo.spans("send where", "process where")
        assert run.trace_id != send.trace_id
        assert links(run) == [ids(send)]


@pytest.mark.conformance("redelivered by the task")
def test_a_message_delivered_again_is_a_run_of_its_own_under_the_same_send(
    queue: Queue, broker: Broker
) -> None:
    queue.worker("prefork")
    queue.send("reject", True)
    send, first, second = queue.spans("send reject", "process reject", "process reject")
    assert first.parent_id == second.parent_id == send.span_id
    assert "celery.redelivered" not in first.attributes
    assert second.attributes["celery.redelivered"] is True


def test_a_worker_killed_with_late_acknowledgement(queue: Queue, tmp_path: Path) -> None:
    settings = {"ACKS_LATE": "1"}
    fifo = tmp_path / "running"
    os.mkfifo(fifo)
    worker = queue.worker("solo", **settings)
    queue.send("tell", str(fifo))
    fifo.read_text()
    worker.signal(signal.SIGKILL)
    worker.wait()
    assert runs(queue, "tell") == []
