"""Connect to the collector as an exporter does: resolve its name, connect, negotiate TLS."""

import os
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from ..config.exporter import Otlp, shown, variable_of
from .finding import Finding

#: Seconds that each step may take.
TIMEOUT = 5.0

#: The first bytes of a client of HTTP/2. A server answers with its settings.
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"


class Broken(Exception):
    """A step failed. Has the finding."""

    def __init__(self, code: str, problem: str, remedy: str) -> None:
        super().__init__(code)
        self.finding = Finding(code, "export", problem, remedy)


class WrongProtocol(Exception):
    """The server refuses the protocol that the client offered within TLS."""


@contextmanager
def connected(target: Otlp, protocol: str) -> Iterator[socket.socket]:
    """Connect to *target*, over TLS if its endpoint is ``https``.

    *protocol* is ``h2`` or ``http/1.1``, for ALPN.
    """
    host, port = server_of(target)
    with _reached(target, host, port) as connection:
        if target.insecure:
            yield connection
            return
        with _secured(connection, target, host, protocol) as secured:
            yield secured


def server_of(target: Otlp) -> tuple[str, int]:
    """Return host and port of *target*, which must be an HTTP URL."""
    url = urlsplit(f"//{target.address}")
    return url.hostname or "", url.port or 443


def is_http_2(answer: bytes) -> bool:
    """Return whether *answer* begins with the settings of HTTP/2."""
    return answer[3:4] == b"\4"


def _reached(target: Otlp, host: str, port: int) -> socket.socket:
    endpoint, variable = shown(target.endpoint), variable_of("ENDPOINT")
    try:
        socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError:
        raise Broken(
            "exporter-dns", f"this machine cannot resolve the host name {host}",
            f"correct the host in {variable}, or add it to the DNS",
        ) from None  # fmt: skip
    try:
        return socket.create_connection((host, port), TIMEOUT)
    except ConnectionRefusedError:
        raise Broken(
            "exporter-refused", f"nothing listens on {endpoint}",
            f"start the collector, or correct the port in {variable}",
        ) from None  # fmt: skip
    except OSError as exc:
        raise Broken(
            "exporter-unreachable", f"{endpoint} does not answer ({exc})",
            "check the firewalls and network policies between this machine and the collector",
        ) from None  # fmt: skip


def _secured(connection: socket.socket, target: Otlp, host: str, protocol: str) -> ssl.SSLSocket:
    endpoint = shown(target.endpoint)
    context = _context(target)
    context.set_alpn_protocols([protocol])
    try:
        return context.wrap_socket(connection, server_hostname=host)
    except ssl.SSLCertVerificationError as exc:
        raise Broken(
            "exporter-tls-untrusted",
            f"the certificate of {endpoint} is not trusted: {exc.verify_message}",
            f"name its authority in {variable_of('CERTIFICATE')}, and its host in the endpoint",
        ) from None
    except OSError as exc:
        if "NO_APPLICATION_PROTOCOL" in str(exc):
            raise WrongProtocol from None
        raise Broken(
            "exporter-tls", f"{endpoint} does not support TLS ({exc})",
            f"use http:// in {variable_of('ENDPOINT')}, or the collector's port for TLS",
        ) from None  # fmt: skip


def _context(target: Otlp) -> ssl.SSLContext:
    """Return a context with the certificates that the settings name. Check each of them."""
    for field in ("certificate", "client_certificate", "client_key"):
        variable = variable_of(field.upper())
        if os.environ.get(variable, "").strip() and getattr(target, field) is None:
            raise _certificate(variable, "names a file that cannot be read")
    variable = variable_of("CERTIFICATE")
    try:
        authority = target.certificate.decode("ascii", "replace") if target.certificate else None
        context = ssl.create_default_context(cadata=authority)
    except (ssl.SSLError, ValueError):
        raise _certificate(variable, "names a file without a certificate") from None
    if target.client_certificate and target.client_key:
        variable = variable_of("CLIENT_CERTIFICATE")
        key = variable_of("CLIENT_KEY")
        try:
            context.load_cert_chain(os.environ[variable].strip(), os.environ[key].strip())
        except (ssl.SSLError, ValueError):
            raise _certificate(variable, f"and {key} do not belong together") from None
    return context


def _certificate(variable: str, problem: str) -> Broken:
    return Broken("exporter-certificate", f"{variable} {problem}", f"set {variable} to a PEM file")
