"""The HTTP side as its callers see it: answers, errors, and a broker that goes away."""

import re
import signal
import socket
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis
import requests

from telemetry.viewer.receiver import Receiver
from telemetry.viewer.spans import Span

from ..conftest import Broker, _server_command, free_port
from ..processes import Process, Starter
from ..rabbitmq import RabbitMQ
from ..system import start_web, start_worker


@dataclass(frozen=True)
class System:
    """A web side, with a worker behind it."""

    url: str
    web: Process
    receiver: Receiver

    def get(self, path: str, **options: object) -> requests.Response:
        return requests.get(self.url + path, timeout=40, **options)  # type: ignore[arg-type]

    def span(self, trace_id: str, name: str) -> Span:
        """Wait for the span of that name in the trace, and return it."""

        def matching(spans: list[Span]) -> list[Span]:
            return [span for span in spans if (span.trace_id, span.name) == (trace_id, name)]

        return matching(self.receiver.wait_for(matching, 20))[-1]


@pytest.fixture(scope="module")
def system(broker_server: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    directory = tmp_path_factory.mktemp("system")
    with Receiver() as receiver:
        start = Starter(
            CELERY_BROKER_URL=f"redis://127.0.0.1:{broker_server.port}/1",
            DATABASE_URL=f"sqlite:///{directory / 'pings.sqlite3'}",
            OTEL_EXPORTER_OTLP_ENDPOINT=receiver.endpoint,
            OTEL_BSP_SCHEDULE_DELAY="100",
        )
        try:
            start_worker(start)
            web, url = start_web(start)
            yield System(url, web, receiver)
        finally:
            assert not list(start.end())


def test_a_ping_is_accepted(system: System) -> None:
    answer = system.get("/ping")
    assert answer.status_code == 202
    said = answer.json()
    assert said.keys() == {"task_id", "trace_id", "status_url"}
    assert said["status_url"] == f"{system.url}/ping/{said['task_id']}"
    assert answer.headers["Location"] == said["status_url"]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    send = system.span(said["trace_id"], "send workers.tasks.ping")
    assert send.attributes["messaging.message.id"] == said["task_id"]
    assert send.parent_id == system.span(said["trace_id"], "GET /ping").span_id


def test_a_ping_that_waits_gets_its_result(system: System) -> None:
    answer = system.get("/ping?wait=20&length=1024")
    assert answer.status_code == 200
    said = answer.json()
    assert said["state"] == "SUCCESS"
    assert said["result"]["length"] == 1024
    assert re.fullmatch("[0-9A-Za-z]{1024}", said["result"]["string"])
    assert said["result"]["stores"] == {
        "redis": "ok",
        "mongo": "skipped: MONGO_URL is not set",
        "sql": "ok",
    }
    later = requests.get(said["status_url"], timeout=10)
    assert later.status_code == 200
    assert later.json() == {key: said[key] for key in ("task_id", "state", "result")}


def test_a_length_that_is_not_given_is_random(system: System) -> None:
    lengths = {system.get("/ping?wait=20").json()["result"]["length"] for _ in range(4)}
    assert len(lengths) > 1
    assert all(1 <= length <= 1024 for length in lengths)


def test_a_result_that_is_not_there_in_time_is_504(system: System) -> None:
    begin = time.monotonic()
    answer = system.get("/ping?wait=0.1&task=retry")
    assert 0.1 <= time.monotonic() - begin < 1.0
    assert answer.status_code == 504
    said = answer.json()
    assert answer.headers["Location"] == said["status_url"]
    assert uuid.UUID(said["task_id"])
    assert system.span(said["trace_id"], "GET /ping").status == "ERROR"


def test_a_task_that_fails_is_502_with_the_type_of_its_error(system: System) -> None:
    answer = system.get("/ping?wait=20&task=fail")
    assert answer.status_code == 502
    said = answer.json()
    assert (said["state"], said["error"]) == ("FAILURE", {"type": "RuntimeError"})
    assert "Traceback" not in answer.text
    later = requests.get(said["status_url"], timeout=10)
    assert later.status_code == 200
    assert later.json()["error"] == {"type": "RuntimeError"}


def test_a_task_that_retries_succeeds_in_the_end(system: System) -> None:
    said = system.get("/ping?wait=20&task=retry&length=5").json()
    assert said["result"]["retries"] == 2
    assert len(said["result"]["string"]) == 5


def test_a_task_that_nobody_knows_is_pending(system: System) -> None:
    task_id = str(uuid.uuid4())
    assert system.get(f"/ping/{task_id}").json() == {"task_id": task_id, "state": "PENDING"}


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        *((f"length={value}", "length") for value in ["0", "1025", "-1", "1.5", "x", "", "1_0"]),
        *((f"length={value}", "length") for value in ["%EF%BC%95", "9" * 5000, "%00", "+5"]),
        *((f"wait={value}", "wait") for value in ["-1", "30.001", "nan", "inf", "x", "", "."]),
        *((f"wait={value}", "wait") for value in ["1_0", "%D9%A3", "9" * 5000, "1 "]),
        *((f"task={value}", "task") for value in ["", "Ping", "workers.tasks.ping", "__class__"]),
        ("length=3&length=4", "length"),
        ("wait=1&wait=1", "wait"),
        ("task=ping&task=fail", "task"),
    ],
)
def test_wrong_input_is_400_naming_the_parameter(
    system: System, query: str, parameter: str
) -> None:
    answer = system.get(f"/ping?{query}")
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["parameter"] == parameter
    assert error["message"].startswith(f"{parameter} takes ")


