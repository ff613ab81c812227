"""Hops 1 and 2: a request leaves a session and arrives at Flask, over a real socket."""

import gc
import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass

import flask
import pytest
import requests
from opentelemetry import baggage, context, trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from werkzeug.serving import BaseWSGIServer, make_server
from werkzeug.test import EnvironBuilder

from telemetry.flask import instrument_flask
from telemetry.requests import traced_session

from ..in_process import Switch

TRACE = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = f"00-{TRACE}-b7ad6b7169203331-01"


@dataclass
class Site:
    app: flask.Flask
    url: str
    server: BaseWSGIServer
    memory: InMemorySpanExporter

    def spans(self) -> dict[str, ReadableSpan]:
        """Wait until the server has ended its spans; return the spans by name and kind."""
        self.server.shutdown()
        return {f"{s.kind.name} {s.name}": s for s in self.memory.get_finished_spans()}


def make_app() -> flask.Flask:
    app = flask.Flask("site")

    @app.get("/hello/<name>")
    def hello(name: str) -> str:
        return f"hello {name} {baggage.get_baggage('who')}"

    @app.get("/broken")
    def broken() -> str:
        raise LookupError("nothing here")

    @app.get("/away")
    def away() -> tuple[str, int]:
        return "away", 503

    @app.get("/moved")
    def moved() -> object:
        return flask.redirect("/hello/again")

    @app.get("/stream")
    def stream() -> flask.Response:
        def parts() -> Iterator[str]:
            for number in range(3):
                span = trace.get_current_span()
                span.add_event(f"part {number}")
                yield f"{span.get_span_context().trace_id:032x}\n"

        return flask.Response(parts())

    return app


@pytest.fixture(params=["continue"])
def site(request: pytest.FixtureRequest, memory: InMemorySpanExporter) -> Iterator[Site]:
    app = instrument_flask(make_app(), inbound=request.param)
    server = make_server("127.0.0.1", 0, app, threaded=False)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield Site(app, f"http://127.0.0.1:{server.port}", server, memory)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_one_request_is_a_client_and_a_server_span_in_one_trace(site: Site) -> None:
    token = context.attach(baggage.set_baggage("who", "me"))
    try:
        answer = traced_session().get(f"{site.url}/hello/you?secret=1")
    finally:
        context.detach(token)
    spans = site.spans()
    client, server = spans["CLIENT GET"], spans["SERVER GET /hello/<name>"]
    port = site.server.port

    assert answer.text == "hello you me"
    assert client.parent is None
    assert server.parent is not None
    assert server.parent.span_id == client.context.span_id
    assert server.context.trace_id == client.context.trace_id
    assert dict(client.attributes or {}) == {
        "http.request.method": "GET",
        "http.response.status_code": 200,
        "server.address": "127.0.0.1",
        "server.port": port,
        "url.full": f"{site.url}/hello/you",
    }
    attributes = dict(server.attributes or {})
    assert attributes.pop("user_agent.original").startswith("python-requests/")
    assert attributes == {
        "client.address": "127.0.0.1",
        "http.request.method": "GET",
        "http.response.status_code": 200,
        "http.route": "/hello/<name>",
        "network.protocol.version": "1.1",
        "server.address": "127.0.0.1",
        "server.port": port,
        "url.path": "/hello/you",
        "url.scheme": "http",
    }
    assert {span.status.status_code for span in spans.values()} == {StatusCode.UNSET}


def test_an_exception_of_the_view_is_an_error_with_one_event(site: Site) -> None:
    assert traced_session().get(f"{site.url}/broken").status_code == 500
    spans = site.spans()
    server, client = spans["SERVER GET /broken"], spans["CLIENT GET"]
    assert server.status.status_code is StatusCode.ERROR
    assert (server.attributes or {})["error.type"] == "LookupError"
    assert [event.name for event in server.events] == ["exception"]
    assert client.status.status_code is StatusCode.ERROR
    assert (client.attributes or {})["error.type"] == "500"


def test_an_exception_that_goes_on_to_the_server_is_told_once(memory: InMemorySpanExporter) -> None:
    app = instrument_flask(make_app())
    app.testing = True  # then Flask raises what no view has handled
    with pytest.raises(LookupError):
        app.test_client().get("/broken")
    (span,) = memory.get_finished_spans()
    assert span.status.status_code is StatusCode.ERROR
    assert [event.name for event in span.events] == ["exception"]


