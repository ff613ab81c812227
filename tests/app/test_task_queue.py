"""The web side uses the broker: many requests at once, and in bounded time if it is down."""

import re
import socket
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
import redis
import requests

from telemetry.otlp.decode import ReceivedSpan
from telemetry.otlp.receiver import Receiver

from ..conftest import Broker, free_port, start_web, start_worker
from ..processes import Starter
from ..rabbitmq import RabbitMQ
from ..system import Server

#: Every request that needs the broker.
PATHS = ["/ping", "/ping?wait=5", f"/ping/{uuid.uuid4()}", "/healthz"]


def get(url: str, **options: dict[str, str]) -> requests.Response:
    return requests.get(url, timeout=40, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["redis", "rabbitmq"])
def test_every_request_gets_its_own_result(
    kind: str, request: pytest.FixtureRequest, start: Starter
) -> None:
    if kind == "rabbitmq":
        start.env["CELERY_BROKER_URL"] = request.getfixturevalue("rabbitmq").url
    start_worker(start)
    url = start_web(start)
    first = get(f"{url}/ping?length=3").json()

    def ping(length: int) -> int:
        answer = get(f"{url}/ping?wait=20&length={length}")
        assert answer.status_code == 200, answer.text
        return len(answer.json()["result"]["string"])

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ping, range(1, 81))) == list(range(1, 81))
        retry = f"{url}/ping?wait=20&task=retry"
        assert {answer.status_code for answer in pool.map(get, [retry] * 8)} == {200}

    # A result for which no request waited can be read later, and again.
    for _ in range(2):
        later = get(first["status_url"]).json()
        assert later["state"] == "SUCCESS"
        assert len(later["result"]["string"]) == 3


def test_no_request_subscribes_to_a_result(web: str, broker: Broker) -> None:
    with redis.Redis(port=broker.port) as client:
        client.config_resetstat()
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(get, [f"{web}/ping"] * 24))
        assert {answer.status_code for answer in answers} == {202}
        commands = client.info("commandstats")
    assert commands["cmdstat_lpush"]["calls"] == 24
    assert "cmdstat_subscribe" not in commands


@pytest.fixture
def server(start: Starter, tmp_path: Path) -> Iterator[Server]:
    """A broker that a test stops."""
    server = Server(tmp_path, password="hunter2")
    start.env["CELERY_BROKER_URL"] = server.url
    yield server
    server.process.kill()


def assert_away(url: str, path: str, receiver: Receiver) -> None:
    """Assert that *path* answers 503 in time, and that its spans are ERROR."""
    trace_id = uuid.uuid4().hex
    begin = time.monotonic()
    answer = get(url + path, headers={"traceparent": f"00-{trace_id}-{'1' * 16}-01"})
    assert time.monotonic() - begin < 2.0
    assert answer.status_code == 503
    if path == "/healthz":
        assert answer.json() == {"broker": False, "worker": False}
    else:
        assert int(answer.headers["Retry-After"]) > 0
        assert answer.json()["error"]["message"]
    route = re.sub("/ping/.*", "/ping/<uuid:task_id>", path.partition("?")[0])

    def of_request(spans: list[ReceivedSpan]) -> list[ReceivedSpan]:
        return [span for span in spans if span.trace_id == trace_id]

    spans = of_request(
        receiver.wait_for(lambda spans: "SERVER" in {span.kind for span in of_request(spans)})
    )
    names = {"send workers.tasks.ping", "GET /ping"} if route == "/ping" else {f"GET {route}"}
    assert {span.name for span in spans} == names
    assert {span.status for span in spans} == {"ERROR"}


@pytest.mark.alone
def test_a_broker_that_is_killed_and_comes_back(
    server: Server, start: Starter, receiver: Receiver
) -> None:
    web = start("flask", "run", "--port", str(port := free_port()))
    web.wait_for_line("Running on")
    url = f"http://127.0.0.1:{port}"
    assert get(f"{url}/ping").status_code == 202
    server.process.kill()
    for path in PATHS:
        assert_away(url, path, receiver)
    server.start()
    assert get(f"{url}/ping").status_code == 202
    # No request comes in between, so the web side does not know that the connection is dead.
    server.process.kill()
    server.start()
    assert get(f"{url}/ping").status_code == 202
    assert "hunter2" not in repr(receiver.spans)
    assert "hunter2" not in web.output


@pytest.mark.alone
def test_a_broker_that_never_takes_the_connection(start: Starter, receiver: Receiver) -> None:
    with ExitStack() as sockets:
        full = sockets.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        address = full.getsockname()
        for _ in range(4):
            waiting = sockets.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(address)
        url = start_web(start, CELERY_BROKER_URL=f"redis://127.0.0.1:{address[1]}/0")
        for path in PATHS:
            assert_away(url, path, receiver)


@pytest.mark.alone
def test_a_broker_that_dies_during_the_wait(
    server: Server, start: Starter, receiver: Receiver
) -> None:
    url = start_web(start)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(get, f"{url}/ping?wait=20")
        receiver.wait_for(lambda spans: "PRODUCER" in {span.kind for span in spans})
        server.process.kill()
        killed = time.monotonic()
        assert asked.result().status_code == 503
        assert time.monotonic() - killed < 2.0


@pytest.mark.alone
def test_a_rabbitmq_that_hangs_and_goes_on(
    rabbitmq: RabbitMQ, start: Starter, receiver: Receiver
) -> None:
    url = start_web(start, CELERY_BROKER_URL=rabbitmq.url)
    assert get(f"{url}/ping").status_code == 202
    rabbitmq.freeze()
    try:
        with ThreadPoolExecutor(12) as pool:
            list(pool.map(lambda path: assert_away(url, path, receiver), PATHS * 3))
    finally:
        rabbitmq.thaw()
    assert get(f"{url}/ping").status_code == 202


@pytest.mark.alone
def test_a_rabbitmq_that_is_not_there(start: Starter, receiver: Receiver) -> None:
    url = start_web(start, CELERY_BROKER_URL=f"amqp://a:hunter2@127.0.0.1:{free_port()}//")
    for path in PATHS:
        assert_away(url, path, receiver)
    assert "hunter2" not in repr(receiver.spans)


def test_a_rabbitmq_that_drops_its_connections(rabbitmq: RabbitMQ, start: Starter) -> None:
    url = start_web(start, CELERY_BROKER_URL=rabbitmq.url)
    for _ in range(2):
        assert get(f"{url}/ping").status_code == 202
        rabbitmq.drop_connections()
        assert get(f"{url}/ping?wait=0").status_code == 504
