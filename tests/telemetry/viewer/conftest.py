"""The viewer, in this process or as ``python -m telemetry view``, on free ports; a ping."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from telemetry.__main__ import _parser
from telemetry.otlp.decode import ReceivedSpan
from telemetry.viewer.command import serve

from ...conftest import free_port
from ...processes import PATIENCE, Process, Starter
from .pings import whole_ping


class Viewer:
    """A running viewer: its addresses, and its API."""

    def __init__(self, grpc: str, http: str) -> None:
        self.grpc = f"http://{grpc}"
        self.url = f"http://{http}"

    def get(self, path: str, expected: int = 200, **query: object) -> Any:
        """Send a GET to the API; return its JSON."""
        answer = requests.get(self.url + path, params=query, timeout=30)
        assert answer.status_code == expected, answer.text
        return answer.json()

    def post(self, body: bytes, path: str = "/v1/traces", **headers: str) -> requests.Response:
        names = {key.replace("_", "-"): value for key, value in headers.items()}
        kind = {"Content-Type": "application/x-protobuf"}
        return requests.post(self.url + path, body, headers=kind | names, timeout=30)

    def send(self, *exports: ExportTraceServiceRequest) -> None:
        """Send over HTTP; the viewer must accept every span."""
        for export in exports:
            answer = self.post(export.SerializeToString())
            assert (answer.status_code, answer.content) == (200, b"")

    def traces(self, count: int = 1, **query: object) -> list[dict[str, Any]]:
        """Wait until a search finds *count* traces; return their rows."""
        return self.wait_for(
            lambda: self.get("/api/traces", **query)["traces"], lambda rows: len(rows) == count
        )

    def settled(self, spans: int) -> dict[str, Any]:
        """Wait until there are *spans* spans and every trace is summarized; return the numbers."""
        return self.wait_for(
            lambda: self.get("/api/stats"),
            lambda stats: stats["spans"] == spans and not stats["pending"],
        )

    def wait_for(
        self, ask: Callable[[], Any], good: Callable[[Any], bool], timeout: float = PATIENCE
    ) -> Any:
        """Repeat a request until the answer is *good*; return the answer."""
        deadline = time.monotonic() + timeout
        while not good(answer := ask()):
            assert time.monotonic() < deadline, json.dumps(answer)[:2000]
            time.sleep(0.02)
        return answer


class ViewerProcess(Viewer):
    """A viewer in a process of its own."""

    def __init__(self, process: Process, grpc: str, http: str) -> None:
        super().__init__(grpc, http)
        self.process = process


StartViewer = Callable[..., ViewerProcess]


@pytest.fixture
def start_viewer(tmp_path: Path) -> Iterator[StartViewer]:
    """Start viewers; *argv* are further options, *http* an address that is free."""
    starter = Starter(HOME=str(tmp_path), COLUMNS="100")

    def start(*argv: str, db: str = str(tmp_path / "traces.db"), http: str = "") -> ViewerProcess:
        grpc, http = f"127.0.0.1:{free_port()}", http or f"127.0.0.1:{free_port()}"
        options = ("--grpc", grpc, "--http", http, *(("--db", db) if db else ()))
        process = starter("telemetry", "view", *options, *argv)
        process.wait_for_line(f"http://{http}/")
        return ViewerProcess(process, grpc, http)

    yield start
    assert not list(starter.end())


@pytest.fixture
def viewer() -> Iterator[Viewer]:
    """A viewer in this process, which keeps its traces in memory."""
    grpc, http = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    with serve(_parser().parse_args(["view", "--grpc", grpc, "--http", http, "--db", ":memory:"])):
        yield Viewer(grpc, http)


@pytest.fixture
def ping() -> dict[str, ReceivedSpan]:
    """The spans of one whole ping, by the names in the tests."""
    return whole_ping()
