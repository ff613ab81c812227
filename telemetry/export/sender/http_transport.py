"""Requests over HTTP/1.1, in protobuf.

urllib3 sends them: it supports proxies and client certificates, has no thread and no lock that a
fork could break, and is a dependency of requests. Its pool is closed before a fork, like a gRPC
channel. It does not retry, since the deliveries do, and does not follow redirects, since they turn
a POST into a GET.
"""

import gzip
import ssl
import tempfile
import time
from http.client import responses
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import (  # type: ignore[attr-defined]  # requests uses them too
    getproxies_environment,
    proxy_bypass_environment,
)

import urllib3
from google.protobuf.message import DecodeError
from google.rpc.status_pb2 import Status as RpcStatus
from urllib3 import exceptions

from ...config.exporter import Otlp, Signal, shown
from ...tracing.scope import hop_scope
from .transport import ExportResult, Outcome, Transport, delivered, one_line

PROTOBUF = "application/x-protobuf"

#: The request is the reason: the collector would refuse it again.
_REFUSED = frozenset({400, 413, 422})

#: The specification says to retry.
_PASSING = frozenset({408, 425, 429, 502, 503, 504})

#: The collector has no service for the signal, or has it at another path.
_MISSING = frozenset({404, 405, 501})

#: The sender reads no more bytes of an answer.
_MOST = 64 * 1024


class HttpTransport(Transport):
    """A connection to *target*, whose endpoint is the URL of one signal."""

    def __init__(self, target: Otlp) -> None:
        super().__init__(target)
        self._pool: Any = None
        self._headers = {
            "user-agent": f"queuehop/{hop_scope().version}",
            **dict(target.headers),  # in lower case
            "content-type": PROTOBUF,
        }
        if target.gzip:
            self._headers["content-encoding"] = "gzip"

    def send(self, signal: Signal, request: bytes) -> ExportResult:
        if self._pool is None:
            self._pool = _pool(self.target)
        until = time.monotonic() + self.target.timeout
        try:
            response = self._pool.urlopen(
                "POST",
                self.target.endpoint,
                body=gzip.compress(request) if self.target.gzip else request,
                headers=self._headers,
                timeout=urllib3.Timeout(total=self.target.timeout),
                retries=False,
                redirect=False,
                preload_content=False,
            )
            try:
                body = _read(response, until)
            finally:
                response.release_conn()
        except exceptions.HTTPError as exc:
            error = f"{shown(self.target.endpoint)} {_problem(exc, self.target)}"
            return ExportResult(Outcome.RETRY, error, slow=isinstance(exc, exceptions.SSLError))
        return _result(response, body, shown(self.target.endpoint))

    def close(self) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.clear()


def _pool(target: Otlp) -> Any:
    context = None if target.insecure else tls_context(target)
    proxy = proxy_for(target.endpoint)
    if not proxy:
        return urllib3.PoolManager(maxsize=1, ssl_context=context)
    url = urlsplit(proxy)
    headers = None
    if url.username is not None:
        user, password = unquote(url.username), unquote(url.password or "")
        headers = urllib3.make_headers(proxy_basic_auth=f"{user}:{password}")
    address = url._replace(netloc=url.netloc.rpartition("@")[2]).geturl()
    return urllib3.ProxyManager(address, maxsize=1, ssl_context=context, proxy_headers=headers)


def proxy_for(endpoint: str) -> str:
    """Return the URL of the proxy to *endpoint*; empty if there is none.

    ``http_proxy`` or ``https_proxy`` sets it, unless ``no_proxy`` names the host.
    """
    url = urlsplit(endpoint)
    proxy = getproxies_environment().get(url.scheme, "")
    if not proxy or proxy_bypass_environment(url.netloc.rpartition("@")[2]):
        return ""
    return proxy if "://" in proxy else f"http://{proxy}"


def tls_context(target: Otlp) -> ssl.SSLContext:
    """Return the context for *target*. Raises ValueError if its certificates are unusable."""
    try:
        authority = target.certificate.decode("ascii", "replace") if target.certificate else None
        context = ssl.create_default_context(cadata=authority)
        if target.client_certificate and target.client_key:
            # Python reads these only from files, and the settings may name pipes.
            with tempfile.NamedTemporaryFile() as file:
                file.write(target.client_certificate + b"\n" + target.client_key)
                file.flush()
                context.load_cert_chain(file.name)
    except (ssl.SSLError, ValueError) as exc:
        raise ValueError(f"the certificates for OTLP cannot be used: {exc}") from None
    return context


def _read(response: Any, until: float) -> bytes:
    body = b""
    while len(body) < _MOST:
        if time.monotonic() > until:
            raise exceptions.ReadTimeoutError(response, "", "the answer does not end")
        piece = response.read1(_MOST)
        if not piece:
            return body
        body += piece
    response.close()  # without reading the rest
    return body


def _problem(exc: exceptions.HTTPError, target: Otlp) -> str:
    inner = exc.original_error if isinstance(exc, exceptions.ProxyError) else exc
    reason = one_line(str(inner).rpartition(": ")[2] or type(exc).__name__)
    if isinstance(exc, exceptions.NameResolutionError):
        return "has a name that cannot be resolved"
    if isinstance(exc, exceptions.ProxyError):
        return f"is not reached through the proxy: {reason}"
    if isinstance(exc, exceptions.NewConnectionError):  # which is a TimeoutError too
        return f"cannot be connected to: {reason}"
    if isinstance(exc, exceptions.TimeoutError):
        return f"does not answer within {target.timeout:g} s"
    if isinstance(exc, exceptions.SSLError):
        return f"fails at TLS: {reason}"
    cause = exc.args[-1] if exc.args else exc
    if isinstance(cause, ConnectionError):  # a reset, or an end before the answer
        return "closes the connection without an answer"
    return f"does not answer as HTTP/1.1 does: {one_line(str(cause))}"


def _result(response: Any, body: bytes, where: str) -> ExportResult:
    status: int = response.status
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if 200 <= status < 300:
        if kind == "text/html":  # a proxy's login page
            return ExportResult(
                Outcome.RETRY, f"{where} answers with a page, not as OTLP does", slow=True
            )
        return delivered(body if kind in (PROTOBUF, "") else b"")
    text = f"{where} answers {status} {responses.get(status, '')}".rstrip()
    if reason := _reason(body, kind):
        text = f"{text}: {reason}"
    if status in _REFUSED:
        return ExportResult(Outcome.REFUSED, text)
    passing = status in _PASSING
    return ExportResult(
        Outcome.RETRY,
        text,
        wait=_retry_after(response) if passing else None,
        slow=status < 500 and not passing,
        doubtful=status >= 500 and not passing and status not in _MISSING,
        missing=status in _MISSING,
    )


def _reason(body: bytes, kind: str) -> str:
    """Return the reason in the *body* of an error: a ``Status`` as specified, or text."""
    if kind == PROTOBUF:
        try:
            return one_line(RpcStatus.FromString(body).message)
        except DecodeError:
            return ""
    return "" if kind == "text/html" else one_line(body.decode("utf-8", "replace").strip())


def _retry_after(response: Any) -> float | None:
    """Return the seconds of a ``Retry-After``: a number, or a date."""
    try:
        return urllib3.Retry().get_retry_after(response)
    except (exceptions.InvalidHeader, ValueError, OverflowError):
        return None
