"""Export over HTTP: headers, statuses, Retry-After, TLS, proxies, and malformed answers."""

import gzip
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import trustme
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsPartialSuccess,
    ExportMetricsServiceResponse,
)

from telemetry.config import exporter
from telemetry.export.sender.deliveries import open_transport
from telemetry.export.sender.delivery import LONGEST_ASKED
from telemetry.export.sender.transport import ExportResult, Outcome, Transport
from telemetry.otlp.receiver import Receiver

from ...conftest import free_port
from .conftest import Answered, HttpCollector, Program, Request

PROTOBUF = "application/x-protobuf"


@pytest.fixture(autouse=True)
def over_http(monkeypatch: pytest.MonkeyPatch, http_collector: HttpCollector) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", http_collector.endpoint)
    for name in ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)


@contextmanager
def opened() -> Iterator[Transport]:
    """A transport to the target in the environment."""
    target = exporter.otlp()
    assert target is not None
    transport = open_transport(target)
    try:
        yield transport
    finally:
        transport.close()


def export(request: bytes = b"") -> ExportResult:
    with opened() as transport:
        return transport.export("TRACES", request)


def answering(
    collector: HttpCollector, status: int, body: bytes = b"", **headers: str
) -> HttpCollector:
    """Let *collector* give this answer to every request."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}

    def respond(request: Request) -> Answered:
        collector.requests.append(request)
        return Answered(status, body, named)

    collector.respond = respond  # type: ignore[method-assign]
    collector.start()
    return collector


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_a_request_is_what_the_protocol_wants(
    http_collector: HttpCollector, monkeypatch: pytest.MonkeyPatch, compression: str
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "Api-Key=t0ken,x-scope=a%20b")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", compression)
    answering(http_collector, 200)
    assert export(b"request") == ExportResult(Outcome.DELIVERED)
    (request,) = http_collector.requests
    assert request.path == "/v1/traces"
    assert request.headers["content-type"] == PROTOBUF
    assert request.headers["api-key"] == "t0ken"
    assert request.headers["x-scope"] == "a b"
    assert request.headers["user-agent"].startswith("queuehop/")
    assert request.headers.get("content-encoding", "none") == compression
    unpack = gzip.decompress if compression == "gzip" else bytes
    assert unpack(request.body) == b"request"


def test_a_header_of_the_settings_replaces_the_senders_own_unless_it_is_the_formats(
    http_collector: HttpCollector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "User-Agent=mine,Content-Type=text/plain")
    answering(http_collector, 200)
    export()
    (request,) = http_collector.requests
    assert request.headers["user-agent"] == "mine"
    assert request.headers["content-type"] == PROTOBUF


@pytest.mark.parametrize(
    ("status", "outcome", "flags"),
    [
        (200, Outcome.DELIVERED, ""),
        (202, Outcome.DELIVERED, ""),
        (204, Outcome.DELIVERED, ""),
        (301, Outcome.RETRY, "slow"),
        (307, Outcome.RETRY, "slow"),
        (400, Outcome.REFUSED, ""),
        (401, Outcome.RETRY, "slow"),
        (403, Outcome.RETRY, "slow"),
        (404, Outcome.RETRY, "slow missing"),
        (407, Outcome.RETRY, "slow"),
        (408, Outcome.RETRY, ""),
        (413, Outcome.REFUSED, ""),
        (415, Outcome.RETRY, "slow"),
        (429, Outcome.RETRY, ""),
        (499, Outcome.RETRY, "slow"),
        (500, Outcome.RETRY, "doubtful"),
        (502, Outcome.RETRY, ""),
        (503, Outcome.RETRY, ""),
        (504, Outcome.RETRY, ""),
        (599, Outcome.RETRY, "doubtful"),
    ],
)
def test_statuses(http_collector: HttpCollector, status: int, outcome: Outcome, flags: str) -> None:
    answering(http_collector, status, Location="http://elsewhere/")
    result = export()
    assert result.outcome is outcome
    found = {name for name in ("slow", "doubtful", "missing") if getattr(result, name)}
    assert found == set(flags.split())
    assert (str(status) in result.error) is (outcome is not Outcome.DELIVERED)
    assert len(http_collector.requests) == 1


@pytest.mark.parametrize(
    ("after", "least", "most"),
    [
        ("7", 7, 7),
        (" 7 ", 7, 7),
        (lambda: formatdate(time.time() + 60, usegmt=True), 50, 60),
        (lambda: formatdate(time.time() - 60, usegmt=True), 0, 0),
        ("soon", None, None),
        ("-7", None, None),
        ("٣", None, None),
        ("9" * 400, LONGEST_ASKED, 1e9),
        ("9" * 9_000, None, None),  # more digits than Python converts
        ("Fri, 31 Dec 99999 23:59:59 GMT", None, None),
    ],
)
def test_retry_after(
    http_collector: HttpCollector,
    after: str | Callable[[], str],
    least: float | None,
    most: float | None,
) -> None:
    value = after if isinstance(after, str) else after()
    answering(http_collector, 503, Retry_After=value.encode().decode("latin-1"))
    wait = export().wait
    if least is None or most is None:
        assert wait is None
    else:
        assert wait is not None
        assert least <= wait <= most


@pytest.mark.parametrize(
    ("body", "kind", "said"),
    [
        (Status(message="no such\ntoken").SerializeToString(), PROTOBUF, "no such token"),
        (b"no such token", "text/plain", "no such token"),
        (b'{"message": "no such token"}', "application/json", '{"message": "no such token"}'),
        (b"<html>no such token</html>", "text/html", ""),
        (b"\xff\xff", PROTOBUF, ""),
        (b"x" * 1_000_000, "text/plain", "x" * 200),
    ],
)
def test_what_a_collector_says_is_told(
    http_collector: HttpCollector, body: bytes, kind: str, said: str
) -> None:
    answering(http_collector, 401, body, Content_Type=kind)
    error = export().error
    expected = f"{http_collector.endpoint}/v1/traces answers 401 Unauthorized"
    assert error == (f"{expected}: {said}" if said else expected)


def test_partial_success_of_metrics(http_collector: HttpCollector) -> None:
    partial = ExportMetricsPartialSuccess(rejected_data_points=4, error_message="too many")
    body = ExportMetricsServiceResponse(partial_success=partial).SerializeToString()
    answering(http_collector, 200, body, Content_Type=PROTOBUF)
    targets = exporter.targets()
    assert targets is not None
    assert targets.metrics is not None
    transport = open_transport(targets.metrics)
    result = transport.export("METRICS", b"")
    transport.close()
    assert (result.outcome, result.rejected, result.error) == (Outcome.DELIVERED, 4, "too many")
    assert http_collector.requests[0].path == "/v1/metrics"


@pytest.mark.parametrize(
    ("body", "kind", "outcome"),
    [
        (b"<html>Log in</html>", "text/html; charset=utf-8", Outcome.RETRY),
        (b"{}", "application/json", Outcome.DELIVERED),
        (b"OK", "text/plain", Outcome.DELIVERED),
        (b"\xff\xff", PROTOBUF, Outcome.DELIVERED),
    ],
)
def test_an_answer_that_is_no_protobuf(
    http_collector: HttpCollector, body: bytes, kind: str, outcome: Outcome
) -> None:
    answering(http_collector, 200, body, Content_Type=kind)
    assert export().outcome is outcome


def test_one_connection_is_used_until_it_is_closed(http_collector: HttpCollector) -> None:
    http_collector.start()
    with opened() as transport:
        for _ in range(3):
            assert transport.export("TRACES", b"").outcome is Outcome.DELIVERED
        assert len(http_collector._connections) == 1
        http_collector.stop()
        http_collector.start()
        results = [transport.export("TRACES", b"").outcome for _ in range(2)]
        assert results[-1] is Outcome.DELIVERED


def test_nobody_is_there(http_collector: HttpCollector) -> None:
    result = export()
    assert result.outcome is Outcome.RETRY
    assert result.error.startswith(f"{http_collector.endpoint}/v1/traces cannot be connected to")


@contextmanager
def raw(answer: Callable[[socket.socket], object]) -> Iterator[str]:
    """A server that calls *answer* with each connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def run() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    try:
                        answer(connection)
                    except OSError:
                        continue

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
    thread.join()


