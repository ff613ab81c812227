"""Whether the collector can be reached, step by step: name, connection, TLS, HTTP/2, OTLP."""

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub

from .. import settings
from ..channel import open_channel
from .finding import Finding

__all__ = ["check_exporter"]

#: Seconds that each step may take.
TIMEOUT = 5.0

_ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"


class _Broken(Exception):
    """A step failed: code, problem, remedy."""


def check_exporter() -> Finding | None:
    """Go the way of an export, with one that holds no spans."""
    target = settings.otlp()
    if target is None:
        return Finding(
            "exporter-endpoint-unusable", "export", f"{_ENDPOINT} is no address for OTLP over gRPC",
            f"set {_ENDPOINT} to http://host:4317, or https:// for TLS",
        )  # fmt: skip
    try:
        with _connected(target.endpoint) as connection:
            if target.insecure:
                _greet(connection, target.endpoint)
            else:
                _secure(connection, target)
        _export(target)
    except _Broken as exc:
        code, problem, remedy = exc.args
        return Finding(code, "export", problem, remedy)
    return None


@contextmanager
def _connected(endpoint: str) -> Iterator[socket.socket]:
    host, port = _address(endpoint)
    try:
        socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError:
        raise _Broken(
            "exporter-dns", f"{host} is no name that this machine can resolve",
            f"correct the host in {_ENDPOINT}, or its DNS",
        ) from None  # fmt: skip
    try:
        connection = socket.create_connection((host, port), TIMEOUT)
    except ConnectionRefusedError:
        raise _Broken(
            "exporter-refused", f"nothing listens on {endpoint}",
            f"start the collector, or correct the port in {_ENDPOINT}",
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


def _secure(connection: socket.socket, target: settings.Otlp) -> None:
    authority = target.certificate.decode("ascii", "replace") if target.certificate else None
    try:
        context = ssl.create_default_context(cadata=authority)
        context.set_alpn_protocols(["h2"])
        host, _ = _address(target.endpoint)
        with context.wrap_socket(connection, server_hostname=host):
            pass
    except ssl.SSLCertVerificationError as exc:
        raise _Broken(
            "exporter-tls-untrusted",
            f"the certificate of {target.endpoint} is not trusted: {exc.verify_message}",
            "name its authority in OTEL_EXPORTER_OTLP_CERTIFICATE, and its host in the endpoint",
        ) from None
    except OSError as exc:
        raise _Broken(
            "exporter-tls", f"{target.endpoint} does not speak TLS ({exc})",
            f"use http:// in {_ENDPOINT} for a collector without TLS",
        ) from None  # fmt: skip


def _greet(connection: socket.socket, endpoint: str) -> None:
    """Speak HTTP/2 to see who answers: a gRPC server sends its settings first."""
    try:
        connection.sendall(_PREFACE)
        answer = connection.recv(9)
    except OSError:
        answer = b""
    if answer[3:4] == b"\4":
        return
    # Some servers answer a version that they do not know with the page alone.
    if answer.startswith((b"HTTP/1", b"<")):
        raise _Broken(
            "exporter-wrong-protocol", f"{endpoint} speaks HTTP/1, not gRPC",
            f"use the port for OTLP over gRPC in {_ENDPOINT}: 4317, where 4318 is OTLP over HTTP",
        )  # fmt: skip
    if answer[:1] == b"\x15":  # a TLS alert
        raise _Broken(
            "exporter-plain-to-tls", f"{endpoint} wants TLS and is spoken to without",
            f"use https:// in {_ENDPOINT}",
        )  # fmt: skip
    raise _Broken(
        "exporter-no-grpc", f"{endpoint} does not answer as gRPC does",
        f"use the collector's port for OTLP over gRPC in {_ENDPOINT}, with https:// if it has TLS",
    )  # fmt: skip


def _export(target: settings.Otlp) -> None:
    with open_channel(target) as connection:
        stub = TraceServiceStub(connection)  # type: ignore[no-untyped-call]
        try:
            stub.Export(ExportTraceServiceRequest(), metadata=target.headers, timeout=TIMEOUT)
        except grpc.RpcError as exc:
            raise _refusal(exc, target.endpoint) from None


def _refusal(exc: grpc.RpcError, endpoint: str) -> _Broken:
    status = exc.code()
    if status in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
        return _Broken(
            "exporter-unauthenticated", f"{endpoint} does not take these credentials",
            "set the token in OTEL_EXPORTER_OTLP_HEADERS or LS_ACCESS_TOKEN",
        )  # fmt: skip
    if status == grpc.StatusCode.UNIMPLEMENTED:
        return _Broken(
            "exporter-no-otlp", f"{endpoint} speaks gRPC but takes no traces",
            f"correct the port in {_ENDPOINT}, or enable the collector's traces pipeline",
        )  # fmt: skip
    return _Broken(
        "exporter-failed", f"{endpoint} refused an export: {status.name}",
        "see the collector's own log",
    )  # fmt: skip