@pytest.mark.parametrize("wait", ["0", "0.0", ".0", "0."])
def test_to_wait_no_time_is_to_look_once(system: System, wait: str) -> None:
    assert system.get(f"/ping?wait={wait}").status_code in (200, 504)


@pytest.mark.parametrize(
    "path", ["/", "/pong", "/ping/", "/ping/x", "/ping/../ping/x", "/ping/" + "0" * 32 + "0"]
)
def test_an_unknown_route_is_404_as_json(system: System, path: str) -> None:
    answer = system.get(path)
    assert answer.status_code == 404
    assert answer.json() == {"error": {"message": "Not Found"}}


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_another_method_is_405_as_json(system: System, method: str) -> None:
    answer = requests.request(method, f"{system.url}/ping", timeout=10)
    assert answer.status_code == 405
    assert answer.json() == {"error": {"message": "Method Not Allowed"}}
    assert "GET" in answer.headers["Allow"]


@pytest.mark.parametrize(
    "headers",
    [
        *([("traceparent", value)] for value in ["", "x", "00-0-0-0", "\xff" * 55]),
        [("traceparent", f"00-{'0' * 32}-{'0' * 16}-01")],
        [("traceparent", f"ff-{'1' * 32}-{'1' * 16}-01")],
        [("traceparent", f"00-{'1' * 32}-{'1' * 16}-01")] * 90,
        [("Host", 'a b"c')],
        [("Host", "")],
    ],
)
def test_no_header_makes_it_fail(system: System, headers: list[tuple[str, str]]) -> None:
    host, _, port = system.url.removeprefix("http://").partition(":")
    if "Host" not in dict(headers):
        headers = [("Host", "test"), *headers]
    lines = ["GET /ping HTTP/1.1", *(f"{name}: {value}" for name, value in headers), "", ""]
    with socket.create_connection((host, int(port)), 10) as connection:
        connection.sendall("\r\n".join(lines).encode("latin-1"))
        answer = connection.makefile("rb").read().decode()
    assert answer.startswith("HTTP/1.1 202 ")
    assert "1" * 32 not in answer


def test_health_tells_broker_and_worker(system: System) -> None:
    answer = system.get("/healthz")
    assert (answer.status_code, answer.json()) == (200, {"broker": True, "worker": True})


def test_without_a_worker_the_health_is_503(broker: Broker, start: Starter) -> None:
    _, url = start_web(start)
    begin = time.monotonic()
    answer = requests.get(f"{url}/healthz", timeout=10)
    assert time.monotonic() - begin < 2.0
    assert (answer.status_code, answer.json()) == (503, {"broker": True, "worker": False})


def test_each_request_is_one_line_of_log_in_its_trace(system: System) -> None:
    trace_id = uuid.uuid4().hex
    headers = {"traceparent": f"00-{trace_id}-{'1' * 16}-01"}
    system.get("/a%0Ab?token=hunter2", headers=headers)
    line = system.web.wait_for_line(trace_id)
    span = system.span(trace_id, "GET")
    assert f"[trace={trace_id} span={span.span_id}] GET /a%0Ab 404" in line
    assert "hunter2" not in system.web.output
    assert '"GET /' not in system.web.output


def test_no_subscription_stays_for_a_result_that_nobody_fetches(
    system: System, broker_server: Broker
) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: system.get("/ping"), range(24)))
    assert {answer.status_code for answer in answers} == {202}
    with redis.Redis(port=broker_server.port) as client:
        assert client.pubsub_channels("celery-task-meta-*") == []


# What follows has a broker of its own, to freeze and to kill.


