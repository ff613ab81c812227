"""Whether the collector can be reached, step by step: name, connection, TLS, HTTP/2, OTLP."""

import os
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub

from ..config.exporter import LS_ACCESS_TOKEN, Otlp, is_grpc_target, otlp, variable_of
from ..export.channel import open_channel
from .finding import Finding

__all__ = ["check_exporter"]

#: Seconds that each step may take.
TIMEOUT = 5.0

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"


class _Broken(Exception):
    """A step failed: code, problem, remedy."""


def check_exporter() -> Finding | None:
    """Go the way of an export, with one that holds no spans."""
    target = otlp()
    if target is None:
        return Finding(
            "exporter-endpoint-unusable", "export",
            f"{_endpoint()} is no address for OTLP over gRPC",
            f"set {_endpoint()} to http://host:4317, or https:// for TLS",
        )  # fmt: skip
    # What a resolver of gRPC's makes of its target, only gRPC can tell.
    is_address = not is_grpc_target(target.endpoint)
    proxy = _proxy(target.endpoint) if is_address else ""
    try:
        if is_address and not proxy:
            _reach(target)
        _export(target, proxy)
    except _Broken as exc:
        code, problem, remedy = exc.args
        return Finding(code, "export", problem, remedy)
    return None


def _endpoint() -> str:
    return variable_of("ENDPOINT")


def _proxy(endpoint: str) -> str:
    """Return the variable that sends gRPC to *endpoint* through a proxy; empty if none does."""
    host, _ = _address(endpoint)
    straight = _first("no_grpc_proxy", "no_proxy")
    if any(host.endswith(each.strip()) for each in os.environ.get(straight, "").split(",") if each):
        return ""
    return _first("grpc_proxy", "https_proxy", "http_proxy")


def _first(*variables: str) -> str:
    return next((variable for variable in variables if os.environ.get(variable)), "")


def _reach(target: Otlp) -> None:
    with _connected(target.endpoint) as connection:
        if target.insecure:
            _greet(connection, target)
        else:
            with _secure(connection, target) as secured:
                _greet(secured, target)


@contextmanager
def _connected(endpoint: str) -> Iterator[socket.socket]:
    host, port = _address(endpoint)
    try:
        socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError:
        raise _Broken(
            "exporter-dns", f"{host} is no name that this machine can resolve",
            f"correct the host in {_endpoint()}, or its DNS",
        ) from None  # fmt: skip
    try:
        connection = socket.create_connection((host, port), TIMEOUT)
    except ConnectionRefusedError:
        raise _Broken(
            "exporter-refused", f"nothing listens on {endpoint}",
            f"start the collector, or correct the port in {_endpoint()}",
        ) from None  # fmt: skip
    except OSError as exc:
        raise _Broken(
            "exporter-unreachable", f"{endpoint} does not answer ({exc})",
            "look for a firewall or a network policy on the way",
        ) from None  # fmt: skip
    with connection:
        yield connection


def _address(endpoint: str) -> tuple[str, int]:
    url = urlsplit(f"//{endpoint}")
    return url.hostname or "", url.port or 443


def _secure(connection: socket.socket, target: Otlp) -> ssl.SSLSocket:
    context = _tls(target)
    host, _ = _address(target.endpoint)
    try:
        return context.wrap_socket(connection, server_hostname=host)
    except ssl.SSLCertVerificationError as exc:
        raise _Broken(
            "exporter-tls-untrusted",
            f"the certificate of {target.endpoint} is not trusted: {exc.verify_message}",
            f"name its authority in {variable_of('CERTIFICATE')}, and its host in the endpoint",
        ) from None
    except OSError as exc:
        if "NO_APPLICATION_PROTOCOL" in str(exc):
            raise _http_1(target.endpoint) from None
        raise _Broken(
            "exporter-tls", f"{target.endpoint} does not speak TLS ({exc})",
            f"use http:// in {_endpoint()} for a collector without TLS",
        ) from None  # fmt: skip


