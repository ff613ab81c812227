"""The counts of queues: waiting messages and their age, throughput, and exceptions."""

import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from telemetry.otlp.decode import ReceivedSpan
from telemetry.viewer.analysis import rows
from telemetry.viewer.store import queue_page as queue_pages
from telemetry.viewer.store.database import Database
from telemetry.viewer.store.queue_page import Asked, queue_page
from telemetry.viewer.store.queues import queues
from telemetry.viewer.store.read import number_of, read_trace
from telemetry.viewer.store.search import Search, find
from telemetry.viewer.store.service_map import service_map
from telemetry.viewer.store.trace_store import Store

from ..exports import export
from ..spans import BEGIN, WEB, WORKER, run, send, span

STUCK = 60 * 10**9
MINUTE = 60_000.0


class Kept:
    """A store, and the numbers of its queues."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._count = 0

    def add(self, *spans: ReceivedSpan, ago: float) -> str:
        """Add a trace whose begin was *ago* milliseconds ago; return its id."""
        self._count += 1
        trace_id = f"{self._count:032x}"
        shift = time.time_ns() - round(ago * 1e6) - BEGIN
        moved = [
            replace(
                s,
                trace_id=trace_id,
                start_ns=s.start_ns + shift,
                end_ns=s.end_ns + shift,
                links=tuple(replace(link, trace_id=trace_id) for link in s.links),
            )
            for s in spans
        ]
        assert self.store.take(export(moved))[0] == 0
        return trace_id

    def settle(self) -> None:
        """Wait until all traces are written and summarized."""
        assert self.store.wait_until_written(30) == ""
        deadline = time.monotonic() + 30
        while self.store.pending():
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def queues(self, since_s: float = 3600) -> list[dict[str, Any]]:
        self.settle()
        with self.store.database.reading() as db:
            found: list[dict[str, Any]] = queues(db, since_s, STUCK)["queues"]
        return found

    def page(self, queue: str, **asked: Any) -> dict[str, Any]:
        self.settle()
        with self.store.database.reading() as db:
            return queue_page(db, Asked(queue, **asked), 3600, STUCK)


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    store = Store(Database(tmp_path / "traces.db"))
    yield Kept(store)
    store.close()


def message(
    wait: float | None, queue: str = "celery", task: str = "charge", **more: Any
) -> list[ReceivedSpan]:
    """Return a send, and its run after *wait* milliseconds unless that is None."""
    named = {
        "messaging__destination__name": queue,
        "celery__task__name": task,
        "messaging__system": "redis",
        "server__address": more.pop("broker", "here"),
    }
    sent = send("send", "", (0, 0), **named, **more.pop("sent", {}))
    if wait is None:
        return [sent]
    ran = run("run", "send", (wait, wait + 20), (0, wait, 0), links=("send",), **named, **more)
    return [sent, ran]


def test_the_stalled_queue_is_first_with_its_oldest_message(kept: Kept) -> None:
    kept.add(*message(900_000.0, "busy"), ago=20 * MINUTE)
    kept.add(*message(None, "busy"), ago=1000)
    kept.add(*message(5.0, "dead"), ago=40 * MINUTE)
    for ago in (10, 20, 30):
        kept.add(*message(None, "dead"), ago=ago * MINUTE)
    kept.add(*message(5.0, "fine"), ago=2000)
    dead, busy, fine = kept.queues()
    assert [q["queue"] for q in (dead, busy, fine)] == ["dead", "busy", "fine"]
    assert [q["state"] for q in (dead, busy, fine)] == ["stalled", "waiting", "ok"]
    assert (dead["depth"], dead["stuck"], busy["depth"], busy["stuck"]) == (3, 3, 1, 0)
    assert dead["oldest_ms"] == pytest.approx(30 * MINUTE, abs=5000)
    assert fine["oldest_ms"] is None


def test_depth_over_time_counts_what_was_taken_since(kept: Kept) -> None:
    # Ten waited from 30 minutes ago until 15 minutes ago, and one still waits.
    for _ in range(10):
        kept.add(*message(15 * MINUTE), ago=30 * MINUTE)
    kept.add(*message(None), ago=20 * MINUTE)
    [queue] = kept.queues()
    now = time.time()
    depth = {round((now - point["t"]) / 60): point["depth"] for point in queue["series"]}
    assert [depth[minute] for minute in (40, 25, 18, 5)] == [0, 10, 11, 1]
    assert sum(point["sent"] for point in queue["series"]) == 11
    assert sum(point["runs"] for point in queue["series"]) == 10


def test_a_countdown_is_no_backlog(kept: Kept) -> None:
    eta = datetime.fromtimestamp(time.time() + 600, UTC).isoformat()
    kept.add(*message(None, sent={"celery__task__eta": eta}), ago=1000)
    [queue] = kept.queues()
    assert (queue["depth"], queue["scheduled"], queue["state"]) == (0, 1, "ok")
    [waits] = kept.page("celery")["oldest"]
    assert waits["state"] == "scheduled"


@pytest.mark.parametrize("first", ["send", "run"])
def test_a_message_whose_headers_were_lost_is_not_stuck(kept: Kept, first: str) -> None:
    sent, ran = message(5.0)
    lost = replace(ran, parent_id="", links=())
    ids = {}
    for name, spans in sorted({"send": sent, "run": lost}.items(), reverse=first == "send"):
        ids[name] = kept.add(spans, ago=5 * MINUTE)
        kept.settle()
    waits = kept.add(*message(None, sent={"messaging__message__id": "n"}), ago=5 * MINUTE)
    [queue] = kept.queues()
    assert (queue["depth"], queue["stuck"], queue["runs"]) == (1, 1, 1)
    with kept.store.database.reading() as db:
        traces = {row["trace_id"]: row for row in find(db, Search(), STUCK)["traces"]}
        number = number_of(db, ids["send"])
        assert number is not None
        trace = read_trace(db, number, time.time_ns())
    assert (traces[waits]["status"], traces[ids["send"]]["status"]) == ("stuck", "ok")
    assert [link["trace_id"] for link in rows.head_of(trace)["linked"]] == [ids["run"]]
    assert rows.head_of(trace)["problems"] == [
        "1 message for charge in `celery` ran in another trace: traceparent did not reach the "
        "worker. Set the same OTEL_PROPAGATORS on both sides, and check that nothing removes "
        "headers."
    ]


def test_a_run_whose_headers_were_lost_is_found_also_if_it_ran_other_tasks(kept: Kept) -> None:
    for number in range(1, 9):  # tasks that are known before
        of = {"messaging__message__id": f"known{number}"}
        kept.add(*message(5.0, task=f"a{number}", sent=of, **of), ago=6 * MINUTE)
    kept.settle()
    sent, ran = message(5.0)
    kept.add(sent, ago=5 * MINUTE)
    lost = replace(ran, parent_id="", links=())
    others = [
        replace(
            lost,
            span_id=f"run{number}",
            parent_id=lost.span_id,
            start_ns=lost.start_ns + number,
            attributes={
                **lost.attributes,
                "celery.task.name": f"a{number}",
                "messaging.message.id": f"of a{number}",
            },
        )
        for number in range(1, 9)
    ]
    kept.add(lost, *others, ago=5 * MINUTE)
    assert [queue["depth"] for queue in kept.queues()] == [0]


def test_a_queue_with_a_long_name_is_one(kept: Kept) -> None:
    kept.add(*message(5.0, "q" * 255), ago=2000)
    kept.add(*message(None, "q" * 255), ago=1000)
    [queue] = kept.queues()
    assert (queue["depth"], queue["sent"], queue["runs"]) == (1, 2, 1)


def test_a_message_that_could_not_be_sent_is_counted(kept: Kept) -> None:
    sent, _ = message(5.0)
    lost = kept.add(replace(sent, status="ERROR"), ago=5000)
    kept.add(*message(5.0), ago=5000)
    [queue] = kept.queues()
    assert (queue["sent"], queue["unsent"], queue["depth"]) == (2, 1, 0)
    with kept.store.database.reading() as db:
        rows = find(db, Search.parse({"queue": "celery", "status": "unsent"}))["traces"]
    assert [row["trace_id"] for row in rows] == [lost]


def test_what_expired_before_the_time_range_is_not_in_it(kept: Kept) -> None:
    for minutes in (5, 90):
        expires = datetime.fromtimestamp(time.time() - 60 * minutes, UTC).isoformat()
        kept.add(*message(None, sent={"celery__task__expires": expires}), ago=100 * MINUTE)
    kept.add(*message(None, "old", sent={"celery__task__expires": expires}), ago=100 * MINUTE)
    [queue] = kept.queues()
    assert (queue["queue"], queue["expired_waiting"]) == ("celery", 1)
    assert [q["expired_waiting"] for q in kept.queues(3 * 3600)] == [2, 1]


def test_rates_are_over_the_time_that_the_viewer_knows_of(kept: Kept) -> None:
    for number in range(30):
        kept.add(*message(5.0), ago=120_000 - number * 4000)
    [queue] = kept.queues()
    assert queue["in_per_s"] == queue["out_per_s"]
    assert 30 / 190 < queue["in_per_s"] < 30 / 110  # the first minute may have begun earlier
    with kept.store.database.reading() as db:
        rates = [edge["per_s"] for edge in service_map(db, 3600)["edges"]]
    assert rates == pytest.approx([queue["in_per_s"]] * 2, rel=0.01)
    # Data of any queue counts for all.
    kept.add(*message(5.0, "other"), ago=3500_000)
    busy, _ = sorted(kept.queues(), key=lambda queue: -queue["sent"])
    assert busy["in_per_s"] == pytest.approx(30 / 3500, rel=0.05)


def test_how_messages_end(kept: Kept) -> None:
    for state in ("EXPIRED", "REJECTED", "UNKNOWN", "REVOKED", "RETRY", "FAILURE", "SUCCESS"):
        kept.add(*message(5.0, state=state), ago=5000)
    [queue] = kept.queues()
    counted = ("runs", "expired", "rejected", "revoked", "retries", "failures")
    assert [queue[name] for name in counted] == [7, 1, 2, 1, 1, 1]


def test_a_message_that_never_ran_has_a_wait_and_no_duration(kept: Kept) -> None:
    sent, ran = message(5.0, state="EXPIRED")
    kept.add(sent, replace(ran, end_ns=ran.start_ns), ago=5000)
    [queue] = kept.queues()
    assert queue["wait_ms"]["p50"] == pytest.approx(5, rel=0.03)
    assert queue["run_ms"]["p50"] is None
    page = kept.page("celery")
    assert [worker["run_p50_ms"] for worker in page["workers"]] == [None]
    assert (len(page["slowest"]["wait"]), page["slowest"]["run"]) == (1, [])


def test_queues_of_one_name_on_two_brokers_are_two(kept: Kept) -> None:
    kept.add(*message(5.0, broker="one"), ago=5000)
    kept.add(*message(5.0, broker="two"), ago=5000)
    # Another database of a broker is another one, too.
    vhost = {"celery__broker__virtual_host": "3"}
    kept.add(*message(5.0, broker="two", sent=vhost, **vhost), ago=5000)
    brokers = {queue["broker"] for queue in kept.queues()}
    assert brokers == {"redis://one", "redis://two", "redis://two/3"}
    assert kept.page("celery", broker="redis://one")["runs"] == 1
    assert kept.page("celery")["runs"] == 3
    with kept.store.database.reading() as db:
        nodes = service_map(db, 3600)["nodes"]
    found = {node["label"] for node in nodes if node["kind"] == "queue"}
    assert found == {"celery one", "celery two", "celery two/3"}


def test_a_consumer_that_does_not_name_its_broker_is_of_its_producers(kept: Kept) -> None:
    sent, ran = message(5.0)
    for name in ("server.address", "messaging.system", "messaging.destination.name"):
        ran = replace(ran, attributes={k: v for k, v in ran.attributes.items() if k != name})
    kept.add(sent, ran, ago=5000)
    [queue] = kept.queues()
    assert (queue["broker"], queue["sent"], queue["runs"]) == ("redis://here", 1, 1)


def test_the_page_of_a_queue(kept: Kept) -> None:
    on = {"service.name": WORKER, "host.name": "h1"}
    for number in range(6):
        sent, ran = message(100.0 * number, error="OSError: gone" if number == 5 else "")
        slow = kept.add(sent, replace(ran, resource=on), ago=60_000)
    sent, ran = message(7.0, task="refund")
    kept.add(sent, replace(ran, resource={**on, "host.name": "h2"}), ago=60_000)
    waiting = kept.add(*message(None), ago=30_000)
    page = kept.page("celery")
    assert (page["sent"], page["runs"], page["depth"]) == (8, 7, 1)
    assert [(p["service"], p["sent"]) for p in page["producers"]] == [(WEB, 8)]
    workers = [(w["worker"], w["runs"], round(w["share"], 2)) for w in page["workers"]]
    assert workers == [("h1", 6, 0.86), ("h2", 1, 0.14)]
    [failure] = page["exceptions"]
    assert (failure["type"], failure["count"], failure["message"]) == (
        "OSError",
        1,
        "OSError: gone",
    )
    assert failure["trace_id"] == page["slowest"]["wait"][0]["trace_id"] == slow
    assert max(dot["wait_ms"] for dot in page["scatter"]) == 500
    assert [message["trace_id"] for message in page["oldest"]] == [waiting]
    assert [task["task"] for task in page["tasks"]] == ["charge", "refund"]
    task = kept.page("celery", task="refund")
    assert (task["runs"], task["depth"], task["tasks"]) == (1, 0, [])
    assert [(p["service"], p["sent"]) for p in task["producers"]] == [(WEB, 1)]


def test_the_exceptions_of_a_queue_are_those_of_all_its_runs(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_pages, "MOST_RUNS", 2)
    for number in range(4):
        kept.add(*message(5.0, error="OSError: gone", state="RETRY"), ago=9000 - number)
    newest = kept.add(*message(5.0, error="OSError: late", state="FAILURE"), ago=1000)
    [failure] = kept.page("celery")["exceptions"]
    assert (failure["count"], failure["retried"]) == (5, 4)
    assert (failure["message"], failure["trace_id"]) == ("OSError: late", newest)
    [queue] = kept.queues()
    assert queue["exceptions"] == [{"type": "OSError", "count": 5}]


@pytest.mark.parametrize(
    ("resource", "run_attributes", "worker"),
    [
        ({"host.name": "h", "process.pid": 7}, {}, "h pid 7"),
        ({"host.name": "h", "service.instance.id": "i"}, {}, "h instance i"),
        ({"process.pid": 1, "service.instance.id": "i"}, {}, "instance i"),
        ({"service.instance.id": "627cc493-f310-47de-96bd-71410b7dec09"}, {}, "instance 627cc493"),
        ({"host.name": "h"}, {"celery.hostname": "w1@h"}, "w1@h"),
    ],
)
def test_a_worker_is_a_process(
    kept: Kept, resource: dict[str, Any], run_attributes: dict[str, Any], worker: str
) -> None:
    sent, ran = message(1.0)
    ran = replace(
        ran,
        resource={"service.name": WORKER, **resource},
        attributes={**ran.attributes, **run_attributes},
    )
    kept.add(sent, ran, ago=5000)
    page = kept.page("celery")
    assert [w["worker"] for w in page["workers"]] == [worker]
    assert page["workers_in_all"] == 1


def test_the_oldest_messages_have_the_states_of_the_list(kept: Kept) -> None:
    def due(ago: float) -> dict[str, Any]:
        return {"celery__task__eta": datetime.fromtimestamp(time.time() - ago, UTC).isoformat()}

    kept.add(*message(None, sent=due(-3600)), ago=50_000)
    kept.add(*message(None, sent=due(1)), ago=50_000)
    kept.add(*message(None), ago=50_000)
    kept.add(*message(None), ago=120_000)
    states = [message["state"] for message in kept.page("celery")["oldest"]]
    assert states == ["stuck", "waiting", "overdue", "scheduled"]


def test_each_message_of_a_batch_is_counted(kept: Kept) -> None:
    topic = {"messaging__system": "kafka", "messaging__destination__name": "orders"}
    sends = [
        span(f"send{n}", "", "PRODUCER", (0, 1), name="orders publish", **topic) for n in range(3)
    ]
    names = tuple(s.span_id for s in sends)
    took = span("took", "", "CONSUMER", (50, 60), WORKER, "orders process", names, **topic)
    kept.add(*sends, took, ago=5000)
    [queue] = kept.queues()
    assert (queue["sent"], queue["runs"], queue["depth"]) == (3, 1, 0)
    assert queue["in_per_s"] == queue["out_per_s"]
    # The end of a bucket may lie between the sends and the run.
    assert queue["series"][-1]["depth"] == 0


def test_a_queue_that_nobody_knows_is_empty(kept: Kept) -> None:
    page = kept.page("nowhere")
    assert (page["runs"], page["depth"], page["state"], page["workers"]) == (0, 0, "ok", [])
    assert kept.queues() == []


def test_kafkas_messages_have_no_task(kept: Kept) -> None:
    topic = {"messaging__system": "kafka", "messaging__destination__name": "orders"}
    sent = span("send", "", "PRODUCER", (0, 1), name="orders publish", **topic)
    took = span("took", "send", "CONSUMER", (50, 60), WORKER, "orders process", **topic)
    kept.add(sent, took, ago=5000)
    [queue] = kept.queues()
    assert (queue["queue"], queue["broker"], queue["tasks"]) == ("orders", "kafka", [""])
    assert queue["wait_ms"]["p50"] == pytest.approx(49, rel=0.05)


def test_clocks_that_are_ahead_hide_no_message_and_no_run(kept: Kept) -> None:
    ahead = 300_000.0
    kept.add(send("s", "", (0, 1), **_in("taken")), _late("r", "s", "taken", ahead), ago=1000)
    kept.add(send("s", "", (ahead, ahead + 1), **_in("untaken")), ago=1000)
    found = {queue["queue"]: queue for queue in kept.queues()}
    assert (found["taken"]["runs"], found["taken"]["state"]) == (1, "ok")
    assert int(found["taken"]["last_run_ns"]) <= time.time_ns()
    untaken = found["untaken"]
    assert (untaken["sent"], untaken["depth"], untaken["scheduled"]) == (1, 1, 0)
    assert 0 <= untaken["oldest_ms"] < 60_000
    [oldest] = kept.page("untaken")["oldest"]
    assert oldest["state"] == "waiting"


def _in(queue: str) -> dict[str, Any]:
    return {"messaging__destination__name": queue}


def _late(span_id: str, send_id: str, queue: str, ahead: float) -> ReceivedSpan:
    """Return a run on a host whose clock is *ahead*: it measures that much of a wait."""
    return run(span_id, send_id, (ahead + 5, ahead + 9), (0, ahead, 0), **_in(queue))
