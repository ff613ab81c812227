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

__all__ = ["check_grpc"]


def check_grpc(target: Otlp) -> None:
    """Connect to *target*, see who answers, and export; raise Broken at the step that fails."""
    # What a resolver of gRPC's makes of its target, only gRPC can tell.
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
    """Speak HTTP/2 to see who answers: a gRPC server sends its settings first."""
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
    # Some servers answer a version that they do not know with the page alone.
    if answer.startswith((b"HTTP/1", b"<")):
        raise _http_1(endpoint)
    if not target.insecure and closed and not answer:
        raise Broken(
            "exporter-client-certificate",
            f"{endpoint} ends the connection after TLS: it wants a client certificate, or another",
            f"name one that it takes in {variable_of('CLIENT_CERTIFICATE')} "
            f"and {variable_of('CLIENT_KEY')}",
        )
    is_alert = answer[:1] == b"\x15"
    if is_alert or (closed and not answer and speaks_tls(*server_of(target), connection.TIMEOUT)):
        raise Broken(
            "exporter-plain-to-tls", f"{endpoint} wants TLS and is called without",
            f"use https:// in {variable_of('ENDPOINT')}",
        )  # fmt: skip
    raise Broken(
        "exporter-no-grpc", f"{endpoint} does not answer as gRPC does",
        f"use the collector's port for OTLP over gRPC in {variable_of('ENDPOINT')}",
    )  # fmt: skip


def _http_1(endpoint: str) -> Broken:
    return Broken(
        "exporter-wrong-protocol", f"{endpoint} speaks HTTP/1, not gRPC",
        f"use the collector's port for gRPC in {variable_of('ENDPOINT')}, 4317 as a rule; "
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
            "exporter-no-otlp", f"{endpoint} speaks gRPC but accepts no traces",
            f"correct the port in {variable_of('ENDPOINT')}, or enable the collector's traces "
            "pipeline",
        )  # fmt: skip
    if proxy and (late or status == grpc.StatusCode.UNAVAILABLE):
        host, _ = server_of(target)
        return Broken(
            "exporter-proxy", f"{endpoint} is not reached through the proxy that {proxy} names",
            f"name {host} in no_proxy, or correct {proxy}",
        )  # fmt: skip
    problem = (
        f"did not answer an export in {connection.TIMEOUT:g} s" if late
        else f"refused an export: {status.name}"
    )  # fmt: skip
    return Broken("exporter-failed", f"{endpoint} {problem}", "see the collector's own log")
