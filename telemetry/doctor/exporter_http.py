"""An export without spans over HTTP."""

import re
from dataclasses import replace

from ..config.exporter import LS_ACCESS_TOKEN, Otlp, shown, variable_of
from ..export.sender.http_transport import HttpTransport, proxy_for
from ..export.sender.transport import ExportResult, Outcome
from . import connection
from .connection import PREFACE, Broken, WrongProtocol, connected, is_http_2, server_of
from .tls import speaks_tls


def check_http(target: Otlp) -> None:
    """Connect to *target*, check its protocol, and export. Raise Broken at the step that fails."""
    proxy = proxy_for(target.endpoint)
    if not proxy:
        try:
            with connected(target, "http/1.1"):
                pass
        except WrongProtocol:
            raise _grpc(target) from None
    transport = HttpTransport(replace(target, timeout=min(target.timeout, connection.TIMEOUT)))
    try:
        result = transport.send("TRACES", b"")
    finally:
        transport.close()
    if result.outcome is not Outcome.DELIVERED:
        raise _refusal(result, target, proxy)


def _refusal(result: ExportResult, target: Otlp, proxy: str) -> Broken:
    endpoint, variable, problem = shown(target.endpoint), variable_of("ENDPOINT"), result.error
    if re.search(r" answers (401|403)\b", problem):
        return Broken(
            "exporter-unauthenticated", f"{endpoint} refuses these credentials",
            f"set the token in {variable_of('HEADERS')} or {LS_ACCESS_TOKEN}",
        )  # fmt: skip
    if result.missing or "answers with a page" in problem:
        return Broken(
            "exporter-no-otlp", problem,
            f"correct {variable}: the path is usually /v1/traces. It is appended to the general "
            "variable, not to the one of traces",
        )  # fmt: skip
    if proxy:
        host, _ = server_of(target)
        return Broken(
            "exporter-proxy",
            problem,
            f"name {host} in no_proxy, or correct http_proxy, https_proxy",
        )
    if " answers " not in problem and _speaks_http_2(target):
        return _grpc(target)
    if target.insecure and speaks_tls(*server_of(target), connection.TIMEOUT):
        return Broken(
            "exporter-plain-to-tls", f"the port of {endpoint} requires TLS",
            f"use https:// in {variable}",
        )  # fmt: skip
    if "CERTIFICATE_REQUIRED" in problem.upper().replace(" ", "_"):
        return Broken(
            "exporter-client-certificate", f"{endpoint} requires a client certificate",
            f"name one that it accepts in {variable_of('CLIENT_CERTIFICATE')} "
            f"and {variable_of('CLIENT_KEY')}",
        )  # fmt: skip
    return Broken("exporter-failed", problem, "see the collector's log")


def _speaks_http_2(target: Otlp) -> bool:
    """Return whether the server supports HTTP/2. Not every one announces it by ALPN."""
    try:
        with connected(target, "h2") as opened:
            opened.sendall(PREFACE)
            return is_http_2(opened.recv(9))
    except (OSError, Broken, WrongProtocol):
        return False


def _grpc(target: Otlp) -> Broken:
    return Broken(
        "exporter-wrong-protocol", f"{shown(target.endpoint)} is a gRPC server, not HTTP/1",
        f"use the collector's port for HTTP in {variable_of('ENDPOINT')}, usually 4318; "
        f"or set {variable_of('PROTOCOL')} to grpc",
    )  # fmt: skip