def settings_of_http_2(connection: socket.socket) -> None:
    connection.recv(65536)
    connection.sendall(b"\0\0\x06\4\0\0\0\0\0\r\n")
    connection.recv(65536)


def silence(connection: socket.socket) -> None:
    while connection.recv(65536):
        pass


def drip(connection: socket.socket) -> None:
    connection.recv(65536)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    while True:
        connection.sendall(b"x")
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (settings_of_http_2, "as HTTP/1.1 does"),
        (lambda connection: connection.recv(65536), "closes the connection without an answer"),
        (silence, "within 0.5 s"),
        (drip, "within 0.5 s"),
    ],
    ids=["gRPC", "a connection that is closed", "silence", "an answer without end"],
)
def test_what_is_no_answer(
    monkeypatch: pytest.MonkeyPatch, answer: Callable[[socket.socket], object], error: str
) -> None:
    with raw(answer) as endpoint:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.5")
        result = export()
    assert result.outcome is Outcome.RETRY
    assert error in result.error


def test_a_server_of_grpc_is_told_apart(
    monkeypatch: pytest.MonkeyPatch, receiver: Receiver
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint)
    result = export()
    assert result.outcome is Outcome.RETRY
    assert "as HTTP/1.1 does" in result.error


def test_no_secret_is_in_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = f"http://user:s3cret@127.0.0.1:{free_port()}/?key=s3cret"
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "api-key=s3cret")
    assert "s3cret" not in export().error


