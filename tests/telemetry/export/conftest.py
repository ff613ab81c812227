"""A collector whose answers a test chooses, and programs that end spans and write log lines."""

import contextlib
import fcntl
import gzip
import math
import socket
import ssl
import textwrap
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.collector.logs.v1.logs_service_pb2_grpc import (
    LogsServiceServicer,
    add_LogsServiceServicer_to_server,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)

from telemetry.otlp.decode import ReceivedLog, decode, decode_logs

from ...conftest import free_port
from ...processes import PATIENCE, Process, Starter

#: Called with the names of the spans, or the texts of the log records, of an export.
Answer = Callable[[list[str], grpc.ServicerContext], ExportTraceServiceResponse | None]

#: Run a test with spans over gRPC and HTTP; with both spans and log records; with both over gRPC.
OF_SPANS = pytest.mark.parametrize("collector", ["grpc", "http/protobuf"], indirect=True)
OF_ALL = pytest.mark.parametrize(
    "collector", ["grpc", "http/protobuf", "grpc logs", "http/protobuf logs"], indirect=True
)
OF_BOTH = pytest.mark.parametrize("collector", ["grpc", "grpc logs"], indirect=True)


def take(names: list[str], context: grpc.ServicerContext) -> None:
    """Answer as a collector that accepts everything."""


class Collector(TraceServiceServicer):
    """Accepts traces on a port of its own, once it is started. ``answer`` determines its answers.

    If ``answer`` aborts, the collector drops the request. It has no service for metrics, and one
    for logs only if it ``takes_logs``.
    """

    protocol = "grpc"
    #: The subject of the test: "spans" or "log records".
    items = "spans"

    def __init__(self) -> None:
        self.port = free_port()
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self.answer: Answer = take
        self.names: Counter[str] = Counter()
        self.asked = 0
        self.takes_logs = False
        self.logs: list[ReceivedLog] = []
        self._changed = threading.Condition()
        self._server: Any = None

    def start(self) -> None:
        self._server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
        add_TraceServiceServicer_to_server(self, self._server)
        if self.takes_logs:
            add_LogsServiceServicer_to_server(_Logs(self), self._server)
        assert self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        self._server.start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.stop(0).wait()
            self._server = None

    def Export(
        self, request: ExportTraceServiceRequest, context: grpc.ServicerContext
    ) -> ExportTraceServiceResponse:
        return self._answered([span.name for span in decode(request)], context)

    def export_logs(
        self, request: ExportLogsServiceRequest, context: grpc.ServicerContext
    ) -> ExportLogsServiceResponse:
        logs = decode_logs(request)
        response = self._answered([log.text for log in logs], context)
        with self._changed:
            self.logs += logs
            self._changed.notify_all()
        # Both responses have the same numbers of fields.
        return ExportLogsServiceResponse.FromString(response.SerializeToString())

    def _answered(
        self, names: list[str], context: grpc.ServicerContext
    ) -> ExportTraceServiceResponse:
        with self._changed:
            self.asked += 1
            self._changed.notify_all()
        response = self.answer(names, context)
        with self._changed:
            self.names.update(names)
            self._changed.notify_all()
        return response or ExportTraceServiceResponse()

    def wait_for_logs(self, count: int, timeout: float = PATIENCE) -> list[ReceivedLog]:
        """Wait until *count* log records have arrived; return them."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.logs) >= count, timeout), self.logs
            return list(self.logs)

    def wait_for(self, count: int, timeout: float = PATIENCE) -> Counter[str]:
        """Wait until *count* different names have arrived; return the number of each."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.names) >= count, timeout), (
                f"{len(self.names)} of {count} arrived"
            )
            return Counter(self.names)

    def wait_to_be_asked(self, count: int, timeout: float = PATIENCE) -> None:
        """Wait until *count* requests have arrived."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.asked >= count, timeout), self.asked


class _Logs(LogsServiceServicer):
    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    def Export(
        self, request: ExportLogsServiceRequest, context: grpc.ServicerContext
    ) -> ExportLogsServiceResponse:
        return self._collector.export_logs(request, context)


class HttpCollector(Collector):
    """The same over HTTP: if ``answer`` aborts, the answer has OTLP's status for that code."""

    protocol = "http/protobuf"

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[Request] = []
        self._connections: set[socket.socket] = set()

    def start(self, tls: ssl.SSLContext | None = None) -> None:
        collector = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                collector._connections.add(self.connection)

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                found = self.headers
                headers = {name.lower(): ", ".join(found.get_all(name, [])) for name in found}
                answer = collector.respond(Request(self.path, headers, body))
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(answer.body)))
                self.end_headers()
                self.wfile.write(answer.body)

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, *_: object) -> None:
                """Print nothing: a sender may close a connection."""

        self._server = Server(("127.0.0.1", self.port), Handler)
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        if self._server is None:
            return
        self._server.shutdown()
        self._server.server_close()
        self._server = None
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._connections.clear()

    def respond(self, request: "Request") -> "Answered":
        """Answer one request. Tests of HTTP alone replace this method."""
        self.requests.append(request)
        if len(request.body) > 4 * 1024 * 1024:
            return Answered(413)
        is_of_logs = self.takes_logs and request.path.endswith("/v1/logs")
        if not (is_of_logs or request.path.endswith("/v1/traces")):
            return Answered(404)
        body = request.body
        if request.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        context: Any = HttpContext(request.headers)
        response: ExportLogsServiceResponse | ExportTraceServiceResponse
        try:
            if is_of_logs:
                response = self.export_logs(ExportLogsServiceRequest.FromString(body), context)
            else:
                response = self.Export(ExportTraceServiceRequest.FromString(body), context)
        except Aborted:
            return context.answer()
        return Answered(200, response.SerializeToString())


