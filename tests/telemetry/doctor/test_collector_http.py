"""Each fault of a collector over HTTP has a finding of its own."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from ssl import PROTOCOL_TLS_SERVER, SSLContext

import grpc
import trustme

from telemetry.otlp.receiver import Receiver

from ...conftest import free_port
from .test_collector import Check, check, code

__all__ = ["check"]

HTTP = {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}


@contextmanager
def collector(tls: SSLContext | None = None) -> Iterator[str]:
    """Accept exports with the token on ``/v1/traces``; yield the URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            if self.path == "/page":
                self.answer(200, "text/html")
            elif self.path != "/v1/traces":
                self.answer(404)
            else:
                self.answer(200 if self.headers["token"] == "right" else 401)

        def answer(self, status: int, kind: str = "application/x-protobuf") -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        scheme = "http" if tls is None else "https"
        yield f"{scheme}://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_what_a_collector_answers(check: Check) -> None:
    token = {"OTEL_EXPORTER_OTLP_HEADERS": "token=right"}
    with collector() as url:
        assert code(check(url, **HTTP, **token)) == "ok"
        assert code(check(url, **HTTP)) == "exporter-unauthenticated"
        assert code(check(f"{url}/base", **HTTP, **token)) == "exporter-no-otlp"
        page = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{url}/page"}
        assert code(check(url, **HTTP, **token, **page)) == "exporter-no-otlp"
        to_tls = url.replace("http", "https")
        assert code(check(to_tls, **HTTP, **token)) == "exporter-tls"
        away = {"http_proxy": f"http://127.0.0.1:{free_port()}", "no_proxy": ""}
        assert code(check(url, **HTTP, **token, **away)) == "exporter-proxy"


def test_a_collector_that_is_not_there(check: Check) -> None:
    assert code(check(f"http://127.0.0.1:{free_port()}", **HTTP)) == "exporter-refused"
    assert code(check("http://collector.invalid:4318", **HTTP)) == "exporter-dns"
    assert code(check("127.0.0.1:4318", **HTTP)) == "exporter-endpoint-unusable"


def test_the_port_for_grpc(check: Check, receiver: Receiver) -> None:
    found = check(receiver.endpoint, **HTTP)
    assert code(found) == "exporter-wrong-protocol"
    assert found is not None
    assert "OTEL_EXPORTER_OTLP_PROTOCOL to grpc" in found.remedy


def test_the_port_for_grpc_with_tls(check: Check, tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    issued = authority.issue_cert("127.0.0.1")
    pair = issued.private_key_pem.bytes(), issued.cert_chain_pems[0].bytes()
    trusted = {"OTEL_EXPORTER_OTLP_CERTIFICATE": str(tmp_path / "ca.pem")}
    with Receiver(credentials=grpc.ssl_server_credentials([pair])) as receiver:
        found = check(receiver.endpoint, **HTTP, **trusted)
    assert code(found) == "exporter-wrong-protocol"


def test_tls(check: Check, tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = SSLContext(PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    token = {"OTEL_EXPORTER_OTLP_HEADERS": "token=right"}
    trusted = {"OTEL_EXPORTER_OTLP_CERTIFICATE": str(tmp_path / "ca.pem")}
    with collector(context) as url:
        assert code(check(url, **HTTP, **token, **trusted)) == "ok"
        assert code(check(url, **HTTP, **token)) == "exporter-tls-untrusted"
        plain = url.replace("https", "http")
        assert code(check(plain, **HTTP, **token)) == "exporter-plain-to-tls"
