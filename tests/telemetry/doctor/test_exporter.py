"""Every way in which a collector is not there, told apart."""

import socket
import threading
from collections.abc import Iterator
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

from telemetry.otlp.receiver import Receiver

from ...conftest import free_port
from .conftest import WEB, Doctor, codes, first


def exporter(doctor: Doctor, endpoint: str, **env: str) -> list[str]:
    """What is said of *endpoint* where no worker is needed."""
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_EXPORTER_OTLP_TIMEOUT": "1", **env}
    return codes(doctor(*WEB, **env))


def test_a_name_that_does_not_resolve(doctor: Doctor) -> None:
    assert exporter(doctor, "http://collector.invalid:4317") == ["exporter-dns"]


def test_nothing_listens(doctor: Doctor) -> None:
    assert exporter(doctor, f"http://127.0.0.1:{free_port()}") == ["exporter-refused"]


def test_an_address_that_says_nothing(doctor: Doctor) -> None:
    """A listener whose queue is full: the kernel drops what else wants to connect."""
    with socket.socket() as full, ExitStack() as waiting:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(2):
            one = waiting.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        endpoint = f"http://127.0.0.1:{full.getsockname()[1]}"
        assert exporter(doctor, endpoint) == ["exporter-unreachable"]


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


def test_a_collector_that_fails(doctor: Doctor) -> None:
    class Failing(TraceServiceServicer):
        def Export(self, request, context):
            context.abort(grpc.StatusCode.INTERNAL, "no room")

    with collector(Failing()) as endpoint:
        assert exporter(doctor, endpoint) == ["exporter-failed"]


def test_a_collector_that_does_not_come_to_an_answer(doctor: Doctor) -> None:
    asked_all = threading.Event()

    class Slow(TraceServiceServicer):
        def Export(self, request, context):
            asked_all.wait()

    with collector(Slow()) as endpoint:
        said = first(doctor(*WEB, OTEL_EXPORTER_OTLP_ENDPOINT=endpoint))
        asked_all.set()
    assert said["problem"].endswith("did not take an export in 5 s")


def test_an_address_of_no_use(doctor: Doctor) -> None:
    assert exporter(doctor, "ftp://127.0.0.1:4317") == ["exporter-endpoint-unusable"]


def test_the_variable_that_decides_is_the_one_that_is_named(doctor: Doctor) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    assert (
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
        in first(doctor(*WEB, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=nobody))["remedy"]
    )


def test_a_proxy_that_is_not_there(doctor: Doctor, receiver: Receiver) -> None:
    """gRPC goes through the proxy of the environment, to this machine too."""
    away = {"http_proxy": f"http://127.0.0.1:{free_port()}"}
    assert exporter(doctor, receiver.endpoint, **away) == ["exporter-proxy"]
    assert exporter(doctor, receiver.endpoint, **away, no_proxy="127.0.0.1") == []


@pytest.fixture
def http_port() -> Iterator[int]:
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_the_port_for_http(doctor: Doctor, http_port: int) -> None:
    assert exporter(doctor, f"http://127.0.0.1:{http_port}") == ["exporter-wrong-protocol"]


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


def test_tls(doctor: Doctor, secure: Receiver, receiver: Receiver, tmp_path: Path) -> None:
    trusted = {"OTEL_EXPORTER_OTLP_CERTIFICATE": str(tmp_path / "ca.pem")}
    plain = secure.endpoint.replace("https", "http")
    assert exporter(doctor, secure.endpoint, **trusted) == []
    assert exporter(doctor, secure.endpoint) == ["exporter-tls-untrusted"]
    assert exporter(doctor, plain) == ["exporter-plain-to-tls"]
    to_plain = receiver.endpoint.replace("http", "https")
    assert exporter(doctor, to_plain, **trusted) == ["exporter-tls"]


@pytest.mark.parametrize("holds", [None, "no certificate"])
def test_an_authority_that_is_not_there(
    doctor: Doctor, secure: Receiver, tmp_path: Path, holds: str | None
) -> None:
    file = tmp_path / "authority.pem"
    if holds:
        file.write_text(holds)
    named = {"OTEL_EXPORTER_OTLP_CERTIFICATE": str(file)}
    assert exporter(doctor, secure.endpoint, **named) == ["exporter-certificate"]


def test_a_client_certificate_that_is_wanted(
    doctor: Doctor, authority: trustme.CA, tmp_path: Path
) -> None:
    issued, ours = authority.issue_cert("127.0.0.1"), authority.issue_cert("client.test")
    pair = issued.private_key_pem.bytes(), issued.cert_chain_pems[0].bytes()
    credentials = grpc.ssl_server_credentials([pair], authority.cert_pem.bytes(), True)
    certificate, key = tmp_path / "client.pem", tmp_path / "client.key"
    ours.cert_chain_pems[0].write_to_path(str(certificate))
    ours.private_key_pem.write_to_path(str(key))
    env = {"OTEL_EXPORTER_OTLP_CERTIFICATE": str(tmp_path / "ca.pem")}
    with Receiver(credentials=credentials) as receiver:
        assert exporter(doctor, receiver.endpoint, **env) == ["exporter-client-certificate"]
        env["OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE"] = str(certificate)
        env["OTEL_EXPORTER_OTLP_CLIENT_KEY"] = str(key)
        assert exporter(doctor, receiver.endpoint, **env) == []
        env["OTEL_EXPORTER_OTLP_CLIENT_KEY"] = str(tmp_path / "ca.pem")
        assert exporter(doctor, receiver.endpoint, **env) == ["exporter-certificate"]


@pytest.mark.parametrize("offered", [[], ["http/1.1"]])
def test_the_port_for_http_with_tls(
    doctor: Doctor, authority: trustme.CA, tmp_path: Path, offered: list[str]
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
        assert exporter(doctor, endpoint, **trusted) == ["exporter-wrong-protocol"]
        server.shutdown()
        thread.join()


class Guarded(grpc.ServerInterceptor):
    """Takes exports with a token only."""

    def intercept_service(self, continuation, details):
        if ("token", "right") in details.invocation_metadata:
            return continuation(details)
        return grpc.unary_unary_rpc_method_handler(
            lambda request, context: context.abort(grpc.StatusCode.UNAUTHENTICATED, "who?")
        )


def test_grpc_that_refuses(doctor: Doctor) -> None:
    with ThreadPoolExecutor(1) as pool:
        server = grpc.server(pool, interceptors=[Guarded()])
        endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        assert exporter(doctor, endpoint) == ["exporter-unauthenticated"]
        with_token = {"OTEL_EXPORTER_OTLP_HEADERS": "token=right"}
        assert exporter(doctor, endpoint, **with_token) == ["exporter-no-otlp"]
        server.stop(None).wait()
