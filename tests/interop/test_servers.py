"""Websockets and files under real servers."""

import contextlib
import secrets
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests
import simple_websocket

from telemetry.otlp.decode import ReceivedSpan
from telemetry.otlp.receiver import Receiver

from ..conftest import free_port
from ..processes import Process, Starter
from ..receiving import PatientReceiver

PARENT = "b7ad6b7169203331"

#: More than the socket buffers of both ends hold.
LARGE = 64 * 1024 * 1024

SERVED = "tests.interop.served"
SERVERS = {
    "gthread": ["gunicorn", "--worker-class", "gthread", "--threads", "4", "--keep-alive", "0"],
    "gevent": ["gunicorn", "--worker-class", "gevent"],
    "werkzeug": ["flask", "--app", f"{SERVED}:web", "run"],
}


@dataclass
class Served:
    """A running server with the app, and the spans that it made."""

    server: str
    process: Process
    address: str
    receiver: Receiver

    def websocket(self, path: str) -> tuple[simple_websocket.Client, str]:
        """Return a connected websocket, and the id of the trace that it is in."""
        trace_id = secrets.token_hex(16)
        headers = {"traceparent": f"00-{trace_id}-{PARENT}-01"}
        return simple_websocket.Client(f"ws://{self.address}{path}", headers=headers), trace_id

    def get(self, path: str) -> tuple[requests.Response, str]:
        """Return the response, and the id of the trace that it is in."""
        trace_id = secrets.token_hex(16)
        headers = {"traceparent": f"00-{trace_id}-{PARENT}-01"}
        url = f"http://{self.address}{path}"
        return requests.get(url, headers=headers, timeout=10), trace_id

    def span(self, trace_id: str) -> ReceivedSpan:
        """Wait for the one span of a trace."""
        spans = self.receiver.wait_for(
            lambda spans: [span for span in spans if span.trace_id == trace_id]
        )
        (span,) = [span for span in spans if span.trace_id == trace_id]
        assert (span.kind, span.parent_id) == ("SERVER", PARENT)
        return span


@pytest.fixture(scope="module", params=SERVERS)
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    port = free_port()
    argv = SERVERS[request.param]
    if argv[0] == "gunicorn":
        argv = [*argv, "--bind", f"127.0.0.1:{port}", f"{SERVED}:application"]
        ready = "Booting worker"
    else:
        argv = [*argv, "--port", str(port)]
        ready = "Running on"
    with PatientReceiver() as receiver:
        start = starter(receiver, tmp_path_factory.mktemp("served"))
        try:
            process = start(*argv)
            process.wait_for_line(ready)
            yield Served(request.param, process, f"127.0.0.1:{port}", receiver)
        finally:
            assert not list(start.end())


def starter(receiver: Receiver, directory: Path) -> Starter:
    """Return what starts servers of the app. The file that they serve is in *directory*."""
    file = directory / "served.bin"
    with file.open("wb") as made:
        made.truncate(LARGE)
    return Starter(
        OTEL_EXPORTER_OTLP_ENDPOINT=receiver.endpoint,
        OTEL_BSP_SCHEDULE_DELAY="100",
        QUEUEHOP_STATE_DIR=str(directory / "state"),
        SERVED_FILE=str(file),
    )


class TestWebsockets:
    @pytest.mark.interop(
        "flask-sock",
        "a websocket that ends well, under Gunicorn (gthread, gevent) and Werkzeug",
        "a SERVER span in the client's trace, without an error",
    )
    @pytest.mark.parametrize("closes", ["server", "client"])
    def test_one_that_ends_well(self, served: Served, closes: str) -> None:
        client, trace_id = served.websocket("/echo")
        if closes == "server":
            client.send("hello")
            assert client.receive(timeout=10) == "hello"
            with pytest.raises(simple_websocket.ConnectionClosed):
                client.receive(timeout=10)
        else:
            client.close()
        span = served.span(trace_id)
        assert span.name == "GET /echo"
        assert span.status == "UNSET", (span.status, span.attributes, span.events)
        assert span.events == ()
        assert "error.type" not in span.attributes
        assert "tracing could not" not in served.process.output

    @pytest.mark.interop(
        "flask-sock",
        "a websocket whose view raises, under Gunicorn (gthread, gevent) and Werkzeug",
        "a SERVER span that is an error, with the exception",
    )
    def test_one_that_fails(self, served: Served) -> None:
        client, trace_id = served.websocket("/fail")
        client.send("hello")
        with pytest.raises(simple_websocket.ConnectionClosed):
            client.receive(timeout=10)
        span = served.span(trace_id)
        assert (span.name, span.status) == ("GET /fail", "ERROR")
        assert span.attributes["error.type"] == "LookupError"
        assert [event.name for event in span.events] == ["exception"]


class TestFiles:
    @pytest.mark.interop(
        "gunicorn",
        "`send_file` under gthread and gevent",
        "the server gets its own `wsgi.file_wrapper`, so it uses sendfile; one SERVER span",
    )
    def test_gunicorn(self, served: Served) -> None:
        response, trace_id = served.get("/file")
        assert len(response.content) == LARGE
        span = served.span(trace_id)
        assert (span.name, span.status) == ("GET /file", "UNSET")
        assert span.attributes["http.response.status_code"] == 200
        if served.server != "werkzeug":  # it has no wrapper of its own
            assert served.process.wait_for_line("the body is the server's").endswith("True")

    def test_a_client_that_goes_away(self, served: Served) -> None:
        trace_id = secrets.token_hex(16)
        with download(served.address, trace_id):
            pass
        assert served.span(trace_id).name == "GET /file"

    @pytest.fixture
    def starting(self, receiver: Receiver, tmp_path: Path) -> Iterator[Starter]:
        start = starter(receiver, tmp_path)
        yield start
        assert not list(start.end())

    @pytest.mark.interop(
        "pyuwsgi",
        "`send_file` with offload threads, beside a slow download",
        "the file is offloaded, so the only worker answers others meanwhile; one SERVER span each",
    )
    def test_uwsgi(self, receiver: Receiver, starting: Starter) -> None:
        pytest.importorskip("pyuwsgi")
        address = f"127.0.0.1:{free_port()}"
        process = starting.script(
            *("pyuwsgi", "--http-socket", address, "--module", f"{SERVED}:web"),
            *("--virtualenv", sys.prefix, "--need-app", "--master", "--lazy-apps"),
            *("--die-on-term", "--enable-threads", "--processes", "1"),
            *("--offload-threads", "1"),
        )
        process.wait_for_line("WSGI app 0")
        served = Served("uwsgi", process, address, receiver)
        slow = secrets.token_hex(16)
        with download(address, slow) as connection:
            response, quick = served.get("/quick")
            assert response.text == "quick"
            assert served.span(quick).name == "GET /quick"
            received = 0
            while part := connection.recv(1 << 20):
                received += len(part)
        assert received > LARGE
        span = served.span(slow)
        assert (span.name, span.status) == ("GET /file", "UNSET")
        assert "tracing could not" not in process.output


@contextlib.contextmanager
def download(address: str, trace_id: str) -> Iterator[socket.socket]:
    """Ask for the file, and read its first part only."""
    host, _, port = address.partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(
            f"GET /file HTTP/1.0\r\nHost: {address}\r\n"
            f"traceparent: 00-{trace_id}-{PARENT}-01\r\n\r\n".encode()
        )
        assert connection.recv(7) == b"HTTP/1."
        yield connection
