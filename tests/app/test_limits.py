"""The limits and the headers of the web side, run as the compose file runs it."""

import re
import socket

import pytest
import requests

from telemetry.otlp.receiver import Receiver

from ..conftest import free_port
from ..processes import Starter
from ..test_compose import services


@pytest.fixture(scope="module")
def site(shared_start: Starter) -> str:
    """The web side with the command of compose.yaml, on a free port."""
    port = free_port()
    argv = [
        re.sub(r"^0\.0\.0\.0:8000$", f"127.0.0.1:{port}", word)
        for word in services("redis", "jaeger")["web"]["command"]
    ]
    shared_start(*argv).wait_for_line("Listening at")
    return f"http://127.0.0.1:{port}"


def status(site: str, request: str) -> int:
    """Send *request* as it is; return the status of the answer."""
    host, port = site.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(request.encode() + b"\r\n\r\n")
        return int(connection.makefile("rb").readline().split()[1])


def test_what_is_too_long_or_too_much_is_refused(site: str) -> None:
    many = "\r\n".join(f"x-{number}: 1" for number in range(200))
    assert status(site, "GET /healthz?" + "x" * 10_000 + " HTTP/1.1\r\nhost: a") in (400, 414)
    assert status(site, "GET /ping HTTP/1.1\r\nhost: a\r\nx: " + "x" * 20_000) in (400, 431)
    assert status(site, f"GET /ping HTTP/1.1\r\nhost: a\r\n{many}") in (400, 431)
    assert status(site, "GET /ping HTTP/1.1\r\nhost: a\r\nconnection: close") == 202


def test_all_the_baggage_that_w3c_allows_comes_through(
    site: str, shared_receiver: Receiver
) -> None:
    baggage = ",".join(f"key{number}={'v' * 1190}" for number in range(6))
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    headers = {"baggage": baggage, "traceparent": f"00-{trace_id}-b7ad6b7169203331-01"}
    assert 7000 < len(baggage) <= 8192
    assert requests.get(f"{site}/ping", headers=headers, timeout=20).status_code == 202
    shared_receiver.wait_for(
        lambda spans: ("GET /ping", trace_id) in {(span.name, span.trace_id) for span in spans}
    )


@pytest.mark.parametrize("path", ["/ping", "/ping?length=x", "/nothing"])
def test_every_answer_says_what_a_browser_may_do_with_it(site: str, path: str) -> None:
    said = requests.get(f"{site}{path}", timeout=20).headers
    assert said["Content-Security-Policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert said["X-Content-Type-Options"] == "nosniff"
    assert said["Referrer-Policy"] == "no-referrer"
    assert said["Cache-Control"] == "no-store"