class Server:
    """A Redis-protocol server on one port, which can be away."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        self.url = f"redis://:hunter2@127.0.0.1:{self.port}/0"
        self._directory = directory
        self.start()

    def start(self) -> None:
        self.process = Process(
            [
                *(_server_command(), "--port", str(self.port), "--bind", "127.0.0.1"),
                *("--save", "", "--requirepass", "hunter2", "--dir", str(self._directory)),
            ],
            env={},
        )
        self.process.wait_for_line("Ready to accept connections")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    yield server
    server.process.kill()


def assert_away(url: str, receiver: Receiver, path: str = "/ping") -> None:
    """Assert that *path* answers 503 in time, its span an ERROR."""
    trace_id = uuid.uuid4().hex
    headers = {"traceparent": f"00-{trace_id}-{'1' * 16}-01"}
    begin = time.monotonic()
    answer = requests.get(url + path, headers=headers, timeout=10)
    assert time.monotonic() - begin < 2.0
    assert answer.status_code == 503
    if path == "/healthz":
        assert answer.json() == {"broker": False, "worker": False}
    else:
        assert int(answer.headers["Retry-After"]) > 0
        assert "message" in answer.json()["error"]
    name = re.sub("/ping/.*", "/ping/<uuid:task_id>", path.partition("?")[0])

    def in_server(spans: list[Span]) -> list[Span]:
        wanted = (trace_id, f"GET {name}")
        return [span for span in spans if (span.trace_id, span.name) == wanted]

    (span,) = in_server(receiver.wait_for(in_server, 20))
    assert span.status == "ERROR"
    if name == "/ping":
        sends = [span for span in receiver.spans if span.trace_id == trace_id][:-1]
        assert sends
        assert {send.status for send in sends} == {"ERROR"}


PATHS = ["/ping", "/ping?wait=5", f"/ping/{uuid.uuid4()}", "/healthz"]


def test_a_broker_that_is_killed_and_comes_back(
    server: Server, start: Starter, receiver: Receiver
) -> None:
    web, url = start_web(start, CELERY_BROKER_URL=server.url)
    assert requests.get(f"{url}/ping", timeout=10).status_code == 202
    server.process.kill()
    for path in PATHS:
        assert_away(url, receiver, path)
    server.start()
    assert requests.get(f"{url}/ping", timeout=10).status_code == 202
    # Nobody asked in between: the connection is a dead one, and nothing has said so.
    server.process.kill()
    server.start()
    assert requests.get(f"{url}/ping", timeout=10).status_code == 202
    assert "hunter2" not in web.output
    assert "hunter2" not in repr(receiver.spans)


def test_a_broker_that_hangs_and_goes_on(
    server: Server, start: Starter, receiver: Receiver
) -> None:
    _, url = start_web(start, CELERY_BROKER_URL=server.url)
    assert requests.get(f"{url}/ping", timeout=10).status_code == 202
    server.process.signal(signal.SIGSTOP)
    with ThreadPoolExecutor(12) as pool:
        list(pool.map(lambda path: assert_away(url, receiver, path), PATHS * 3))
    server.process.signal(signal.SIGCONT)
    assert requests.get(f"{url}/ping", timeout=10).status_code == 202


def test_a_broker_that_never_takes_the_connection(start: Starter, receiver: Receiver) -> None:
    with ExitStack() as sockets:
        full = sockets.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        address = full.getsockname()
        for _ in range(4):
            waiting = sockets.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(address)
        _, url = start_web(start, CELERY_BROKER_URL=f"redis://127.0.0.1:{address[1]}/0")
        for path in PATHS:
            assert_away(url, receiver, path)


def test_a_broker_that_dies_during_the_wait(
    server: Server, start: Starter, receiver: Receiver
) -> None:
    _, url = start_web(start, CELERY_BROKER_URL=server.url)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(requests.get, f"{url}/ping?wait=20", timeout=30)
        receiver.wait_for(lambda spans: [span for span in spans if span.kind == "PRODUCER"])
        server.process.kill()
        killed = time.monotonic()
        assert asked.result().status_code == 503
        assert time.monotonic() - killed < 2.0


def test_rabbitmq_that_hangs_and_goes_on(
    rabbitmq: RabbitMQ, start: Starter, receiver: Receiver
) -> None:
    web, url = start_web(start, CELERY_BROKER_URL=rabbitmq.url)
    assert requests.get(f"{url}/ping", timeout=10).status_code == 202
    rabbitmq.freeze()
    try:
        with ThreadPoolExecutor(12) as pool:
            list(pool.map(lambda path: assert_away(url, receiver, path), PATHS * 3))
    finally:
        rabbitmq.thaw()
    assert requests.get(f"{url}/ping", timeout=10).status_code == 202
    assert "guest:guest" not in web.output


def test_rabbitmq_that_is_not_there(start: Starter, receiver: Receiver) -> None:
    _, url = start_web(start, CELERY_BROKER_URL=f"amqp://a:hunter2@127.0.0.1:{free_port()}//")
    for path in PATHS:
        assert_away(url, receiver, path)


def test_rabbitmq_that_drops_its_connections(rabbitmq: RabbitMQ, start: Starter) -> None:
    _, url = start_web(start, CELERY_BROKER_URL=rabbitmq.url)
    for _ in range(2):
        assert requests.get(f"{url}/ping", timeout=10).status_code == 202
        rabbitmq.drop_connections()
        assert requests.get(f"{url}/ping?wait=0", timeout=10).status_code == 504
