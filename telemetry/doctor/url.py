"""A real request with a traceparent goes to a server that runs, through its proxies."""

import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

from opentelemetry import trace

from ..propagation.doctor import DOCTOR_HEADER
from .apart import apart
from .finding import Finding
from .origin import headers_of, origin
from .tls import speaks_tls

__all__ = ["check_url"]


def check_url(url: str, timeout: float, counted: bool) -> Iterator[Finding]:
    """Send a GET to *url*, where a server runs, perhaps behind proxies, and read its answer."""
    sent = origin(0, counted)
    headers = {**headers_of(sent), DOCTOR_HEADER: "1"}
    try:
        status, answer = _get(url, headers, timeout)
    except (OSError, HTTPException, ValueError) as exc:
        yield _unreachable(url, exc, timeout)
        return
    if answer is None:
        yield Finding(
            "url-no-span", "web",
            f"{url} answered {status} and does not say that a SERVER span was made",
            "call instrument_flask(app) in the server, and let proxies pass "
            f"traceparent and {DOCTOR_HEADER}; or give a URL that reaches the Flask app",
        )  # fmt: skip
        return
    facts = dict(part.strip().partition("=")[::2] for part in answer.split(";"))
    trace_id = trace.format_trace_id(sent.trace_id)
    if trace_id not in facts.get("span", ""):
        if trace_id in facts.get("received", ""):
            yield apart(f"GET {url}", True, False)
        else:
            yield Finding(
                "request-apart", "web",
                f"GET {url} with a traceparent started another trace: the header "
                + ("was replaced" if facts.get("received") else "did not arrive"),
                "let the proxy or middleware in front of the app pass traceparent and tracestate",
            )  # fmt: skip
    if facts.get("exports") == "failing":
        yield Finding(
            "url-export-failed", "export", f"the spans of the server at {url} are not delivered",
            "run the doctor with the host and environment of that server to see why",
        )  # fmt: skip


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def _get(url: str, headers: Mapping[str, str], timeout: float) -> tuple[int, str | None]:
    """Return status and the doctor's header of the answer to a GET."""
    opener = urllib.request.build_opener(_NoRedirect)
    message = urllib.request.Request(url, headers=dict(headers))
    try:
        with opener.open(message, timeout=timeout) as response:
            return response.status, response.headers.get(DOCTOR_HEADER)
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code, exc.headers.get(DOCTOR_HEADER)


def _unreachable(url: str, exc: Exception, timeout: float) -> Finding:
    parts = urlsplit(url)
    why = str(getattr(exc, "reason", exc)) or type(exc).__name__
    if parts.scheme == "https" and "SSL" in why and "CERTIFICATE" not in why:
        return Finding(
            "url-tls", "web", f"{url} does not speak TLS", "use http://, or the port for HTTPS"
        )
    if parts.scheme == "http" and parts.hostname and "refused" not in why:
        port = parts.port or 80
        if speaks_tls(parts.hostname, port, timeout):
            return Finding("url-tls", "web", f"{url} wants TLS", "use https://")
    return Finding(
        "url-unreachable", "web", f"{url} does not answer ({why})",
        "start the server, or correct --url",
    )  # fmt: skip
