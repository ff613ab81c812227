"""Hop 1 of 5: CLIENT. Pings the web side again and again: ``python -m app.client``."""

import argparse
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from urllib.parse import urlsplit

import requests
from opentelemetry import trace
from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE
from opentelemetry.trace import StatusCode, format_trace_id

import telemetry
from telemetry.requests import traced_session

#: Seconds that an answer may take, in addition to the wait in the request.
TIMEOUT = 10.0

DEFAULT_URL = "http://127.0.0.1:5000/ping"


def main(argv: Sequence[str] | None = None) -> int:
    """Ping until Ctrl-C or ``--count``, with the options in *argv*; return the exit status."""
    options = _parse(argv)
    telemetry.setup("queuehop-client")
    stopped = threading.Event()

    def stop(*_: object) -> None:
        stopped.set()  # if this interrupts a finalizer, Python only prints the exception
        raise KeyboardInterrupt

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is ignored
        signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)  # `docker stop` is a Ctrl-C too
    session = traced_session()
    sent = failed = 0
    due = time.monotonic()
    try:
        while sent != options.count and not stopped.is_set():
            time.sleep(max(0.0, due - time.monotonic()))
            due = max(due + options.interval, time.monotonic())
            failed += not _ping(session, options)
            sent += 1
    except KeyboardInterrupt:
        pass
    finally:
        telemetry.shutdown()
    if stopped.is_set():
        return 130 if options.count else 0
    return 1 if failed else 0


def _ping(session: requests.Session, options: argparse.Namespace) -> bool:
    """Ping once inside a root span, print the result, and return whether it succeeded."""
    parameters = {"length": options.length, "wait": options.wait, "task": options.task}
    tracer = trace.get_tracer(__name__)
    with tracer.start_as_current_span("ping") as span:
        trace_id = format_trace_id(span.get_span_context().trace_id)
        begin = time.monotonic()
        try:
            response = session.get(
                options.url, params=parameters, timeout=TIMEOUT + (options.wait or 0.0)
            )
            reason = _error_in(response)
            error = str(response.status_code)
        except requests.RequestException as exc:
            # The exception itself is in the request's own span.
            reason, error = _reason(exc), f"{type(exc).__module__}.{type(exc).__qualname__}"
        seconds = time.monotonic() - begin
        if reason:
            span.set_status(StatusCode.ERROR, reason)
            span.set_attribute(ERROR_TYPE, error)

    shown = _without_secrets(options.url)
    link = _link(trace_id)
    if reason:
        print(f"{shown} failed: {reason}  trace {trace_id}{link}", file=sys.stderr, flush=True)
        return False
    size = len(response.content)
    print(f"{shown}  {size} bytes  {seconds * 1000:.1f} ms  trace {trace_id}{link}", flush=True)
    return True


def _error_in(response: requests.Response) -> str:
    if response.ok:
        return ""
    try:
        error = response.json()["error"]
        reason = error.get("message") or error["type"]
    except (ValueError, KeyError, TypeError, AttributeError):
        reason = response.reason
    return f"{response.status_code}, {reason}"


def _reason(exc: requests.RequestException) -> str:
    # The message of requests quotes the query, which may contain a token.
    if isinstance(exc, requests.Timeout):
        return "no answer in time"
    if isinstance(exc, requests.ConnectionError):
        return "no connection: start the web side, or correct --url"
    return type(exc).__name__


def _without_secrets(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


def _link(trace_id: str) -> str:
    viewer = os.environ.get("TRACE_VIEWER_URL")
    return f"  {viewer.replace('{trace_id}', trace_id)}" if viewer else ""


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m app.client",
        description="Ping the web side again and again. Print the trace id of each ping.",
    )
    parser.add_argument(
        "--url",
        type=_url,
        default=os.environ.get("DESTINATION_URL") or DEFAULT_URL,
        help=f"the URL to ping (DESTINATION_URL, or {DEFAULT_URL})",
    )
    parser.add_argument(
        "--interval", type=_seconds, default=1.0, help="seconds between pings (%(default)s)"
    )
    parser.add_argument("--count", type=_count, help="stop after this number of pings (at Ctrl-C)")
    parser.add_argument(
        "--wait",
        type=_seconds,
        help="seconds that the server waits for the result (it does not wait)",
    )
    parser.add_argument(
        "--length", type=int, help="length of the string that the task makes (random)"
    )
    parser.add_argument("--task", help="task to run: ping, retry or fail (ping)")
    return parser.parse_args(argv)


def _url(value: str) -> str:
    with suppress(ValueError):
        url = urlsplit(value)
        if url.scheme in ("http", "https") and url.hostname and url.port != 0:
            return value
    raise argparse.ArgumentTypeError("not an address; write http://host:port/ping")


def _seconds(value: str) -> float:
    with suppress(ValueError):
        if 0 <= (seconds := float(value)) < math.inf:
            return seconds
    raise argparse.ArgumentTypeError(f"{value} is not a number of seconds")


def _count(value: str) -> int:
    with suppress(ValueError):
        if (count := int(value)) > 0:
            return count
    raise argparse.ArgumentTypeError(f"{value} is not a number of pings")


if __name__ == "__main__":
    sys.exit(main())