def test_a_status_without_a_number_is_the_views_own(memory: InMemorySpanExporter) -> None:
    app = instrument_flask(make_app())
    app.add_url_rule("/teapot", view_func=lambda: flask.Response("short", status="teapot"))
    with app.test_client().get("/teapot") as answer:
        assert (answer.status, answer.text) == ("0 teapot", "short")
    (span,) = memory.get_finished_spans()
    assert "http.response.status_code" not in (span.attributes or {})


def test_a_server_error_without_an_exception(site: Site) -> None:
    requests.get(f"{site.url}/away")
    server = site.spans()["SERVER GET /away"]
    assert server.status.status_code is StatusCode.ERROR
    assert (server.attributes or {})["error.type"] == "503"
    assert not server.events


def test_an_unknown_route_is_no_error_of_the_server_and_no_new_name(site: Site) -> None:
    traced_session().get(f"{site.url}/no/such/path")
    spans = site.spans()
    assert spans["SERVER GET"].status.status_code is StatusCode.UNSET
    assert spans["CLIENT GET"].status.status_code is StatusCode.ERROR


def test_an_unknown_method_is_other(site: Site) -> None:
    traced_session().request("BREW", f"{site.url}/hello/you")
    spans = site.spans()
    assert set(spans) == {"SERVER HTTP", "CLIENT HTTP"}
    for span in spans.values():
        assert (span.attributes or {})["http.request.method"] == "_OTHER"
        assert (span.attributes or {})["http.request.method_original"] == "BREW"


def test_a_redirect_is_two_requests_side_by_side(site: Site) -> None:
    with trace.get_tracer("test").start_as_current_span("outer") as outer:
        traced_session().get(f"{site.url}/moved")
    site.spans()
    clients = [s for s in site.memory.get_finished_spans() if s.kind is SpanKind.CLIENT]
    servers = [s for s in site.memory.get_finished_spans() if s.kind is SpanKind.SERVER]
    assert [s.parent.span_id for s in clients if s.parent] == [outer.get_span_context().span_id] * 2
    assert [s.parent.span_id for s in servers if s.parent] == [s.context.span_id for s in clients]


def test_the_body_of_a_stream_is_made_inside_the_span(site: Site) -> None:
    answer = traced_session().get(f"{site.url}/stream")
    server = site.spans()["SERVER GET /stream"]
    assert answer.text.split() == [f"{server.context.trace_id:032x}"] * 3
    assert [event.name for event in server.events] == ["part 0", "part 1", "part 2"]


def test_a_server_that_is_away_is_an_error_and_nothing_stays_current(
    memory: InMemorySpanExporter,
) -> None:
    with pytest.raises(requests.ConnectionError):
        traced_session().get("http://127.0.0.1:1/")
    (span,) = memory.get_finished_spans()
    assert span.status.status_code is StatusCode.ERROR
    assert (span.attributes or {})["error.type"] == "requests.exceptions.ConnectionError"
    assert [event.name for event in span.events] == ["exception"]


def test_user_and_password_are_not_recorded(memory: InMemorySpanExporter) -> None:
    with pytest.raises(requests.ConnectionError):
        traced_session().get("http://user:hunter2@127.0.0.1:1/path?token=hunter2#hunter2")
    (span,) = memory.get_finished_spans()
    assert (span.attributes or {})["url.full"] == "http://127.0.0.1:1/path"
    assert "hunter2" not in span.to_json()


def test_a_short_query_takes_nothing_else_out_of_a_traceback(memory: InMemorySpanExporter) -> None:
    with pytest.raises(requests.ConnectionError):
        traced_session().get("http://127.0.0.1:1/?a")
    (span,) = memory.get_finished_spans()
    (event,) = span.events
    trace_of_it = str((event.attributes or {})["exception.stacktrace"])
    assert trace_of_it.startswith("Traceback (most recent call last):")
    assert "/?a" not in trace_of_it


def test_an_adapter_of_the_applications_own(memory: InMemorySpanExporter) -> None:
    class Adapter(requests.adapters.HTTPAdapter):
        def send(self, request: requests.PreparedRequest, *_: object, **__: object):  # type: ignore[no-untyped-def,override]
            answer = requests.Response()
            answer.status_code, answer.request, answer.url = 200, request, str(request.url)
            return answer

    session = traced_session()
    session.mount("queue://", Adapter(max_retries=3))
    assert session.get("queue://orders:eu/").status_code == 200
    assert session.get_adapter("queue://").max_retries.total == 3  # type: ignore[attr-defined]
    (span,) = memory.get_finished_spans()
    assert (span.attributes or {})["url.full"] == "queue://orders:eu/"


