"""A collector with moods, and processes that end spans and then go on, or are ended."""

import contextlib
import fcntl
import textwrap
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)

from telemetry.otlp.decode import ReceivedSpan, decode

from ...conftest import free_port
from ...processes import Process, Starter

Answer = Callable[[list[ReceivedSpan], grpc.ServicerContext], ExportTraceServiceResponse | None]


def take(spans: list[ReceivedSpan], context: grpc.ServicerContext) -> None:
    """Answer as a collector in good health does."""


class Collector(TraceServiceServicer):
    """Takes traces on a port of its own, when it is there, and answers as ``answer`` does.

    What ``answer`` raises by aborting is not kept; a metrics service it has none.
    """

    def __init__(self) -> None:
        self.port = free_port()
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self.answer: Answer = take
        self.names: Counter[str] = Counter()
        self.asked = 0
        self._changed = threading.Condition()
        self._server: Any = None

    def start(self) -> None:
        self._server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
        add_TraceServiceServicer_to_server(self, self._server)
        assert self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        self._server.start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.stop(0).wait()
            self._server = None

    def Export(
        self, request: ExportTraceServiceRequest, context: grpc.ServicerContext
    ) -> ExportTraceServiceResponse:
        spans = decode(request)
        with self._changed:
            self.asked += 1
            self._changed.notify_all()
        response = self.answer(spans, context)
        with self._changed:
            self.names.update(span.name for span in spans)
            self._changed.notify_all()
        return response or ExportTraceServiceResponse()

    def wait_for(self, count: int, timeout: float = 30.0) -> Counter[str]:
        """Wait until spans of *count* different names have arrived; return how often each has."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.names) >= count, timeout), (
                f"{len(self.names)} of {count} arrived"
            )
            return Counter(self.names)

    def wait_to_be_asked(self, count: int, timeout: float = 30.0) -> None:
        """Wait until *count* requests have come."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.asked >= count, timeout), self.asked


@pytest.fixture
def collector() -> Iterator[Collector]:
    """A collector that is not there yet."""
    collector = Collector()
    yield collector
    collector.stop()


@dataclass
class Program:
    """Runs scripts that have set up, with ``spans(count)`` to end so many, each of its own name."""

    start: Starter
    directory: Path
    endpoint: str
    number: int = 0

    def __call__(self, script: str, **env: str | None) -> Process:
        """Start *script*; what it prints can be waited for."""
        self.number += 1
        name = f"program{self.number}"
        head = f"""
            import os, signal, sys, threading, time
            import telemetry
            from opentelemetry import trace

            telemetry.setup("{name}")
            tracer = trace.get_tracer("test")

            def spans(count, name="{name}"):
                for number in range(count):
                    with tracer.start_as_current_span(f"{{name}}.{{number}}"):
                        pass
            """
        body = textwrap.dedent(head) + textwrap.dedent(script)
        (self.directory / f"{name}.py").write_text(body)
        return self.start(
            name,
            PYTHONPATH=f"{self.directory}:{self.start.env.get('PYTHONPATH', '')}:.",
            OTEL_EXPORTER_OTLP_ENDPOINT=self.endpoint,
            **env,
        )

    def run(self, script: str, status: int = 0, **env: str | None) -> Process:
        """Run *script* to its end."""
        process = self(script, **env)
        assert process.wait(60) == status, process.output
        return process

    def senders(self) -> list[int]:
        """Return the process ids of those that deliver from this directory."""
        found = []
        for process in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):
                if str(self.directory / "state") in (process / "cmdline").read_text():
                    found.append(int(process.name))
        return found

    def wait_for_sender_to_end(self) -> None:
        """Wait until nobody delivers any more."""
        (lock,) = (path for path in self.files if path.name == "sender.lock")
        with lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX)

    @property
    def files(self) -> list[Path]:
        """What is kept on disk."""
        return [path for path in (self.directory / "state").rglob("*") if path.is_file()]

    @property
    def segments(self) -> list[Path]:
        return sorted(path for path in self.files if path.suffix == ".spool")


@pytest.fixture
def program(start: Starter, tmp_path: Path, collector: Collector) -> Program:
    return Program(start, tmp_path, collector.endpoint)
