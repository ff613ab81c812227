"""Each fault of a collector has a finding of its own."""

import os
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from ssl import PROTOCOL_TLS_SERVER, SSLContext

import grpc
import pytest
import trustme
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)

from telemetry.doctor import connection
from telemetry.doctor.collector import check_exporter
from telemetry.doctor.finding import Finding
from telemetry.otlp.receiver import Receiver

from ...conftest import free_port

#: Checks the exporter of an endpoint and an environment. Returns the finding.
Check = Callable[..., Finding | None]


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch) -> Check:
    """Check the exporter in this process, with short timeouts."""
    monkeypatch.setattr(connection, "TIMEOUT", 1.0)

    def run(endpoint: str, **env: str) -> Finding | None:
        with monkeypatch.context() as patch:
            for name in [name for name in os.environ if name.startswith("OTEL_")]:
                patch.delenv(name)
            for name, value in {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, **env}.items():
                patch.setenv(name, value)
            return check_exporter()

    return run


def code(finding: Finding | None) -> str:
    """Return the code of *finding*, ``ok`` if there is none."""
    return finding.code if finding else "ok"


def test_a_name_that_does_not_resolve(check: Check) -> None:
    assert code(check("http://collector.invalid:4317")) == "exporter-dns"


def test_nothing_listens(check: Check) -> None:
    assert code(check(f"http://127.0.0.1:{free_port()}")) == "exporter-refused"


def test_a_socket_that_is_missing(check: Check, tmp_path: Path) -> None:
    found = check(f"unix:{tmp_path}/none")
    assert code(found) == "exporter-unreachable"
    assert found is not None
    assert "start the collector" in found.remedy


def test_an_address_that_says_nothing(check: Check) -> None:
    """A listener whose queue is full: the kernel drops further connections."""
    with socket.socket() as full, ExitStack() as waiting:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(2):
            one = waiting.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        endpoint = f"http://127.0.0.1:{full.getsockname()[1]}"
        assert code(check(endpoint)) == "exporter-unreachable"


