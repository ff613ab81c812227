"""A request with a traceparent, through the app or to a server, and its span."""

import http.client
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ssl import PROTOCOL_TLS_SERVER, SSLContext
from urllib.parse import urlsplit

import pytest
import trustme
from flask import Flask

from telemetry.doctor.request import check_request
from telemetry.flask import instrument_flask
from telemetry.otlp.receiver import Receiver

from ...conftest import free_port
from ...processes import Starter
from .conftest import BOTH, PROJECT, WEB, Doctor, below, codes, first, hints


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        ("strips", "OPTIONS /ping with a traceparent started another trace: a WSGI middleware"),
        ("replaces", "a WSGI middleware removes or replaces the header"),
        ("link", "inbound is 'link'"),
        ("ignore", "inbound is 'ignore'"),
    ],
)
def test_a_request_that_starts_another_trace(doctor: Doctor, broken: str, says: str) -> None:
    said = doctor(*WEB, BREAK=broken)
    assert codes(said) == ["request-apart"]
    assert says in first(said)["problem"]


def test_a_request_without_a_span(doctor: Doctor) -> None:
    assert codes(doctor(*WEB, BREAK="replaced-wsgi-app")) == ["server-span-missing"]
    said = doctor(*WEB, BREAK="redirects")
    assert codes(said) == ["server-span-missing"]
    assert "301 Moved Permanently" in first(said)["problem"]
    said = doctor(*WEB, BREAK="flask-not-instrumented")
    assert codes(said) == ["flask-not-instrumented"]
    assert below(first(said)) == ["server-span-missing"]


def test_a_request_that_is_not_served(doctor: Doctor) -> None:
    """It is a hint, since the trace does not break."""
    for said in (doctor(*WEB, BREAK="fails"), doctor(*WEB, "--path", "/nowhere")):
        assert codes(said) == []
        assert hints(said) == ["request-not-served"]
    said = doctor(*WEB, "--path", "/orders", BREAK="takes-orders")
    assert hints(said) == ["request-not-served"]
    assert "accepts GET" in said[1]["hints"][0]["remedy"]
    assert hints(doctor(*WEB, "--path", "ping")) == []


def test_a_path_is_requested_with_get(doctor: Doctor, receiver: Receiver) -> None:
    """Its view runs, and what it publishes is in the trace of the request."""
    assert codes(doctor(*WEB, "--path", "/ping")) == []
    spans = receiver.wait_for(lambda spans: len(spans) == 2)
    assert {span.name for span in spans} == {"GET /ping", "send ship"}
    assert len({span.trace_id for span in spans}) == 1
    assert {span.trace_state for span in spans} == {"queuehop=doctor"}
    apart = doctor(*WEB, "--path", "/ping", BREAK="publishes-in-a-thread")
    assert codes(apart) == ["send-apart"]
    assert "send ship" in first(apart)["problem"]


def test_a_view_that_publishes_to_a_queue_of_its_own(sound: Doctor) -> None:
    said = sound(*BOTH, "--path", "/ping")
    assert codes(said) == ["queue-not-consumed"]
    assert "queue nobody, and ship is sent to it" in first(said)["problem"]


class Proxy(BaseHTTPRequestHandler):
    """Passes requests on to ``server.target``, without the headers in ``server.dropped``."""

    def do_GET(self) -> None:
        url = urlsplit(self.server.target)
        connection = http.client.HTTPConnection(url.hostname, url.port)
        dropped = self.server.dropped
        kept = {name: value for name, value in self.headers.items() if name.lower() not in dropped}
        connection.request("GET", self.path, headers=kept)
        answer = connection.getresponse()
        body = answer.read()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        connection.close()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def proxy() -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def serve(start: Starter, **env: str) -> str:
    port = free_port()
    flask = start("flask", "--app", f"{PROJECT}:create_app", "run", "--port", str(port), **env)
    flask.wait_for_line("Running on")
    return f"http://127.0.0.1:{port}"


def test_a_server_behind_a_proxy(
    doctor: Doctor, start: Starter, proxy: ThreadingHTTPServer
) -> None:
    server = serve(start)
    proxy.target, proxy.dropped = server, set()
    url = f"http://127.0.0.1:{proxy.server_port}/ping?token=secret"
    assert codes(doctor("--url", f"{server}/ping")) == []
    assert codes(doctor("--url", url)) == []

    proxy.dropped = {"traceparent"}
    said = doctor("--url", url)
    assert codes(said) == ["request-apart"]
    assert "the header did not arrive" in first(said)["problem"]
    assert "secret" not in str(said)

    proxy.dropped = {"queuehop-doctor"}
    assert codes(doctor("--url", url)) == ["url-no-span"]


def test_a_server_that_starts_another_trace(doctor: Doctor, start: Starter) -> None:
    url = serve(start, BREAK="ignore")
    said = doctor("--url", url)
    assert codes(said) == ["request-apart"]
    assert "inbound is 'ignore'" in first(said)["problem"]


def test_a_server_that_is_not_traced(doctor: Doctor, start: Starter) -> None:
    said = doctor("--url", serve(start, BREAK="flask-not-instrumented"))
    assert codes(said) == ["url-no-span"]


def test_a_server_that_makes_no_span(doctor: Doctor, start: Starter) -> None:
    url = serve(start, OTEL_TRACES_SAMPLER="always_off")
    said = doctor("--url", url.replace("//", "//user:secret@"))
    assert codes(said) == ["url-no-span"]
    assert "OTEL_TRACES_SAMPLER" in first(said)["remedy"]
    assert "secret" not in str(said)


def test_a_server_that_is_not_there(doctor: Doctor) -> None:
    said = first(doctor("--url", f"http://user:secret@127.0.0.1:{free_port()}/"))
    assert said["code"] == "url-unreachable"
    assert "secret" not in str(said)


def test_a_server_with_tls_on_one_side(doctor: Doctor, proxy: ThreadingHTTPServer) -> None:
    address = f"//127.0.0.1:{proxy.server_port}/"
    assert codes(doctor("--url", f"https:{address}")) == ["url-tls"]
    context = SSLContext(PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    proxy.socket = context.wrap_socket(proxy.socket, server_side=True)
    assert codes(doctor("--url", f"http:{address}")) == ["url-tls"]
    said = doctor("--url", f"https:{address}a b?c=secret d")
    assert codes(said) == ["url-tls"]
    assert "SSL_CERT_FILE" in first(said)["remedy"]
    assert "secret" not in str(said)
    assert " d " not in first(said)["problem"]


@pytest.mark.usefixtures("memory")
def test_an_app_whose_routes_all_have_arguments() -> None:
    """The doctor requests ``/``. It need not exist."""
    app = instrument_flask(Flask("shop"))
    app.post("/photos/<int:photo>")(lambda photo: "")
    assert list(check_request(app, None, 5.0, counted=True, published={})) == []
