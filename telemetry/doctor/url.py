"""Send a request with a traceparent to a running server, through the proxies in front of it."""

import re
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator, Mapping
from http.client import HTTPException
from typing import Any
from urllib.parse import unquote, urlsplit

from opentelemetry import trace

from ..propagation.doctor import DOCTOR_HEADER
from .answer import apart, not_served
from .finding import Finding
from .origin import headers_of, origin
from .tls import speaks_tls


def check_url(url: str, timeout: float, counted: bool) -> Iterator[Finding]:
    """Send a GET to *url*, and read the answer of the Flask app about its span."""
    sent = origin(0, counted)
    headers = {**headers_of(sent), DOCTOR_HEADER: "1"}
    try:
        status, answer = _get(url, headers, timeout)
    except (OSError, HTTPException, ValueError) as exc:
        yield _unreachable(url, exc, timeout)
        return
    if answer is not None:
        yield from _check_answer(url, answer, trace.format_trace_id(sent.trace_id))
        if hint := not_served(f"GET {url}", str(status)):
            yield hint
    else:
        yield Finding(
            "url-no-span", "web",
            f"{url} answered {status}, without the header {DOCTOR_HEADER} of an instrumented Flask "
            "app",
            "call instrument_flask(app) in the server; let proxies pass the header "
            f"{DOCTOR_HEADER} in "
            "both directions; or give a URL that reaches the Flask app",
        )  # fmt: skip


def _check_answer(url: str, answer: str, trace_id: str) -> Iterator[Finding]:
    """Check the *answer* of the Flask app to a request in the trace *trace_id*."""
    facts = dict(part.strip().partition("=")[::2] for part in answer.split(";"))
    if facts.get("recording") == "no":
        yield Finding(
            "url-no-span", "web", f"the server at {url} makes no span of this request",
            "call telemetry.setup() in that server, do not set OTEL_SDK_DISABLED there, and set "
            "OTEL_TRACES_SAMPLER to parentbased_always_on",
        )  # fmt: skip
    elif trace_id not in facts.get("span", ""):
        if trace_id in facts.get("received", ""):
            yield apart(f"GET {url}", True, False)
        else:
            yield Finding(
                "request-apart", "web",
                f"GET {url} with a traceparent started another trace: the header "
                + ("was replaced" if facts.get("received") else "did not arrive"),
                "let proxies and middlewares in front of the app pass traceparent and tracestate",
            )  # fmt: skip
    if facts.get("exports") == "failing":
        yield Finding(
            "url-export-failed", "export", f"the server at {url} cannot deliver its spans",
            "run the doctor on the host and in the environment of that server, for the reason",
        )  # fmt: skip


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def _get(url: str, headers: Mapping[str, str], timeout: float) -> tuple[int, str | None]:
    """Send a GET. Return the status, and the doctor's header of the answer."""
    opener = urllib.request.build_opener(_NoRedirect)
    parts = urlsplit(url)
    userinfo, _, host = parts.netloc.rpartition("@")
    message = urllib.request.Request(parts._replace(netloc=host).geturl(), headers=dict(headers))
    if userinfo:
        login = b64encode(unquote(userinfo).encode()).decode()
        message.add_header("Authorization", f"Basic {login}")
    try:
        with opener.open(message, timeout=timeout) as response:
            return response.status, response.headers.get(DOCTOR_HEADER)
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code, exc.headers.get(DOCTOR_HEADER)


def _unreachable(url: str, exc: Exception, timeout: float) -> Finding:
    parts = urlsplit(url)
    why = str(getattr(exc, "reason", exc)) or type(exc).__name__
    if "CERTIFICATE_VERIFY_FAILED" in why:
        return Finding(
            "url-tls", "web", f"the certificate of {url} is not trusted ({why})",
            "name the file of its authority in SSL_CERT_FILE, and its host in --url",
        )  # fmt: skip
    if parts.scheme == "https" and "SSL" in why:
        return Finding(
            "url-tls", "web", f"the port of {url} does not support TLS",
            "use http://, or the port for HTTPS",
        )  # fmt: skip
    if parts.scheme == "http" and parts.hostname and not re.search("refused|timed out", why):
        port = parts.port or 80
        if speaks_tls(parts.hostname, port, timeout):
            return Finding("url-tls", "web", f"the port of {url} requires TLS", "use https://")
    return Finding(
        "url-unreachable", "web", f"{url} does not answer ({why})",
        "start the server, or correct --url",
    )  # fmt: skip