@contextmanager
def collector(servicer: TraceServiceServicer) -> Iterator[str]:
    """Serve *servicer*; yield its endpoint."""
    with ThreadPoolExecutor(1) as pool:
        server = grpc.server(pool)
        add_TraceServiceServicer_to_server(servicer, server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield f"http://127.0.0.1:{port}"
        server.stop(None).wait()


def test_a_collector_that_fails(check: Check) -> None:
    class Failing(TraceServiceServicer):
        def Export(self, request, context):
            context.abort(grpc.StatusCode.INTERNAL, "no room")

    with collector(Failing()) as endpoint:
        assert code(check(endpoint)) == "exporter-failed"


def test_a_collector_that_does_not_come_to_an_answer(check: Check) -> None:
    asked_all = threading.Event()

    class Slow(TraceServiceServicer):
        def Export(self, request, context):
            asked_all.wait()

    with collector(Slow()) as endpoint:
        found = check(endpoint)
        asked_all.set()
    assert found is not None
    assert found.problem.endswith("did not answer an export in 1 s")


def test_an_address_of_no_use(check: Check) -> None:
    assert code(check("ftp://127.0.0.1:4317")) == "exporter-endpoint-unusable"


def test_the_variable_that_decides_is_the_one_that_is_named(check: Check) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    found = check(nobody, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=nobody)
    assert found is not None
    assert "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT" in found.remedy


def test_a_proxy_that_is_not_there(check: Check, receiver: Receiver) -> None:
    """gRPC goes through the proxy of the environment, to this machine too."""
    away = {"http_proxy": f"http://127.0.0.1:{free_port()}"}
    assert code(check(receiver.endpoint, **away)) == "exporter-proxy"
    assert code(check(receiver.endpoint, **away, no_proxy="127.0.0.1")) == "ok"


@pytest.fixture
def http_port() -> Iterator[int]:
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_the_port_for_http(check: Check, http_port: int) -> None:
    assert code(check(f"http://127.0.0.1:{http_port}")) == "exporter-wrong-protocol"


@pytest.fixture
def authority(tmp_path: Path) -> trustme.CA:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return authority


@pytest.fixture
def secure(authority: trustme.CA) -> Iterator[Receiver]:
    issued = authority.issue_cert("127.0.0.1")
    key, chain = issued.private_key_pem.bytes(), [each.bytes() for each in issued.cert_chain_pems]
    with Receiver(credentials=grpc.ssl_server_credentials([(key, b"".join(chain))])) as receiver:
        yield receiver


def test_tls(check: Check, secure: Receiver, receiver: Receiver, tmp_path: Path) -> None:
    trusted = {"OTEL_EXPORTER_OTLP_CERTIFICATE": str(tmp_path / "ca.pem")}
    plain = secure.endpoint.replace("https", "http")
    assert code(check(secure.endpoint, **trusted)) == "ok"
    assert code(check(secure.endpoint)) == "exporter-tls-untrusted"
    assert code(check(plain)) == "exporter-plain-to-tls"
    to_plain = receiver.endpoint.replace("http", "https")
    assert code(check(to_plain, **trusted)) == "exporter-tls"


@pytest.mark.parametrize("holds", [None, "no certificate"])
def test_an_authority_that_is_not_there(
    check: Check, secure: Receiver, tmp_path: Path, holds: str | None
) -> None:
    file = tmp_path / "authority.pem"
    if holds:
        file.write_text(holds)
    named = {"OTEL_EXPORTER_OTLP_CERTIFICATE": str(file)}
    assert code(check(secure.endpoint, **named)) == "exporter-certificate"


def test_a_client_certificate_that_is_wanted(
    check: Check, authority: trustme.CA, tmp_path: Path
) -> None:
    issued, ours = authority.issue_cert("127.0.0.1"), authority.issue_cert("client.test")
    pair = issued.private_key_pem.bytes(), issued.cert_chain_pems[0].bytes()
    credentials = grpc.ssl_server_credentials([pair], authority.cert_pem.bytes(), True)
    certificate, key = tmp_path / "client.pem", tmp_path / "client.key"
    ours.cert_chain_pems[0].write_to_path(str(certificate))
    ours.private_key_pem.write_to_path(str(key))
    env = {"OTEL_EXPORTER_OTLP_CERTIFICATE": str(tmp_path / "ca.pem")}
    with Receiver(credentials=credentials) as receiver:
        assert code(check(receiver.endpoint, **env)) == "exporter-client-certificate"
        env["OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE"] = str(certificate)
        env["OTEL_EXPORTER_OTLP_CLIENT_KEY"] = str(key)
        assert code(check(receiver.endpoint, **env)) == "ok"
        env["OTEL_EXPORTER_OTLP_CLIENT_KEY"] = str(tmp_path / "ca.pem")
        assert code(check(receiver.endpoint, **env)) == "exporter-certificate"


@pytest.mark.parametrize("offered", [[], ["http/1.1"]])
def test_the_port_for_http_with_tls(
    check: Check, authority: trustme.CA, tmp_path: Path, offered: list[str]
) -> None:
    context = SSLContext(PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    if offered:
        context.set_alpn_protocols(offered)
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        endpoint = f"https://127.0.0.1:{server.server_port}"
        trusted = {"OTEL_EXPORTER_OTLP_CERTIFICATE": str(tmp_path / "ca.pem")}
        assert code(check(endpoint, **trusted)) == "exporter-wrong-protocol"
        server.shutdown()
        thread.join()


class Guarded(grpc.ServerInterceptor):
    """Accepts exports with a token only."""

    def intercept_service(self, continuation, details):
        if ("token", "right") in details.invocation_metadata:
            return continuation(details)
        return grpc.unary_unary_rpc_method_handler(
            lambda request, context: context.abort(grpc.StatusCode.UNAUTHENTICATED, "who?")
        )


def test_grpc_that_refuses(check: Check) -> None:
    with ThreadPoolExecutor(1) as pool:
        server = grpc.server(pool, interceptors=[Guarded()])
        endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        assert code(check(endpoint)) == "exporter-unauthenticated"
        with_token = {"OTEL_EXPORTER_OTLP_HEADERS": "token=right"}
        assert code(check(endpoint, **with_token)) == "exporter-no-otlp"
        server.stop(None).wait()
