"""Helpers for tests of the system: a broker that can be stopped, a producer without traces."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from celery import Celery

from .conftest import _server_command, free_port
from .processes import Process


class Server:
    """A Redis-protocol server for one test. It can be killed and started again on its port."""

    def __init__(self, directory: Path, password: str, keep: bool = False) -> None:
        """With *keep*, the data survive a stop."""
        self.port = free_port()
        self.url = f"redis://:{password}@127.0.0.1:{self.port}/0"
        self._argv = [
            *(_server_command(), "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""),
            *("--dir", str(directory), "--requirepass", password),
            *("--appendonly", "yes" if keep else "no"),
        ]
        self.start()

    def start(self) -> None:
        self.process = Process(self._argv, env={})
        self.process.wait_for_line("Ready to accept connections")


@contextmanager
def producer(broker_url: str) -> Iterator[Celery]:
    """Publish by the tasks' names alone, from an app that is not instrumented."""
    backend = broker_url if broker_url.startswith("redis") else "rpc://"
    with Celery(broker=broker_url, backend=backend) as celery:
        yield celery
        # Celery leaves these open.
        celery.backend.result_consumer.stop()
        if hasattr(celery.backend, "client"):
            celery.backend.client.close()