def _tls(target: Otlp) -> ssl.SSLContext:
    """Return a context with the certificates that the settings name, each of use."""
    for field in ("certificate", "client_certificate", "client_key"):
        variable = variable_of(field.upper())
        if os.environ.get(variable, "").strip() and getattr(target, field) is None:
            raise _certificate(variable, "names a file that cannot be read")
    variable = variable_of("CERTIFICATE")
    try:
        authority = target.certificate.decode("ascii", "replace") if target.certificate else None
        context = ssl.create_default_context(cadata=authority)
    except (ssl.SSLError, ValueError):
        raise _certificate(variable, "names a file that holds no certificate") from None
    context.set_alpn_protocols(["h2"])
    if target.client_certificate and target.client_key:
        variable = variable_of("CLIENT_CERTIFICATE")
        key = variable_of("CLIENT_KEY")
        try:
            context.load_cert_chain(os.environ[variable].strip(), os.environ[key].strip())
        except (ssl.SSLError, ValueError):
            raise _certificate(variable, f"and {key} do not belong together") from None
    return context


def _certificate(variable: str, problem: str) -> _Broken:
    return _Broken(
        "exporter-certificate", f"{variable} {problem}", f"correct {variable}: it takes a PEM file"
    )


def _greet(connection: socket.socket, target: Otlp) -> None:
    """Speak HTTP/2 to see who answers: a gRPC server sends its settings first."""
    endpoint, closed = target.endpoint, True
    try:
        connection.sendall(_PREFACE)
        answer = connection.recv(9)
    except TimeoutError:
        answer, closed = b"", False
    except OSError:
        answer = b""
    if answer[3:4] == b"\4":
        return
    # Some servers answer a version that they do not know with the page alone.
    if answer.startswith((b"HTTP/1", b"<")):
        raise _http_1(endpoint)
    if not target.insecure and closed and not answer:
        raise _Broken(
            "exporter-client-certificate",
            f"{endpoint} ends the connection after TLS: it wants a client certificate, or another",
            f"name one that it takes in {variable_of('CLIENT_CERTIFICATE')} "
            f"and {variable_of('CLIENT_KEY')}",
        )
    if answer[:1] == b"\x15" or (closed and not answer and _speaks_tls(endpoint)):  # an alert
        raise _Broken(
            "exporter-plain-to-tls", f"{endpoint} wants TLS and is spoken to without",
            f"use https:// in {_endpoint()}",
        )  # fmt: skip
    raise _Broken(
        "exporter-no-grpc", f"{endpoint} does not answer as gRPC does",
        f"use the collector's port for OTLP over gRPC in {_endpoint()}",
    )  # fmt: skip


def _http_1(endpoint: str) -> _Broken:
    return _Broken(
        "exporter-wrong-protocol", f"{endpoint} speaks HTTP/1, not gRPC",
        f"use the port for OTLP over gRPC in {_endpoint()}: 4317, where 4318 is OTLP over HTTP",
    )  # fmt: skip


def _speaks_tls(endpoint: str) -> bool:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with _connected(endpoint) as connection, context.wrap_socket(connection):
            return True
    except (OSError, _Broken):
        return False


def _export(target: Otlp, proxy: str) -> None:
    with open_channel(target) as connection:
        stub = TraceServiceStub(connection)  # type: ignore[no-untyped-call]
        try:
            stub.Export(ExportTraceServiceRequest(), metadata=target.headers, timeout=TIMEOUT)
        except grpc.RpcError as exc:
            raise _refusal(exc, target, proxy) from None


def _refusal(exc: grpc.RpcError, target: Otlp, proxy: str) -> _Broken:
    status, endpoint = exc.code(), target.endpoint
    late = status == grpc.StatusCode.DEADLINE_EXCEEDED
    if status in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
        return _Broken(
            "exporter-unauthenticated", f"{endpoint} does not take these credentials",
            f"set the token in {variable_of('HEADERS')} or {LS_ACCESS_TOKEN}",
        )  # fmt: skip
    if status == grpc.StatusCode.UNIMPLEMENTED:
        return _Broken(
            "exporter-no-otlp", f"{endpoint} speaks gRPC but takes no traces",
            f"correct the port in {_endpoint()}, or enable the collector's traces pipeline",
        )  # fmt: skip
    if proxy and (late or status == grpc.StatusCode.UNAVAILABLE):
        host, _ = _address(endpoint)
        return _Broken(
            "exporter-proxy", f"{endpoint} is not reached through the proxy that {proxy} names",
            f"name {host} in no_proxy, or correct {proxy}",
        )  # fmt: skip
    said = (
        f"did not take an export in {TIMEOUT:g} s" if late else f"refused an export: {status.name}"
    )
    return _Broken("exporter-failed", f"{endpoint} {said}", "see the collector's own log")