# TLS


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


def server_tls(authority: trustme.CA, *, client: bool = False) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    if client:
        context.verify_mode = ssl.CERT_REQUIRED
        authority.configure_trust(context)
    return context


def trust(monkeypatch: pytest.MonkeyPatch, authority: trustme.CA, directory: Path) -> None:
    authority.cert_pem.write_to_path(directory / "ca.pem")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", str(directory / "ca.pem"))


def over_tls(monkeypatch: pytest.MonkeyPatch, collector: HttpCollector) -> None:
    endpoint = collector.endpoint.replace("http:", "https:")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)


def test_over_tls(
    http_collector: HttpCollector,
    monkeypatch: pytest.MonkeyPatch,
    authority: trustme.CA,
    tmp_path: Path,
) -> None:
    http_collector.start(server_tls(authority))
    over_tls(monkeypatch, http_collector)
    result = export()
    assert result.outcome is Outcome.RETRY
    assert result.slow
    assert "fails at TLS" in result.error
    trust(monkeypatch, authority, tmp_path)
    assert export().outcome is Outcome.DELIVERED


def test_with_a_client_certificate(
    http_collector: HttpCollector,
    monkeypatch: pytest.MonkeyPatch,
    authority: trustme.CA,
    tmp_path: Path,
) -> None:
    http_collector.start(server_tls(authority, client=True))
    over_tls(monkeypatch, http_collector)
    trust(monkeypatch, authority, tmp_path)
    assert export().outcome is Outcome.RETRY
    identity = authority.issue_cert("client.test")
    identity.private_key_pem.write_to_path(tmp_path / "key.pem")
    for pem in identity.cert_chain_pems:
        pem.write_to_path(tmp_path / "client.pem", append=True)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CLIENT_KEY", str(tmp_path / "key.pem"))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", str(tmp_path / "client.pem"))
    assert export().outcome is Outcome.DELIVERED
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", str(tmp_path / "key.pem"))
    result = export()
    assert result.outcome is Outcome.RETRY
    assert "the certificates for OTLP cannot be used" in result.error


# Proxies


