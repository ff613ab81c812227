"""A real worker, an app that publishes to it, and the spans of both.

``queue`` is for a worker of the test's own. ``prefork`` and ``solo`` have one that the tests of a
module share.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from celery import Celery
from celery.contrib.testing.worker import start_worker
from celery.result import AsyncResult
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource

from telemetry.config.sdk import SpanLimits
from telemetry.config.settings import sampler
from telemetry.otlp.decode import ReceivedSpan
from telemetry.otlp.receiver import Receiver
from telemetry.tracing.provider import HopTracerProvider

from ...conformance import ran_on
from ...conftest import Broker
from ...in_process import Switch
from ...processes import PATIENCE, Process, Starter
from ...receiving import PatientReceiver
from ...system import Server
from ..tracing.sinks import ListSink
from .project import make_app


@dataclass
class Queue:
    """The app with which a test publishes, and the receiver of the spans."""

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

    def spans(self, *names: str, timeout: float = PATIENCE) -> list[ReceivedSpan]:
        """Wait until a span with each of *names* has arrived; return these spans in that order."""

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

    def as_seen_by(self, node: pytest.Item, pool: str) -> "Queue":
        """Return the queue of a running worker with *pool* without the spans of earlier tests."""
        # Spans that an earlier test has not received yet belong to that test.
        known = max((span.end_ns for span in self.receiver.spans), default=0)
        fresh = replace(self, node=node, since=known)
        fresh.runs_on(pool)
        return fresh


def short(span: ReceivedSpan) -> str:
    """Return the span's name without the module of its task."""
    return span.name.replace("tests.telemetry.celery.project.", "")


@pytest.fixture
def sink(monkeypatch: pytest.MonkeyPatch) -> Iterator[ListSink]:
    """The records of this process, for workers in a thread of it: ``working``."""
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")  # for the setup of the workers
    sink = ListSink()
    provider = HopTracerProvider(sampler(), Resource({}), SpanLimits(), sink)
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    # Celery sets the level of the root logger, for the rest of the process.
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    yield sink
    root.setLevel(level)
    root.handlers[:] = handlers


@contextmanager
def working(app: Celery, queues: Sequence[str] = ()) -> Iterator[None]:
    """Run a worker of *app* in threads of this process."""
    options = {"queues": list(queues)} if queues else {}
    with start_worker(app, perform_ping_check=False, pool="threads", concurrency=2, **options):
        yield


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


@contextmanager
def shared_worker(
    pool: str, broker: str, results: str, switch: Switch, state: Path
) -> Iterator[Queue]:
    """Run a worker that many tests send to; yield its queue."""
    with PatientReceiver() as receiver, pytest.MonkeyPatch.context() as patch:
        patch.setenv("RESULT_BACKEND", results)
        exporter = OTLPSpanExporter(endpoint=receiver.endpoint)
        switch.targets.append(exporter)
        start = Starter(
            CELERY_BROKER_URL=broker,
            RESULT_BACKEND=results,
            OTEL_EXPORTER_OTLP_ENDPOINT=receiver.endpoint,
            OTEL_BSP_SCHEDULE_DELAY="50",
            QUEUEHOP_STATE_DIR=str(state),
        )
        queue = Queue(make_app(broker), receiver, start)
        worker = queue.worker(pool, 2, "-Q", "celery,other")
        yield queue
        queue.app.close()
        assert not list(start.end())
        assert "tracing could not" not in worker.output
        switch.targets.remove(exporter)
        exporter.shutdown()


def _with_its_own_broker(
    pool: str, switch: Switch, temporary: pytest.TempPathFactory
) -> Iterator[Queue]:
    directory = temporary.mktemp("state")
    server = Server(directory, "secret")  # nobody empties it between two tests
    with shared_worker(pool, server.url, server.url, switch, directory) as queue:
        yield queue
    server.process.stop()


@pytest.fixture(scope="module")
def prefork_worker(switch: Switch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Queue]:
    yield from _with_its_own_broker("prefork", switch, tmp_path_factory)


@pytest.fixture(scope="module")
def solo_worker(switch: Switch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Queue]:
    yield from _with_its_own_broker("solo", switch, tmp_path_factory)


@pytest.fixture
def prefork(prefork_worker: Queue, request: pytest.FixtureRequest) -> Queue:
    """The queue of a worker with child processes."""
    return prefork_worker.as_seen_by(request.node, "prefork")


@pytest.fixture
def solo(solo_worker: Queue, request: pytest.FixtureRequest) -> Queue:
    """The queue of a worker with one process."""
    return solo_worker.as_seen_by(request.node, "solo")
