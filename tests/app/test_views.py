"""The answers of the web side over HTTP, also to requests that are wrong."""

import json
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from telemetry.otlp.receiver import Receiver

from ..conftest import _server_command, free_port, start_web, start_worker
from ..processes import Process, Starter


@pytest.fixture(scope="module")
def web(shared_start: Starter) -> str:
    """The web side, without a worker; its address."""
    return start_web(shared_start)


def get(url: str, **options: Any) -> requests.Response:
    return requests.get(url, timeout=20, **options)


def test_ping_answers_at_once(web: str) -> None:
    answer = get(f"{web}/ping?length=12")
    assert answer.status_code == 202
    said = answer.json()
    assert set(said) == {"task_id", "trace_id", "status_url"}
    assert answer.headers["Location"] == said["status_url"] == f"{web}/ping/{said['task_id']}"
    assert re.fullmatch(r"[0-9a-f]{32}", said["trace_id"])
    assert get(f"{web}/ping/{said['task_id']}").json() == {
        "task_id": said["task_id"],
        "state": "PENDING",
    }
    assert get(f"{web}/ping?wait=0.2").status_code == 504
    assert get(f"{web}/healthz").json() == {"broker": True, "worker": False}


def test_ping_waits_for_the_result(start: Starter) -> None:
    start_worker(start)
    web = start_web(start)
    answer = get(f"{web}/ping?length=12&wait=10")
    assert answer.status_code == 200
    said = answer.json()
    assert len(said["result"]["string"]) == said["result"]["length"] == 12
    assert said["result"]["stores"]["redis"] == said["result"]["stores"]["sql"] == "ok"
    again = get(f"{web}/ping/{said['task_id']}").json()
    assert (again["state"], again["result"]) == ("SUCCESS", said["result"])
    failed = get(f"{web}/ping?task=fail&wait=10")
    assert failed.status_code == 502
    assert failed.json()["error"]["type"] == "RuntimeError"
    health = get(f"{web}/healthz")
    assert (health.status_code, health.json()) == (200, {"broker": True, "worker": True})


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        *((f"length={value}", "length") for value in ("0", "1025", "-1", "x", "", "1.5", "9" * 99)),
        *((f"wait={value}", "wait") for value in ("31", "-1", "nan", "inf", "x", "", "1e1")),
        ("task=nobody", "task"),
        ("task=", "task"),
        ("length=1&length=2", "length"),
    ],
)
def test_wrong_input_is_named(web: str, query: str, parameter: str) -> None:
    answer = get(f"{web}/ping?{query}")
    assert answer.status_code == 400
    assert answer.json()["error"]["parameter"] == parameter


def test_what_is_not_there_is_said_as_json(web: str) -> None:
    assert get(f"{web}/nowhere").status_code == 404
    assert get(f"{web}/nowhere").json()["error"]["message"] == "Not Found"
    assert get(f"{web}/ping/not-a-uuid").status_code == 404
    posted = requests.post(f"{web}/ping", timeout=5)
    assert (posted.status_code, posted.json()["error"]["message"]) == (405, "Method Not Allowed")


@pytest.fixture
def own_broker(start: Starter) -> Iterator[Process]:
    """A broker that this test may stop."""
    server = _start_broker(port := free_port())
    start.env["CELERY_BROKER_URL"] = f"redis://127.0.0.1:{port}/0"
    yield server
    server.kill()


def _start_broker(port: int) -> Process:
    command = [_server_command(), "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    server = Process(command, {})
    server.wait_for_line("Ready to accept connections")
    return server


@pytest.mark.alone
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_broker_that_is_away_is_503_in_time(
    start: Starter, receiver: Receiver, own_broker: Process, how: signal.Signals
) -> None:
    url = start_web(start)
    assert requests.get(f"{url}/ping", timeout=5).status_code == 202
    own_broker.signal(how)
    if how is signal.SIGKILL:
        own_broker.wait()
    for _ in range(2):
        began = time.monotonic()
        answer = requests.get(f"{url}/ping", timeout=5)
        assert time.monotonic() - began < 2
        assert answer.status_code == 503
        assert int(answer.headers["Retry-After"]) > 0
    assert requests.get(f"{url}/healthz", timeout=5).json()["broker"] is False

    def failed(spans: list[Any]) -> list[Any]:
        return [s for s in spans if s.status == "ERROR" and s.name == "GET /ping"]

    spans = receiver.wait_for(lambda spans: len(failed(spans)) == 2)
    for server in failed(spans):
        # A message that was sent on a dead connection is sent again on a new one, once.
        sends = [s for s in spans if s.parent_id == server.span_id]
        assert 1 <= len(sends) <= 2
        for send in sends:
            assert (send.name, send.status) == ("send workers.tasks.ping", "ERROR")
            assert [event.name for event in send.events] == ["exception"]

    if how is signal.SIGSTOP:
        own_broker.signal(signal.SIGCONT)
    else:
        port = int(start.env["CELERY_BROKER_URL"].rpartition(":")[2].partition("/")[0])
        again = _start_broker(port)
    try:
        assert requests.get(f"{url}/ping", timeout=5).status_code == 202
    finally:
        if how is signal.SIGKILL:
            again.stop()


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"traceparent": "00-malformed"},
        {"traceparent": "00-" + "0" * 32 + "-" + "0" * 16 + "-01"},
        {"tracestate": "a=1", "baggage": "=;,%"},
        {"traceparent": "x" * 20_000},
    ],
)
def test_hostile_headers_begin_a_new_trace(web: str, headers: dict[str, str]) -> None:
    answer = get(f"{web}/ping", headers=headers)
    assert answer.status_code == 202
    assert int(answer.json()["trace_id"], 16) > 0


def test_a_hundred_traceparents_begin_a_new_trace(web: str) -> None:
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    lines = "".join(f"traceparent: 00-{trace_id}-{n:016x}-01\r\n" for n in range(1, 90))
    import socket

    port = int(web.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(f"GET /ping HTTP/1.0\r\nHost: x\r\n{lines}\r\n".encode())
        answer = b""
        while part := connection.recv(65536):
            answer += part
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b" 202 " in head.splitlines()[0]
    assert json.loads(body)["trace_id"] != trace_id


def test_an_inbound_trace_goes_on(web: str) -> None:
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    answer = get(f"{web}/ping", headers={"traceparent": f"00-{trace_id}-b7ad6b7169203331-01"})
    assert answer.json()["trace_id"] == trace_id


def test_help_of_the_client() -> None:
    import sys

    from ..processes import ROOT

    shown = subprocess.run(
        [sys.executable, "-m", "app.client", "--help"], cwd=ROOT, capture_output=True, text=True
    )
    assert shown.returncode == 0
    assert "DESTINATION_URL" in shown.stdout


def test_a_client_without_a_server_says_so(start: Starter, receiver: Receiver) -> None:
    client = start("app.client", "--count", "1", "--url", "http://127.0.0.1:1/ping?token=hunter2")
    assert client.wait() == 1
    assert "failed: no connection" in client.output
    assert "hunter2" not in client.output
    spans = receiver.wait_for(lambda spans: len(spans) == 2)
    assert {(s.name, s.status) for s in spans} == {("ping", "ERROR"), ("GET", "ERROR")}
    assert "hunter2" not in str(spans)