class Proxy(ThreadingHTTPServer):
    """A proxy that passes requests on, by CONNECT or by their URL, and notes them."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), ProxyHandler)
        self.asked: list[tuple[str, str, str | None]] = []
        self.port = self.server_address[1]


class ProxyHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def note(self) -> None:
        proxy: Any = self.server
        proxy.asked.append((self.command, self.path, self.headers.get("Proxy-Authorization")))

    def do_POST(self) -> None:
        self.note()
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_CONNECT(self) -> None:
        self.note()
        host, _, port = self.path.rpartition(":")
        with socket.create_connection((host, int(port))) as there:
            self.send_response(200)
            self.end_headers()
            back = threading.Thread(target=self.pump, args=(there, self.connection))
            back.start()
            self.pump(self.connection, there)
            back.join()
        self.close_connection = True

    def pump(self, one: socket.socket, other: socket.socket) -> None:
        try:
            while data := one.recv(65536):
                other.sendall(data)
            other.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    proxy = Proxy()
    thread = threading.Thread(target=proxy.serve_forever, args=(0.05,))
    thread.start()
    yield proxy
    proxy.shutdown()
    proxy.server_close()
    thread.join()


def test_through_a_proxy(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector.test:4318")
    monkeypatch.setenv("http_proxy", f"http://us%40er:s3cret@127.0.0.1:{proxy.port}")
    assert export().outcome is Outcome.DELIVERED
    assert proxy.asked == [
        ("POST", "http://collector.test:4318/v1/traces", "Basic dXNAZXI6czNjcmV0")
    ]


def test_through_a_proxy_to_tls(
    proxy: Proxy,
    http_collector: HttpCollector,
    monkeypatch: pytest.MonkeyPatch,
    authority: trustme.CA,
    tmp_path: Path,
) -> None:
    http_collector.start(server_tls(authority))
    over_tls(monkeypatch, http_collector)
    trust(monkeypatch, authority, tmp_path)
    monkeypatch.setenv("https_proxy", f"127.0.0.1:{proxy.port}")
    assert export().outcome is Outcome.DELIVERED
    assert proxy.asked == [("CONNECT", f"127.0.0.1:{http_collector.port}", None)]


def test_past_a_proxy(
    proxy: Proxy, http_collector: HttpCollector, monkeypatch: pytest.MonkeyPatch
) -> None:
    http_collector.start()
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.port}")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert export().outcome is Outcome.DELIVERED
    assert proxy.asked == []


def test_a_proxy_that_is_down_is_named_without_its_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("http_proxy", f"http://user:s3cret@127.0.0.1:{free_port()}")
    result = export()
    assert result.outcome is Outcome.RETRY
    assert "proxy" in result.error
    assert result.error.endswith(" Connection refused")
    assert "s3cret" not in result.error


# Processes


@pytest.mark.parametrize("spool", ["disk", "memory"])
def test_forks_over_http(program: Program, http_collector: HttpCollector, spool: str) -> None:
    http_collector.start()
    program.endpoint, program.protocol = http_collector.endpoint, http_collector.protocol
    process = program.run(
        """
        spans(5, "parent")
        telemetry.flush()
        children = []
        for number in range(20):
            pid = os.fork()
            if not pid:
                spans(5, f"child{number}")
                os._exit(not telemetry.flush())
            children.append(pid)
        spans(5, "again")
        print(all(os.waitpid(pid, 0)[1] == 0 for pid in children))
        print("grpc" in sys.modules)
        """,
        QUEUEHOP_SPOOL=spool,
    )
    names = http_collector.wait_for(110)
    assert set(names.values()) == {1}
    assert process.lines == ["True", "False"]


def test_the_sender_does_not_load_grpc_for_http(
    program: Program, http_collector: HttpCollector
) -> None:
    (program.directory / "sitecustomize.py").write_text("import sys; sys.modules['grpc'] = None\n")
    http_collector.start()
    program.endpoint, program.protocol = http_collector.endpoint, http_collector.protocol
    process = program.run("spans(5)")
    assert set(http_collector.wait_for(5).values()) == {1}
    assert process.output == ""
