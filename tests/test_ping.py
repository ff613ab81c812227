"""A whole ping: client, web, broker, worker and stores, each a process of its own."""

import re
import signal
from pathlib import Path

import pytest
from celery import Celery

from telemetry.otlp.decode import ReceivedSpan
from telemetry.otlp.receiver import Receiver
from telemetry.viewer.analysis.verdict import by_trace, judge

from .conftest import start_web, start_worker
from .processes import Process, Starter
from .rabbitmq import RabbitMQ


def pings(spans: list[ReceivedSpan]) -> list[list[ReceivedSpan]]:
    return [trace for trace in by_trace(spans).values() if any(s.name == "ping" for s in trace)]


def wait_for_pings(receiver: Receiver, count: int) -> list[list[ReceivedSpan]]:
    def complete(spans: list[ReceivedSpan]) -> bool:
        found = pings(spans)
        return len(found) == count and all(judge(trace).ok for trace in found)

    return pings(receiver.wait_for(complete, timeout=60))


def ping(start: Starter, url: str, *argv: str) -> Process:
    return start("app.client", "--url", f"{url}/ping", "--interval", "0.05", *argv)


def test_a_worker_by_celerys_own_script_delivers_alone(
    start: Starter, receiver: Receiver, tmp_path: Path
) -> None:
    """As README starts it. The script has the project on its path only while it is loaded."""
    worker = start.script(
        *("celery", "-A", "workers", "worker", "-c", "1", "-l", "INFO"),
        PYTHONPATH=None,
        QUEUEHOP_STATE_DIR=str(tmp_path),
    )
    worker.wait_for_line(" ready.")
    Celery(broker=start.env["CELERY_BROKER_URL"]).send_task("workers.tasks.ping")
    receiver.wait_for(lambda spans: any(s.name == "process workers.tasks.ping" for s in spans))


@pytest.mark.parametrize("broker_kind", ["redis", "rabbitmq"])
def test_every_ping_is_one_trace(
    start: Starter, receiver: Receiver, broker_kind: str, request: pytest.FixtureRequest
) -> None:
    if broker_kind == "rabbitmq":
        rabbitmq: RabbitMQ = request.getfixturevalue("rabbitmq")
        start.env["CELERY_BROKER_URL"] = rabbitmq.url
    start_worker(start)
    url = start_web(start)
    client = ping(start, url, "--count", "5", "--wait", "10", "--length", "12")
    assert client.wait(60) == 0, client.output
    assert len(client.lines) == 5

    for trace in wait_for_pings(receiver, 5):
        names = {(span.kind, span.name): span for span in trace}
        root = names["INTERNAL", "ping"]
        request_ = names["CLIENT", "GET"] if broker_kind == "rabbitmq" else next(
            span for span in trace if span.name == "GET" and span.service == "queuehop-client"
        )  # fmt: skip
        server = names["SERVER", "GET /ping"]
        send = names["PRODUCER", "send workers.tasks.ping"]
        run = names["CONSUMER", "process workers.tasks.ping"]
        assert root.parent_id == ""
        assert [s.parent_id for s in (request_, server, send, run)] == [
            s.span_id for s in (root, request_, server, send)
        ]
        assert {s.service: 1 for s in trace}.keys() == {
            "queuehop-client",
            "queuehop-web",
            "queuehop-worker",
        }
        assert len({s.instance for s in trace}) == 3
        system = {s.attributes["messaging.system"] for s in (send, run)}
        assert system == {broker_kind}
        functions = {s.span_id: s.name for s in trace if s.parent_id == run.span_id}
        stores = (
            {("touch_redis", "SET"), ("touch_redis", "GET")} if broker_kind == "redis" else set()
        )
        under = {(functions[s.parent_id], s.name) for s in trace if s.parent_id in functions}
        assert stores | {("touch_sql", "INSERT pings")} <= under
        assert re.search(root.trace_id, client.output)


