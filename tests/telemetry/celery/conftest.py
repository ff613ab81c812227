"""A real worker, an app that publishes to it, and the spans of both."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from celery import Celery
from celery.result import AsyncResult

from telemetry.otlp.decode import ReceivedSpan
from telemetry.otlp.receiver import Receiver

from ...conformance import ran_on
from ...conftest import Broker
from ...processes import Process, Starter
from .project import make_app


@dataclass
class Queue:
    """What a test publishes with, and where it reads what happened."""

    app: Celery
    receiver: Receiver
    start: Starter
    node: pytest.Item | None = None
    since: int = 0

    def worker(
        self, pool: str = "prefork", concurrency: int = 2, *more: str, **env: str
    ) -> Process:
        """Start a worker and wait until it takes messages."""
        worker = self.start(
            *("celery", "-A", "tests.telemetry.celery.project", "worker", "--loglevel=INFO"),
            *("--pool", pool, "--concurrency", str(concurrency), "--without-gossip"),
            *("--without-mingle", *more),
            **env,
        )
        worker.wait_for_line(" ready.")
        self.runs_on(pool)
        return worker

    def runs_on(self, pool: str) -> None:
        """Note that the test has a worker with *pool*."""
        if self.node is not None:
            scheme = str(self.app.conf.broker_url).partition("://")[0]
            ran_on(self.node, pool, {"redis": "Redis", "amqp": "RabbitMQ"}[scheme])

    def send(self, task: str, *args: object, **options: object) -> AsyncResult:
        return self.app.send_task(f"tests.telemetry.celery.project.{task}", args, **options)

    def spans(self, *names: str, timeout: float = 20.0) -> list[ReceivedSpan]:
        """Wait until a span of each of *names* has arrived; return them in their order."""

        def found(spans: list[ReceivedSpan]) -> list[ReceivedSpan] | None:
            left = [span for span in spans if span.start_ns >= self.since]
            left.sort(key=lambda span: span.start_ns)
            taken = []
            for name in names:
                match = next((span for span in left if short(span) == name), None)
                if match is None:
                    return None
                left.remove(match)
                taken.append(match)
            return taken

        spans = self.receiver.wait_for(lambda spans: found(spans) is not None, timeout)
        taken = found(spans)
        assert taken is not None
        return taken


def short(span: ReceivedSpan) -> str:
    """Return the span's name without the module of its task."""
    return span.name.replace("tests.telemetry.celery.project.", "")


@pytest.fixture
def queue(
    broker: Broker,
    receiver: Receiver,
    start: Starter,
    reporting: None,
    request: pytest.FixtureRequest,
) -> Iterator[Queue]:
    app = make_app(broker.url)
    yield Queue(app, receiver, start, request.node)
    app.close()
