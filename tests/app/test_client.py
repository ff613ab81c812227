"""The client, run as a user runs it, against a server that notes its requests."""

import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from telemetry.otlp.decode import ReceivedSpan
from telemetry.otlp.receiver import Receiver

from ..processes import ROOT, Starter

Client = Callable[..., "subprocess.CompletedProcess[str]"]


class Stub(ThreadingHTTPServer):
    """Answers every request with *status*."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.status = 202
        self.asked: list[tuple[str, dict[str, list[str]], str]] = []

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Stub

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        traceparent = self.headers.get("traceparent", "")
        self.server.asked.append((url.path, parse_qs(url.query), traceparent))
        said = {} if self.server.status < 400 else {"error": {"message": "the broker is down"}}
        body = json.dumps(said).encode()
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def stub() -> Iterator[Stub]:
    with Stub() as stub:
        thread = threading.Thread(target=stub.serve_forever)
        thread.start()
        yield stub
        stub.shutdown()
        thread.join()


@pytest.fixture
def client(start: Starter) -> Client:
    """Run the client to its end."""

    def client(*argv: str, **env: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "app.client", "--interval", "0", *argv]
        environment = {"PYTHONPATH": str(ROOT), **start.env, **env}
        return subprocess.run(
            command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60
        )

    return client


def test_each_ping_is_a_line_and_a_trace(client: Client, stub: Stub, receiver: Receiver) -> None:
    url = f"http://{stub.address}/ping"
    done = client(
        *("--url", url, "--count", "2", "--wait", "1.5", "--length", "9", "--task", "retry"),
        TRACE_VIEWER_URL="http://viewer/trace/{trace_id}?uiFind=x",
    )
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert len(lines) == len(stub.asked) == 2
    spans = receiver.wait_for(lambda spans: len(spans) == 4)
    for line, (path, query, traceparent) in zip(lines, stub.asked, strict=True):
        printed = re.fullmatch(
            re.escape(url) + r"  2 bytes  \d+\.\d ms  trace ([0-9a-f]{32})  (\S+)", line
        )
        assert printed, line
        trace_id, link = printed.groups()
        assert link == f"http://viewer/trace/{trace_id}?uiFind=x"
        assert (path, query) == ("/ping", {"wait": ["1.5"], "length": ["9"], "task": ["retry"]})
        root, request = trace_of(spans, trace_id)
        assert (root.kind, request.kind) == ("INTERNAL", "CLIENT")
        assert (root.status, request.status) == ("UNSET", "UNSET")
        assert (root.parent_id, request.parent_id) == ("", root.span_id)
        assert root.service == request.service == "queuehop-client"
        assert traceparent.startswith(f"00-{trace_id}-{request.span_id}-")


def trace_of(spans: list[ReceivedSpan], trace_id: str) -> tuple[ReceivedSpan, ReceivedSpan]:
    """Return the ping and the request of one trace."""
    found = {span.name: span for span in spans if span.trace_id == trace_id}
    return found["ping"], found["GET"]


def test_nothing_is_asked_for_that_was_not_given(client: Client, stub: Stub) -> None:
    done = client("--count", "1", DESTINATION_URL=f"http://{stub.address}/elsewhere")
    assert done.returncode == 0
    assert [(path, query) for path, query, _ in stub.asked] == [("/elsewhere", {})]
    assert "viewer" not in done.stdout


def test_a_server_that_fails_is_an_error(client: Client, stub: Stub, receiver: Receiver) -> None:
    stub.status = 503
    url = f"http://me:hunter2@{stub.address}/ping?token=hunter2"
    done = client("--url", url, "--count", "2")
    assert (done.returncode, done.stdout) == (1, "")
    lines = done.stderr.splitlines()
    assert len(lines) == 2
    start = f"http://{stub.address}/ping failed: 503, the broker is down  trace "
    assert all(line.startswith(start) for line in lines)
    spans = receiver.wait_for(lambda spans: len(spans) == 4)
    for line in lines:
        root, request = trace_of(spans, line.rpartition("trace ")[2])
        assert (root.status, request.status) == ("ERROR", "ERROR")
        assert root.attributes["error.type"] == request.attributes["error.type"] == "503"
    assert "hunter2" not in repr(spans)


@pytest.mark.parametrize(
    "argv",
    [
        ["--count", "0"],
        ["--count", "x"],
        ["--interval", "-1"],
        ["--interval", "soon"],
        ["--interval", "nan"],
        ["--wait", "inf"],
        ["--length", "x"],
        ["--nonsense"],
    ],
)
def test_a_wrong_option_is_named(client: Client, argv: list[str]) -> None:
    done = client(*argv)
    assert done.returncode == 2
    assert argv[0] in done.stderr
    assert "Traceback" not in done.stderr
    assert "invalid _" not in done.stderr


@pytest.mark.parametrize("url", ["http://me:hunter2@[::1", "127.0.0.1:5000", "ftp://host/ping"])
def test_a_url_that_is_no_address_is_named(client: Client, url: str) -> None:
    done = client("--count", "1", DESTINATION_URL=url)
    assert done.returncode == 2
    assert "--url: not an address; write http://host:port/ping" in done.stderr


def test_the_help_shows_no_password(client: Client) -> None:
    done = client("--help", DESTINATION_URL="http://me:hunter2@127.0.0.1/ping")
    assert done.returncode == 0
    assert "hunter2" not in done.stdout


INTERRUPTED = """
import os, signal, sys, time
from app import client

class Finalized:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(1000):
            pass

sleep, pings = time.sleep, iter(range(3))

def slept(seconds):
    if next(pings, None) == 2:
        Finalized()
    sleep(seconds)

time.sleep = slept
sys.exit(client.main(sys.argv[1:]))
"""


def test_ctrl_c_in_the_middle_of_a_finalizer(stub: Stub, start: Starter, tmp_path: Path) -> None:
    """Python prints the exception there, and does not raise it."""
    (tmp_path / "interrupted.py").write_text(INTERRUPTED)
    client = start(
        *("interrupted", "--url", f"http://{stub.address}/ping", "--interval", "0.01"),
        PYTHONPATH=f"{tmp_path}:{ROOT}",
    )
    assert client.wait() == 0, client.output
    assert "Exception ignored" in client.output
    assert len(stub.asked) == 3