def test_a_retry_and_a_failure(start: Starter, receiver: Receiver) -> None:
    start_worker(start)
    url = start_web(start)
    assert ping(start, url, "--count", "1", "--wait", "10", "--task", "retry").wait() == 0
    failing = ping(start, url, "--count", "1", "--wait", "10", "--task", "fail")
    assert failing.wait() == 1
    assert "failed: 502" in failing.output
    retried, failed = wait_for_pings(receiver, 2)
    states = [s.attributes.get("celery.task.state") for s in retried if s.kind == "CONSUMER"]
    assert states == ["RETRY", "RETRY", "SUCCESS"]
    assert {s.name: s.status for s in failed} == {
        "ping": "ERROR",
        "GET": "ERROR",
        "GET /ping": "ERROR",
        "send workers.tasks.fail": "UNSET",
        "process workers.tasks.fail": "ERROR",
    }


def test_stores_that_are_away_are_seen_and_the_ping_answers(
    start: Starter, receiver: Receiver
) -> None:
    away = {
        "REDIS_URL": "redis://:hunter2@127.0.0.1:1/0",
        "MONGO_URL": "mongodb://user:hunter2@127.0.0.1:1/pings",
        "DATABASE_URL": "sqlite:////nowhere/pings.sqlite3",
    }
    worker = start_worker(start, **away)
    url = start_web(start)
    client = ping(start, url, "--count", "1", "--wait", "20")
    assert client.wait(60) == 0, client.output
    (trace,) = wait_for_pings(receiver, 1)
    functions = {s.name: s for s in trace if s.name.startswith("touch_")}
    assert {name: s.status for name, s in functions.items()} == dict.fromkeys(
        ("touch_redis", "touch_mongo", "touch_sql"), "ERROR"
    )
    failed = {s.name: s for s in trace if s.status == "ERROR" and s.name not in functions}
    assert set(failed) == {"SET", "insert pings", "CREATE TABLE pings"}
    for span in failed.values():
        assert span.kind == "CLIENT"
        assert span.attributes["error.type"]
        assert [event.name for event in span.events] == ["exception"]
    assert failed["SET"].attributes["error.type"] == "redis.exceptions.ConnectionError"
    assert "hunter2" not in str(trace)
    assert "hunter2" not in worker.output


def test_sampled_out_nothing_is_sent_and_the_ping_answers(
    start: Starter, receiver: Receiver
) -> None:
    worker = start_worker(start)
    url = start_web(start)
    client = ping(start, url, "--count", "2", "--wait", "10")
    assert client.wait() == 0
    wait_for_pings(receiver, 2)
    before = len(receiver.spans)
    off = start(
        *("app.client", "--url", f"{url}/ping", "--count", "3", "--wait", "10", "--interval", "0"),
        OTEL_TRACES_SAMPLER="always_off",
    )
    assert off.wait() == 0
    assert ping(start, url, "--count", "1", "--wait", "10").wait() == 0
    receiver.wait_for(lambda spans: len(pings(spans)) == 3 and judge(pings(spans)[-1]).ok)
    assert worker.stop() == 0
    assert len(by_trace(receiver.spans[before:])) == 1


def test_every_log_line_of_a_ping_names_its_trace(start: Starter, receiver: Receiver) -> None:
    worker = start_worker(start)
    port_line = start_web(start)
    client = ping(start, port_line, "--count", "1", "--wait", "10")
    assert client.wait() == 0
    (trace,) = wait_for_pings(receiver, 1)
    trace_id = trace[0].trace_id
    for text in ("received", "succeeded"):
        assert f"trace={trace_id}" in worker.wait_for_line(text)


def test_the_client_ends_with_ctrl_c_and_loses_no_span(start: Starter, receiver: Receiver) -> None:
    start_worker(start)
    url = start_web(start)
    client = ping(start, url, "--wait", "10")
    client.wait_for_line("trace", count=3)
    client.signal(signal.SIGINT)
    assert client.wait() == 0
    assert "Traceback" not in client.output
    printed = set(re.findall(r"trace ([0-9a-f]{32})", client.output))
    receiver.wait_for(lambda spans: printed <= {t[0].trace_id for t in pings(spans)})
