"""The whole system while its parts are recycled, killed and stopped."""

import json
import os
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests

from telemetry.otlp.decode import ReceivedSpan
from telemetry.otlp.receiver import Receiver
from telemetry.viewer.analysis.verdict import by_trace

from .conftest import free_port, start_web, start_worker
from .processes import Process, Starter
from .system import Server

#: Seconds in which the web side answers, also if its broker is down.
IN_TIME = 15.0


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Start a server that the test stops. It ends with the test."""
    servers: list[Server] = []

    def start(*, keep: bool = False) -> Server:
        servers.append(Server(tmp_path, password="hunter2", keep=keep))
        return servers[-1]

    yield start
    for server in servers:
        server.process.kill()


def start_gunicorn(start: Starter, *options: str) -> tuple[Process, str]:
    port = free_port()
    process = start(
        *("gunicorn", "--bind", f"127.0.0.1:{port}", "--no-control-socket", *options),
        "app:create_app()",
    )
    process.wait_for_line("Listening at")
    return process, f"http://127.0.0.1:{port}"


def traces_of(spans: list[ReceivedSpan], name: str) -> set[str]:
    return {span.trace_id for span in spans if span.name == name}


def ping(url: str) -> requests.Response:
    """Ping. Repeat it if the server closed the connection because it was recycled."""
    for _ in range(5):
        try:
            return requests.get(f"{url}/ping", timeout=30)
        except requests.ConnectionError:
            time.sleep(0.1)
    raise AssertionError("the web side is down")


def ping_until_closed(url: str) -> str:
    """Ping, and read until the server closes the connection; return the trace's id.

    A server closes it after the body, with which the span of the request ends.
    """
    port = urlsplit(url).port
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(b"GET /ping HTTP/1.0\r\n\r\n")
        answer = connection.makefile("rb").read()
    trace_id: str = json.loads(answer.partition(b"\r\n\r\n")[2])["trace_id"]
    return trace_id


@pytest.mark.parametrize(
    "options", [["--max-requests", "10"], ["--max-requests", "10", "--preload"]]
)
def test_a_web_server_that_recycles_its_workers(
    start: Starter, receiver: Receiver, options: list[str]
) -> None:
    _, url = start_gunicorn(start, "--workers", "2", "--threads", "2", *options)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: ping(url), range(120)))
    accepted = {answer.json()["trace_id"] for answer in answers}
    assert len(accepted) == 120
    spans = receiver.wait_for(lambda spans: accepted <= traces_of(spans, "GET /ping"))
    assert Counter(span.name for span in spans)["send workers.tasks.ping"] >= 120
    assert len({span.instance for span in spans}) > 4


def test_a_web_server_that_is_killed(start: Starter, receiver: Receiver) -> None:
    process, url = start_gunicorn(start, "--workers", "2")
    accepted = {ping_until_closed(url) for _ in range(50)}
    process.kill()
    receiver.wait_for(lambda spans: accepted <= traces_of(spans, "GET /ping"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_development_server_that_is_ended(
    start: Starter, receiver: Receiver, number: int
) -> None:
    port = free_port()
    process = start("flask", "run", "--port", str(port))
    process.wait_for_line("Running on")
    accepted = {ping_until_closed(f"http://127.0.0.1:{port}") for _ in range(20)}
    process.signal(number)
    process.wait()
    receiver.wait_for(lambda spans: accepted <= traces_of(spans, "GET /ping"))


def test_a_development_server_that_reloads(
    start: Starter, receiver: Receiver, tmp_path: Path
) -> None:
    watched = tmp_path / "watched.py"
    watched.touch()
    port = free_port()
    process = start("flask", "run", "--debug", "--port", str(port), "--extra-files", str(watched))
    process.wait_for_line("Debugger PIN")
    url = f"http://127.0.0.1:{port}"
    accepted = {ping(url).json()["trace_id"] for _ in range(20)}
    os.utime(watched, (time.time() + 10,) * 2)
    process.wait_for_line("Debugger PIN", count=2)
    accepted |= {ping(url).json()["trace_id"] for _ in range(20)}
    receiver.wait_for(lambda spans: accepted <= traces_of(spans, "GET /ping"))


def test_a_client_that_is_interrupted(start: Starter, web: str, receiver: Receiver) -> None:
    client = start("app.client", "--url", f"{web}/ping", "--interval", "0.01")
    client.wait_for_line("trace ", count=20)
    client.signal(signal.SIGINT)
    client.wait()
    told = {line.partition("trace ")[2].split()[0] for line in client.lines if " bytes " in line}
    assert len(told) >= 20
    receiver.wait_for(lambda spans: told <= traces_of(spans, "ping"))


class Load:
    """Clients that ping until ``stop``; the answers that they got, and when."""

    def __init__(self, url: str, clients: int) -> None:
        self.accepted: set[str] = set()
        self.statuses: Counter[int] = Counter()
        self.slowest = 0.0
        self._url = url
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(clients)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        with requests.Session() as session:
            while not self._stop.is_set():
                began = time.monotonic()
                answer = session.get(f"{self._url}/ping?length=5", timeout=60)
                with self._lock:
                    self.slowest = max(self.slowest, time.monotonic() - began)
                    self.statuses[answer.status_code] += 1
                    if answer.status_code == 202:
                        self.accepted.add(answer.json()["trace_id"])

    def wait_for(self, reached: Callable[["Load"], bool], timeout: float = 60.0) -> None:
        until = time.monotonic() + timeout
        while not reached(self):
            assert time.monotonic() < until, self.statuses
            time.sleep(0.05)


def incomplete(spans: list[ReceivedSpan], accepted: set[str]) -> set[str]:
    """Return those of the *accepted* pings whose request or run is missing."""
    requested = traces_of(spans, "GET /ping")
    return accepted - (requested & traces_of(spans, "process workers.tasks.ping"))


def test_fifty_clients_for_a_while(start: Starter, receiver: Receiver) -> None:
    start_worker(start)
    _, url = start_gunicorn(start, "--workers", "2", "--threads", "8")
    with Load(url, clients=50) as load:
        load.wait_for(lambda load: len(load.accepted) >= 800, timeout=90)
    assert set(load.statuses) == {202}
    spans = receiver.wait_for(lambda spans: not incomplete(spans, load.accepted), timeout=90)
    for trace in by_trace(spans).values():
        known = {span.span_id for span in trace}
        assert all(span.parent_id in known for span in trace if span.parent_id)


def test_a_broker_that_is_restarted_in_the_middle(
    start: Starter, receiver: Receiver, serve: Callable[..., Server]
) -> None:
    server = serve(keep=True)
    start.env["CELERY_BROKER_URL"] = server.url
    worker = start_worker(start, "tests.soon_restored")
    _, url = start_gunicorn(start, "--workers", "1", "--threads", "8")
    with Load(url, clients=8) as load:
        load.wait_for(lambda load: len(load.accepted) >= 100)
        server.process.stop()
        load.wait_for(lambda load: load.statuses[503] >= 5)
        refused_at = len(load.accepted)
        server.start()
        # A worker of Celery 5.7 may end when it loses its Redis. Then start another, as a
        # supervisor does. It gets the messages that the first had taken.
        workers = [worker]
        if len(worker.lines_until("Connected to ", count=2)) < 2:
            workers.append(start_worker(start, "tests.soon_restored"))
        load.wait_for(lambda load: len(load.accepted) >= refused_at + 100)
    assert set(load.statuses) == {202, 503}
    assert load.slowest < IN_TIME

    def never_taken(spans: list[ReceivedSpan]) -> set[str]:
        output = "".join(worker.output for worker in workers)
        return {
            span.trace_id
            for span in spans
            if span.kind == "PRODUCER"
            and f"[{span.attributes['messaging.message.id']}] received" not in output
        }

    # Celery takes a message from Redis and notes that there, in two steps. If Redis dies in
    # between, this message is lost: one, since Celery takes them one by one.
    spans = receiver.wait_for(
        lambda spans: (
            len(missing := incomplete(spans, load.accepted)) <= 1 and missing <= never_taken(spans)
        ),
        timeout=60,
    )
    assert load.accepted <= traces_of(spans, "GET /ping")


def test_a_broker_that_comes_later_than_everybody(
    start: Starter, receiver: Receiver, serve: Callable[..., Server]
) -> None:
    server = serve()
    server.process.stop()
    start.env["CELERY_BROKER_URL"] = server.url
    worker = start("celery", "-A", "workers", "worker", "-c", "1", "-l", "INFO")
    worker.wait_for_line("Cannot connect")
    url = start_web(start)
    assert requests.get(f"{url}/ping", timeout=IN_TIME).status_code == 503
    server.start()
    worker.wait_for_line(" ready.")
    answer = requests.get(f"{url}/ping?wait=10", timeout=30)
    assert answer.status_code == 200
    accepted = {answer.json()["trace_id"]}
    receiver.wait_for(lambda spans: not incomplete(spans, accepted))


def test_results_that_cannot_be_kept_cost_no_run_and_no_trace(
    start: Starter, receiver: Receiver, serve: Callable[..., Server]
) -> None:
    results = serve()
    start.env["CELERY_RESULT_BACKEND"] = results.url
    start_worker(start)
    url = start_web(start)
    assert requests.get(f"{url}/ping?wait=10", timeout=30).status_code == 200
    results.process.stop()
    answer = requests.get(f"{url}/ping", timeout=IN_TIME)
    assert answer.status_code in (202, 503)
    if answer.status_code == 202:
        accepted = {answer.json()["trace_id"]}
        receiver.wait_for(lambda spans: not incomplete(spans, accepted), timeout=60)
    results.start()
    again = requests.get(f"{url}/ping?wait=20", timeout=30)
    assert again.status_code == 200
