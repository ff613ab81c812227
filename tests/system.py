"""The parts of the system as processes, each started as a person starts it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
from celery import Celery

from telemetry.viewer.receiver import Receiver

from .conftest import _server_command, free_port
from .processes import Process, Starter


def start_worker(start: Starter, **env: str | None) -> Process:
    """Start a worker of two processes; return it when it takes messages."""
    worker = start(
        *("celery", "-A", "workers", "worker", "--loglevel=INFO", "--concurrency=2"),
        *("--without-gossip", "--without-mingle"),
        **env,
    )
    worker.wait_for_line(" ready.")
    return worker


def start_web(start: Starter, **env: str | None) -> tuple[Process, str]:
    """Start the web side on a free port; return it and its URL."""
    web = start("flask", "run", "--port", "0", **env)
    line = web.wait_for_line("Running on http://")
    return web, line.rpartition(" ")[2]


class Server:
    """A Redis-protocol server of a test's own, on one port, which can be killed and come back."""

    def __init__(self, directory: Path, password: str = "") -> None:
        self.port = free_port()
        self.url = f"redis://:{password}@127.0.0.1:{self.port}/0"
        self._argv = [
            *(_server_command(), "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""),
            *("--dir", str(directory), "--requirepass", password),
        ]
        self.start()

    def start(self) -> None:
        self.process = Process(self._argv, env={})
        self.process.wait_for_line("Ready to accept connections")


@dataclass(frozen=True)
class System:
    """A worker and a web side, and the receiver that both report to."""

    url: str
    web: Process
    worker: Process
    receiver: Receiver
    start: Starter

    def get(self, path: str, **options: Any) -> requests.Response:
        return requests.get(self.url + path, timeout=40, **options)


@contextmanager
def running(broker_url: str, directory: Path, **env: str) -> Iterator[System]:
    """Run the system on a broker, for as many tests as want it."""
    with Receiver() as receiver:
        start = Starter(
            CELERY_BROKER_URL=broker_url,
            DATABASE_URL=f"sqlite:///{directory / 'pings.sqlite3'}",
            OTEL_EXPORTER_OTLP_ENDPOINT=receiver.endpoint,
            OTEL_BSP_SCHEDULE_DELAY="100",
            **env,
        )
        try:
            worker = start_worker(start)
            web, url = start_web(start)
            yield System(url, web, worker, receiver, start)
        finally:
            assert not list(start.end())


@contextmanager
def producer(broker_url: str) -> Iterator[Celery]:
    """Publish by the tasks' names alone, from a process that knows nothing of traces."""
    backend = broker_url if broker_url.startswith("redis") else "rpc://"
    with Celery(broker=broker_url, backend=backend) as celery:
        yield celery
        # Celery leaves these open.
        celery.backend.result_consumer.stop()
        if hasattr(celery.backend, "client"):
            celery.backend.client.close()