def test_a_session_traced_twice_makes_one_span(site: Site) -> None:
    session = traced_session(traced_session())
    session.get(f"{site.url}/hello/you")
    assert len(site.spans()) == 2


def test_an_app_instrumented_twice_makes_one_span(site: Site) -> None:
    assert instrument_flask(site.app) is site.app
    requests.get(f"{site.url}/hello/you")
    site.spans()
    assert len(site.memory.get_finished_spans()) == 1


def test_an_app_that_has_answered_before_is_traced_from_then_on(
    memory: InMemorySpanExporter,
) -> None:
    app = make_app()
    app.test_client().get("/hello/one").close()
    instrument_flask(app).test_client().get("/hello/two").close()
    (span,) = memory.get_finished_spans()
    assert span.name == "GET /hello/<name>"


def test_a_request_that_is_refused_before_its_view_has_its_route(
    memory: InMemorySpanExporter,
) -> None:
    app = make_app()
    app.url_value_preprocessor(lambda endpoint, values: flask.abort(404))
    instrument_flask(app).test_client().get("/hello/one").close()
    (span,) = memory.get_finished_spans()
    assert span.name == "GET /hello/<name>"
    assert (span.attributes or {})["http.response.status_code"] == 404


def test_a_span_that_raises_breaks_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(trace.NonRecordingSpan):
        def is_recording(self) -> bool:
            raise RuntimeError("broken")

    class Provider(trace.TracerProvider):
        def get_tracer(self, *_: object, **__: object) -> trace.Tracer:
            return self  # type: ignore[return-value]

        def start_span(self, *_: object, **__: object) -> trace.Span:
            return Broken(trace.INVALID_SPAN_CONTEXT)

    monkeypatch.setattr(trace, "_TRACER_PROVIDER", Provider())
    app = instrument_flask(make_app())
    with app.test_client().get("/hello/you") as answer:
        assert answer.status_code == 200
    assert app.test_client().get("/broken").status_code == 500


def test_an_inbound_trace_goes_on(site: Site) -> None:
    requests.get(f"{site.url}/hello/you", headers={"traceparent": TRACEPARENT})
    (server,) = site.spans().values()
    assert f"{server.context.trace_id:032x}" == TRACE
    assert server.parent is not None
    assert f"{server.parent.span_id:016x}" == "b7ad6b7169203331"


@pytest.mark.parametrize(("site", "links"), [("link", [TRACE]), ("ignore", [])], indirect=["site"])
def test_at_a_public_edge_the_trace_is_new_and_takes_no_baggage(
    site: Site, links: list[str]
) -> None:
    headers = {"traceparent": TRACEPARENT, "baggage": "who=stranger"}
    answer = requests.get(f"{site.url}/hello/you", headers=headers)
    (server,) = site.spans().values()
    assert server.parent is None
    assert f"{server.context.trace_id:032x}" != TRACE
    assert [f"{link.context.trace_id:032x}" for link in server.links] == links
    assert answer.text == "hello you None"


def test_another_word_for_inbound_is_refused() -> None:
    with pytest.raises(ValueError, match="'continue', 'link' or 'ignore'"):
        instrument_flask(flask.Flask("site"), inbound="drop")  # type: ignore[arg-type]


def test_a_client_that_leaves_early_leaves_a_span(site: Site) -> None:
    with socket.create_connection(("127.0.0.1", site.server.port)) as early:
        early.sendall(b"GET /stream HTTP/1.1\r\nHost: site\r\nConnection: close\r\n\r\n")
        assert early.recv(1)
        # A reset, not a close: the next write of the server fails.
        early.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert "SERVER GET /stream" in site.spans()


def test_a_forgotten_body_ends_its_span_beside_the_context_that_it_is_collected_in(
    switch: Switch, memory: InMemorySpanExporter
) -> None:
    """Before Python 3.12, a finalizer may change a context that is being read."""
    changed: ContextVar[bool] = ContextVar("changed", default=False)

    class Changing(InMemorySpanExporter):
        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            changed.set(True)
            return super().export(spans)

    exporter = Changing()
    switch.targets.append(exporter)
    environ = EnvironBuilder(path="/stream").get_environ()
    body = instrument_flask(make_app()).wsgi_app(environ, lambda *_: None)
    assert not exporter.get_finished_spans()
    del body, environ
    gc.collect()
    switch.targets.remove(exporter)
    assert [span.name for span in exporter.get_finished_spans()] == ["GET /stream"]
    assert not changed.get()