@dataclass
class Request:
    """A request as it arrived. The names of *headers* are in lower case."""

    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Answered:
    """An answer, in protobuf unless *headers* say otherwise."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(
        default_factory=lambda: {"Content-Type": "application/x-protobuf"}
    )


class Aborted(Exception):
    """Raised by ``abort``."""


STATUSES = {
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.INTERNAL: 500,
}


class HttpContext:
    """The part of a ``grpc.ServicerContext`` that ``answer`` uses."""

    def __init__(self, headers: dict[str, str]) -> None:
        self._headers = headers
        self._answered = Answered(500)

    def invocation_metadata(self) -> list[tuple[str, str]]:
        return list(self._headers.items())

    def set_trailing_metadata(self, metadata: tuple[tuple[str, bytes], ...]) -> None:
        """Take the delay of a ``RetryInfo``, in whole seconds as HTTP has it."""
        info = RetryInfo()
        assert Status.FromString(metadata[0][1]).details[0].Unpack(info)
        seconds = math.ceil(info.retry_delay.ToTimedelta().total_seconds())
        self._answered.headers["Retry-After"] = str(seconds)

    def abort(self, code: grpc.StatusCode, details: str) -> None:
        self._answered.status = STATUSES[code]
        self._answered.body = Status(message=details).SerializeToString()
        raise Aborted

    def answer(self) -> Answered:
        return self._answered


@pytest.fixture
def collector(request: pytest.FixtureRequest) -> Iterator[Collector]:
    """A collector that is not started, for spans over gRPC unless a mark like ``OF_ALL`` is set."""
    protocol, _, logs = getattr(request, "param", "grpc").partition(" ")
    collector = Collector() if protocol == "grpc" else HttpCollector()
    if logs:
        collector.takes_logs, collector.items = True, "log records"
    yield collector
    collector.stop()


@pytest.fixture
def http_collector() -> Iterator[HttpCollector]:
    """A collector over HTTP that is not started."""
    collector = HttpCollector()
    yield collector
    collector.stop()


@dataclass
class Program:
    """Runs scripts that have set up.

    ``spans(count)`` ends *count* spans, each with its own name. ``items(count)`` does the same, or
    writes *count* log lines if the *collector* is for a test of logs.
    """

    start: Starter
    directory: Path
    endpoint: str
    protocol: str = "grpc"
    logs: bool = False
    number: int = 0

    def __call__(self, script: str, **env: str | None) -> Process:
        """Start *script*. A test can wait for its output."""
        self.number += 1
        name = f"program{self.number}"
        head = f"""
            import logging, os, signal, sys, threading, time
            import telemetry
            from opentelemetry import trace

            telemetry.setup("{name}")
            tracer = trace.get_tracer("test")
            logger = logging.getLogger("test")
            logger.setLevel(logging.INFO)

            def spans(count, name="{name}", **attributes):
                for number in range(count):
                    with tracer.start_as_current_span(f"{{name}}.{{number}}") as span:
                        span.set_attributes(attributes)

            def lines(count, name="{name}", **attributes):
                for number in range(count):
                    logger.info("%s.%d", name, number, extra=attributes)

            items = {"lines" if self.logs else "spans"}
            """
        body = textwrap.dedent(head) + textwrap.dedent(script)
        (self.directory / f"{name}.py").write_text(body)
        return self.start(
            name,
            PYTHONPATH=f"{self.directory}:{self.start.env.get('PYTHONPATH', '')}:.",
            **{
                "OTEL_EXPORTER_OTLP_ENDPOINT": self.endpoint,
                "OTEL_EXPORTER_OTLP_PROTOCOL": self.protocol,
                "OTEL_LOGS_EXPORTER": "otlp" if self.logs else None,
                "QUEUEHOP_LOGS_MAX_LENGTH": "100000000",
                **env,
            },
        )

    def run(self, script: str, status: int = 0, **env: str | None) -> Process:
        """Run *script* to its end."""
        process = self(script, **env)
        assert process.wait(2 * PATIENCE) == status, process.output
        return process

    def senders(self) -> list[int]:
        """Return the process ids of the senders of this directory."""
        found = []
        for process in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):
                if str(self.directory / "state") in (process / "cmdline").read_text():
                    found.append(int(process.name))
        return found

    def wait_for_sender_to_end(self) -> None:
        """Wait until no sender is left."""
        (lock,) = (path for path in self.files if path.name == "sender.lock")
        with lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX)

    @property
    def files(self) -> list[Path]:
        """The files in the spool."""
        return [path for path in (self.directory / "state").rglob("*") if path.is_file()]

    @property
    def segments(self) -> list[Path]:
        return sorted(path for path in self.files if path.suffix == ".spool")


@pytest.fixture
def program(start: Starter, tmp_path: Path, collector: Collector) -> Program:
    logs = collector.items == "log records"
    return Program(start, tmp_path, collector.endpoint, collector.protocol, logs)
