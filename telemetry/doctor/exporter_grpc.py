"""An export without spans over gRPC."""

import os
import socket

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub

from ..config.exporter import LS_ACCESS_TOKEN, Otlp, is_grpc_target, variable_of
from ..export.sender.grpc_transport import open_channel
from . import connection
from .connection import PREFACE, Broken, WrongProtocol, connected, is_http_2, server_of
from .tls import speaks_tls


def check_grpc(target: Otlp) -> None:
    """Connect to *target*, check its protocol, and export. Raise Broken at the step that fails."""
    # Only gRPC can resolve its own targets, such as dns: and unix:.
    is_address = not is_grpc_target(target.endpoint)
    proxy = _proxy(target) if is_address else ""
    if is_address and not proxy:
        try:
            with connected(target, "h2") as opened:
                _greet(opened, target)
        except WrongProtocol:
            raise _http_1(target.endpoint) from None
    _export(target, proxy)


def _proxy(target: Otlp) -> str:
    """Return the variable that sends gRPC to *target* through a proxy; empty if none does."""
    host, _ = server_of(target)
    straight = _first("no_grpc_proxy", "no_proxy")
    if any(host.endswith(each.strip()) for each in os.environ.get(straight, "").split(",") if each):
        return ""
    return _first("grpc_proxy", "https_proxy", "http_proxy")


def _first(*variables: str) -> str:
    return next((variable for variable in variables if os.environ.get(variable)), "")


def _greet(opened: socket.socket, target: Otlp) -> None:
    """Start HTTP/2 to check the protocol: a gRPC server sends its settings first."""
    endpoint, closed = target.endpoint, True
    try:
        opened.sendall(PREFACE)
        answer = opened.recv(9)
    except TimeoutError:
        answer, closed = b"", False
    except OSError:
        answer = b""
    if is_http_2(answer):
        return
    # To an unknown version, some servers answer with the page alone.
    if answer.startswith((b"HTTP/1", b"<")):
        raise _http_1(endpoint)
    if not target.insecure and closed and not answer:
        raise Broken(
            "exporter-client-certificate",
            f"{endpoint} closes the connection after the TLS handshake: it requires a client "
            "certificate",
            f"name one that it accepts in {variable_of('CLIENT_CERTIFICATE')} "
            f"and {variable_of('CLIENT_KEY')}",
        )
    is_alert = answer[:1] == b"\x15"
    if is_alert or (closed and not answer and speaks_tls(*server_of(target), connection.TIMEOUT)):
        raise Broken(
            "exporter-plain-to-tls", f"the port of {endpoint} requires TLS",
            f"use https:// in {variable_of('ENDPOINT')}",
        )  # fmt: skip
    raise Broken(
        "exporter-no-grpc",
        f"{endpoint} is not a gRPC server" if closed or answer
        else f"{endpoint} accepts a connection and does not answer as a gRPC server",
        f"use the collector's port for OTLP over gRPC in {variable_of('ENDPOINT')}",
    )  # fmt: skip


def _http_1(endpoint: str) -> Broken:
    return Broken(
        "exporter-wrong-protocol", f"{endpoint} is an HTTP/1 server, not gRPC",
        f"use the collector's port for gRPC in {variable_of('ENDPOINT')}, usually 4317; "
        f"or set {variable_of('PROTOCOL')} to http/protobuf",
    )  # fmt: skip


def _export(target: Otlp, proxy: str) -> None:
    with open_channel(target) as channel:
        stub = TraceServiceStub(channel)  # type: ignore[no-untyped-call]
        request = ExportTraceServiceRequest()
        try:
            stub.Export(request, metadata=target.headers, timeout=connection.TIMEOUT)
        except grpc.RpcError as exc:
            raise _refusal(exc, target, proxy) from None


def _refusal(exc: grpc.RpcError, target: Otlp, proxy: str) -> Broken:
    status, endpoint = exc.code(), target.endpoint
    late = status == grpc.StatusCode.DEADLINE_EXCEEDED
    if status in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
        return Broken(
            "exporter-unauthenticated", f"{endpoint} refuses these credentials",
            f"set the token in {variable_of('HEADERS')} or {LS_ACCESS_TOKEN}",
        )  # fmt: skip
    if status == grpc.StatusCode.UNIMPLEMENTED:
        return Broken(
            "exporter-no-otlp", f"{endpoint} is a gRPC server that accepts no traces",
            f"correct the port in {variable_of('ENDPOINT')}, or enable the collector's traces "
            "pipeline",
        )  # fmt: skip
    if proxy and (late or status == grpc.StatusCode.UNAVAILABLE):
        host, _ = server_of(target)
        return Broken(
            "exporter-proxy", f"the proxy that {proxy} names does not reach {endpoint}",
            f"name {host} in no_proxy, or correct {proxy}",
        )  # fmt: skip
    if status == grpc.StatusCode.UNAVAILABLE and is_grpc_target(endpoint):
        return Broken(
            "exporter-unreachable", f"{endpoint} does not answer ({exc.details()})",
            f"start the collector, or correct {variable_of('ENDPOINT')}",
        )  # fmt: skip
    problem = (
        f"did not answer an export in {connection.TIMEOUT:g} s" if late
        else f"refused an export: {status.name}"
    )  # fmt: skip
    return Broken("exporter-failed", f"{endpoint} {problem}", "see the collector's log")
