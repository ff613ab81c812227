"""Hop 2 beside other apps, middleware and servers, and in a context that is set outside."""

import gc
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar, copy_context
from io import BytesIO
from typing import Any, TypeVar, get_type_hints

import flask
import pytest
from opentelemetry import baggage, context, trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.test import Client, EnvironBuilder
from werkzeug.wrappers import Response

from telemetry.celery import instrument_celery
from telemetry.flask import Inbound, instrument_flask

TRACE = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = f"00-{TRACE}-b7ad6b7169203331-01"

tracer = trace.get_tracer("shop")

who: ContextVar[str] = ContextVar("who", default="nobody")

Spans = Callable[[], dict[str, ReadableSpan]]


@pytest.fixture
def spans(memory: InMemorySpanExporter) -> Spans:
    """Return the spans by name, each name once."""

    def spans() -> dict[str, ReadableSpan]:
        finished = memory.get_finished_spans()
        by_name = {span.name: span for span in finished}
        assert len(by_name) == len(finished), [span.name for span in finished]
        return by_name

    return spans


@pytest.mark.parametrize("instrument", [instrument_flask, instrument_celery])
def test_an_app_of_a_derived_class_keeps_its_type(instrument: Callable[..., Any]) -> None:
    hints = get_type_hints(instrument)
    assert isinstance(hints["return"], TypeVar)
    assert hints["return"] is hints["app"]


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def is_under(child: ReadableSpan, parent: ReadableSpan) -> bool:
    assert child.context is not None
    assert parent.context is not None
    return (
        child.parent is not None
        and child.parent.span_id == parent.context.span_id
        and child.context.trace_id == parent.context.trace_id
    )


def get(app: flask.Flask, path: str, **kwargs: Any) -> str:
    with app.test_client().get(path, **kwargs) as answer:
        return answer.text


def shop() -> flask.Flask:
    app = flask.Flask("shop")
    app.get("/items/<id>")(lambda id: f"item {id}")
    return app


def count_rows(rows: int = 3) -> Iterator[str]:
    for row in range(rows):
        with tracer.start_as_current_span(f"row {row}"):
            yield f"{row}"


class TestContextOfABody:
    def test_a_span_is_current_across_the_parts_that_it_makes(self, spans: Spans) -> None:
        app = instrument_flask(flask.Flask("shop"))

        @app.get("/rows")
        def rows() -> flask.Response:
            def body() -> Iterator[str]:
                with tracer.start_as_current_span("export"):
                    yield from count_rows()

            return flask.Response(flask.stream_with_context(body()))

        assert get(app, "/rows") == "012"
        found = spans()
        assert is_under(found["export"], found["GET /rows"])
        assert all(is_under(found[f"row {row}"], found["export"]) for row in range(3))

    def test_what_before_request_attaches_and_teardown_detaches(
        self, spans: Spans, caplog: pytest.LogCaptureFixture
    ) -> None:
        app = instrument_flask(flask.Flask("shop"))
        seen = []

        @app.before_request
        def enter() -> None:
            span = tracer.start_span("database session")
            flask.g.span = span, context.attach(trace.set_span_in_context(span))

        @app.teardown_request
        def leave(exc: BaseException | None) -> None:
            if "span" in flask.g:  # with stream_with_context, Flask calls this twice
                span, token = flask.g.pop("span")
                seen.append(trace.get_current_span() is span)
                context.detach(token)
                span.end()

        @app.get("/rows")
        def rows() -> flask.Response:
            seen.append(trace.get_current_span() is flask.g.span[0])
            return flask.Response(flask.stream_with_context(count_rows()))

        with caplog.at_level(logging.WARNING):
            assert get(app, "/rows") == "012"
        assert caplog.messages == []
        assert seen == [True, True]
        found = spans()
        assert is_under(found["database session"], found["GET /rows"])
        # Flask's teardown runs after the view and before the body.
        assert all(is_under(found[f"row {row}"], found["GET /rows"]) for row in range(3))

    def test_what_a_view_sets_is_there_in_the_body_and_not_outside(self, spans: Spans) -> None:
        app = instrument_flask(flask.Flask("shop"))

        @app.get("/who")
        def view() -> flask.Response:
            context.attach(baggage.set_baggage("who", "me"))
            who.set("me too")
            parts = (f"{baggage.get_baggage('who')}, {who.get()}" for _ in range(1))
            return flask.Response(parts)

        assert get(app, "/who") == "me, me too"
        assert baggage.get_baggage("who") is None
        assert set(spans()) == {"GET /who"}

    def test_between_the_parts_the_caller_has_its_own_context(self, spans: Spans) -> None:
        app = instrument_flask(flask.Flask("shop"))
        app.get("/rows")(lambda: flask.Response(count_rows()))
        with tracer.start_as_current_span("server") as server:
            body = app(EnvironBuilder("/rows").get_environ(), lambda *_: None)
            for _ in body:
                assert trace.get_current_span() is server
            body.close()  # type: ignore[attr-defined]
            assert trace.get_current_span() is server
        assert set(spans()) == {"server", "GET /rows", "row 0", "row 1", "row 2"}

    def test_a_body_that_is_closed_early_ends_the_spans_inside(self, spans: Spans) -> None:
        app = instrument_flask(flask.Flask("shop"))
        app.get("/rows")(lambda: flask.Response(count_rows()))
        body = iter(app(EnvironBuilder("/rows").get_environ(), lambda *_: None))
        assert next(body) == b"0"
        body.close()  # type: ignore[attr-defined]
        found = spans()
        assert is_under(found["row 0"], found["GET /rows"])
        assert found["GET /rows"].status.status_code is StatusCode.UNSET

    def test_a_body_that_nobody_closes_leaves_nothing_current(self, spans: Spans) -> None:
        app = instrument_flask(flask.Flask("shop"))
        app.get("/rows")(lambda: flask.Response(count_rows()))
        environ = EnvironBuilder("/rows").get_environ()
        body = iter(app(environ, lambda *_: None))
        assert next(body) == b"0"
        del body, environ
        gc.collect()
        assert not trace.get_current_span().get_span_context().is_valid
        assert set(spans()) == {"row 0", "GET /rows"}

    def test_a_thread_that_is_handed_the_context(self, spans: Spans) -> None:
        """The guide's remedy for threads."""
        app = instrument_flask(flask.Flask("shop"))

        @app.get("/pack")
        def pack() -> str:
            def work() -> str:
                with tracer.start_as_current_span("work"):
                    return flask.request.path

            with ThreadPoolExecutor(1) as pool:
                return pool.submit(copy_context().run, work).result()

        assert get(app, "/pack") == "/pack"
        found = spans()
        assert is_under(found["work"], found["GET /pack"])


class TestOneHopInsideOfAnother:
    @pytest.mark.parametrize("order", ["mounted first", "instrumented first"])
    @pytest.mark.parametrize("inbound", ["continue", "link", "ignore"])
    def test_a_mounted_app_is_part_of_the_same_request(
        self, spans: Spans, order: str, inbound: Inbound
    ) -> None:
        inner, outer = instrument_flask(shop(), inbound), flask.Flask("outer")
        if order == "instrumented first":
            instrument_flask(outer)
        outer.wsgi_app = DispatcherMiddleware(outer.wsgi_app, {"/api": inner})  # type: ignore[method-assign]
        if order == "mounted first":
            instrument_flask(outer)
        assert get(outer, "/api/items/1") == "item 1"
        (span,) = spans().values()
        assert (span.kind, span.name) == (SpanKind.SERVER, "GET /api/items/<id>")
        assert attributes(span)["http.route"] == "/api/items/<id>"
        assert attributes(span)["url.path"] == "/api/items/1"
        assert attributes(span)["http.response.status_code"] == 200

    def test_a_mounted_app_that_ignores_a_trace_makes_none_that_is_sampled_out(
        self, memory: InMemorySpanExporter
    ) -> None:
        outer = flask.Flask("outer")
        mounted = DispatcherMiddleware(outer.wsgi_app, {"/api": instrument_flask(shop(), "ignore")})
        outer.wsgi_app = mounted  # type: ignore[method-assign]
        instrument_flask(outer)
        headers = {"traceparent": TRACEPARENT[:-1] + "0"}
        assert get(outer, "/api/items/1", headers=headers) == "item 1"
        assert memory.get_finished_spans() == ()

    def test_the_route_of_a_mounted_app_that_is_not_instrumented(self, spans: Spans) -> None:
        outer, inner = flask.Flask("outer"), shop()
        outer.wsgi_app = DispatcherMiddleware(outer.wsgi_app, {"/api": inner})  # type: ignore[method-assign]
        instrument_flask(outer)

        @inner.get("/broken")
        def broken() -> str:
            raise LookupError("nothing here")

        get(outer, "/api/items/1")
        get(outer, "/api/broken")
        found = spans()
        assert set(found) == {"GET /api/items/<id>", "GET /api/broken"}
        assert attributes(found["GET /api/broken"])["error.type"] == "LookupError"
        assert [event.name for event in found["GET /api/broken"].events] == ["exception"]

    def test_a_view_that_hands_on_to_other_apps_names_the_request(self, spans: Spans) -> None:
        inner, outer = instrument_flask(shop()), instrument_flask(flask.Flask("outer"))

        @outer.get("/batch")
        def batch() -> str:
            environs = ({**flask.request.environ, "PATH_INFO": path} for path in ("/items/1", "/"))
            return " ".join(Response.from_app(inner, environ).status for environ in environs)

        assert get(outer, "/batch") == "200 OK 404 NOT FOUND"
        (span,) = spans().values()
        assert span.name == "GET /batch"
        assert attributes(span)["url.path"] == "/batch"
        assert attributes(span)["http.response.status_code"] == 200

    def test_an_app_that_stands_in_where_another_finds_nothing(self, spans: Spans) -> None:
        inner, outer = shop(), instrument_flask(flask.Flask("outer"))
        outer.register_error_handler(
            404, lambda error: Response.from_app(inner, flask.request.environ)
        )
        assert get(outer, "/items/1") == "item 1"
        assert set(spans()) == {"GET /items/<id>"}

    def test_a_mount_point_is_text_and_ends_without_a_slash(self, spans: Spans) -> None:
        app = instrument_flask(shop())
        get(app, "/items/1", environ_overrides={"SCRIPT_NAME": "/caf\xc3\xa9/"})
        assert set(spans()) == {"GET /café/items/<id>"}

    def test_a_span_of_a_middleware_outside_is_the_parent(self, spans: Spans) -> None:
        app = instrument_flask(shop())
        traced = app.wsgi_app

        def middleware(environ: dict[str, Any], start_response: Any) -> Any:
            sent = {"traceparent": environ["HTTP_TRACEPARENT"]}
            with tracer.start_as_current_span("middleware", telemetry_context(sent)):
                return traced(environ, start_response)

        app.wsgi_app = middleware  # type: ignore[method-assign]
        get(app, "/items/1", headers={"traceparent": TRACEPARENT})
        found = spans()
        assert is_under(found["GET /items/<id>"], found["middleware"])
        assert f"{found['middleware'].context.trace_id:032x}" == TRACE

    @pytest.mark.parametrize("inbound", ["continue", "link", "ignore"])
    def test_a_test_client_inside_of_a_span(self, spans: Spans, inbound: Inbound) -> None:
        app = instrument_flask(shop(), inbound)
        with tracer.start_as_current_span("test"):
            get(app, "/items/1")
            assert trace.get_current_span().name == "test"  # type: ignore[attr-defined]
        found = spans()
        assert is_under(found["GET /items/<id>"], found["test"])
        assert not found["GET /items/<id>"].links

    @pytest.mark.parametrize(
        ("inbound", "is_in_test", "links"), [("link", True, 0), ("ignore", True, 0)]
    )
    def test_the_trace_of_a_stranger_inside_of_a_span(
        self, spans: Spans, inbound: Inbound, is_in_test: bool, links: int
    ) -> None:
        app = instrument_flask(shop(), inbound)
        with tracer.start_as_current_span("test"):
            get(app, "/items/1", headers={"traceparent": TRACEPARENT})
        found = spans()
        assert is_under(found["GET /items/<id>"], found["test"]) is is_in_test
        assert len(found["GET /items/<id>"].links) == links

    @pytest.mark.parametrize(("inbound", "links"), [("link", 1), ("ignore", 0)])
    def test_a_trace_that_a_middleware_outside_has_accepted_is_a_strangers_still(
        self, spans: Spans, inbound: Inbound, links: int
    ) -> None:
        app = instrument_flask(shop(), inbound)
        headers = {"traceparent": TRACEPARENT}
        with tracer.start_as_current_span("middleware", telemetry_context(headers)):
            get(app, "/items/1", headers=headers)
        server = spans()["GET /items/<id>"]
        assert server.parent is None
        assert f"{server.context.trace_id:032x}" != TRACE
        assert len(server.links) == links

    def test_headers_of_another_trace_than_the_span_outside(self, spans: Spans) -> None:
        app = instrument_flask(shop())
        with tracer.start_as_current_span("test"):
            get(app, "/items/1", headers={"traceparent": TRACEPARENT})
        server = spans()["GET /items/<id>"]
        assert f"{server.context.trace_id:032x}" == TRACE

    def test_an_environment_that_is_used_again_is_another_request(
        self, memory: InMemorySpanExporter
    ) -> None:
        app = instrument_flask(shop())
        environ = EnvironBuilder("/items/1").get_environ()
        for _ in range(2):
            with Client(app).open(environ) as answer:
                assert answer.text == "item 1"
        for _ in range(2):
            app(environ, lambda *_: None).close()  # type: ignore[attr-defined]
        assert [span.name for span in memory.get_finished_spans()] == ["GET /items/<id>"] * 4

    def test_a_start_response_that_takes_keywords(self, spans: Spans) -> None:
        app = shop()

        def wsgi_app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
            start_response("204 No Content", [], exc_info=None)
            return []

        app.wsgi_app = wsgi_app  # type: ignore[assignment,method-assign]
        get(instrument_flask(app), "/")
        assert attributes(spans()["GET"])["http.response.status_code"] == 204


def telemetry_context(headers: dict[str, str]) -> context.Context:
    import telemetry

    return telemetry.extract(headers)


def test_a_method_that_is_replaced_in_the_class_later_is_called(
    spans: Spans, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Datadog and New Relic patch ``Flask.wsgi_app``."""
    app, wsgi_app, called = instrument_flask(shop()), flask.Flask.wsgi_app, []

    def theirs(self: flask.Flask, environ: Any, start_response: Any) -> Any:
        called.append(self)
        return wsgi_app(self, environ, start_response)

    monkeypatch.setattr(flask.Flask, "wsgi_app", theirs)
    get(app, "/items/1")
    assert called == [app]
    assert set(spans()) == {"GET /items/<id>"}


class ServersFile:
    """A file wrapper like gunicorn's, which checks for its own class."""

    def __init__(self, file: BytesIO, size: int = 8192) -> None:
        self.file = file

    def __iter__(self) -> Iterator[bytes]:
        return iter(lambda: self.file.read(8192), b"")

    def close(self) -> None:
        self.file.close()


def servers_function(file: BytesIO, size: int = 8192) -> BytesIO:
    """A file wrapper like uWSGI's, which checks for the file itself."""
    return file


class FileOfRows(BytesIO):
    """A file, each of whose parts is made in a span of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = count_rows()

    def __next__(self) -> bytes:
        return next(self.rows).encode()


class TestTheServersFileWrapper:
    @pytest.mark.parametrize(
        ("wrapper", "kind"), [(ServersFile, ServersFile), (servers_function, BytesIO)]
    )
    def test_a_file_is_returned_as_the_server_has_wrapped_it(
        self, spans: Spans, wrapper: Any, kind: type
    ) -> None:
        app = instrument_flask(flask.Flask("shop"))
        app.get("/file")(lambda: flask.send_file(BytesIO(b"goods"), "text/plain"))
        environ = EnvironBuilder("/file").get_environ()
        environ["wsgi.file_wrapper"] = wrapper
        body: Any = app(environ, lambda *_: None)
        assert type(body) is kind
        assert b"".join(body) == b"goods"
        body.close()
        span = spans()["GET /file"]
        assert attributes(span)["http.response.status_code"] == 200
        assert span.status.status_code is StatusCode.UNSET

    @pytest.mark.parametrize("wrapper", [ServersFile, servers_function])
    @pytest.mark.parametrize(
        "response",
        [
            pytest.param(lambda: flask.Response(count_rows()), id="generator"),
            pytest.param(
                lambda: flask.Response(FileOfRows(), direct_passthrough=True),
                id="a file that the server has not wrapped",
            ),
        ],
    )
    def test_any_other_body_is_made_inside_of_the_span(
        self, spans: Spans, wrapper: Any, response: Any
    ) -> None:
        app = instrument_flask(flask.Flask("shop"))
        app.get("/rows")(response)
        environ = EnvironBuilder("/rows").get_environ()
        environ["wsgi.file_wrapper"] = wrapper
        body: Any = app(environ, lambda *_: None)
        assert b"".join(body) == b"012"
        body.close()
        found = spans()
        assert all(is_under(found[f"row {row}"], found["GET /rows"]) for row in range(3))


class TestExceptions:
    @pytest.mark.parametrize("end", [StopIteration, ConnectionError])
    def test_the_end_of_a_websocket_is_no_error(self, spans: Spans, end: type[Exception]) -> None:
        """Flask-Sock and Flask-SocketIO raise it, for gunicorn and for Werkzeug's server."""

        class WebSocketEnds(flask.Response):
            def __call__(self, environ: Any, start_response: Any) -> Any:
                raise end

        app = instrument_flask(flask.Flask("shop"))
        app.get("/socket")(lambda: WebSocketEnds())
        environ = EnvironBuilder("/socket", headers={"Upgrade": "websocket"}).get_environ()
        with pytest.raises(end):
            app(environ, lambda *_: None)
        span = spans()["GET /socket"]
        assert span.status.status_code is StatusCode.UNSET
        assert not span.events
        assert "error.type" not in attributes(span)

    def test_a_websocket_whose_view_raises_is_an_error(self, spans: Spans) -> None:
        app = instrument_flask(flask.Flask("shop"))
        app.testing = True  # Flask reports the exception, and passes it on

        @app.get("/socket")
        def socket() -> str:
            raise ConnectionRefusedError

        environ = EnvironBuilder("/socket", headers={"Upgrade": "websocket"}).get_environ()
        with pytest.raises(ConnectionRefusedError):
            app(environ, lambda *_: None)
        span = spans()["GET /socket"]
        assert span.status.status_code is StatusCode.ERROR
        assert attributes(span)["error.type"] == "ConnectionRefusedError"

    def test_a_teardown_that_raises_is_the_500_that_the_client_gets(self, spans: Spans) -> None:
        app = instrument_flask(shop())

        @app.teardown_request
        def leave(exc: BaseException | None) -> None:
            raise LookupError("the session is gone")

        with pytest.raises(LookupError):
            get(app, "/items/1")
        span = spans()["GET /items/<id>"]
        assert span.status.status_code is StatusCode.ERROR
        assert attributes(span)["http.response.status_code"] == 500
        assert attributes(span)["error.type"] == "LookupError"
        assert [event.name for event in span.events] == ["exception"]

    @pytest.mark.parametrize(("parts", "status"), [(0, 500), (1, 200)])
    def test_a_body_that_raises_has_the_status_that_the_client_gets(
        self, spans: Spans, parts: int, status: int
    ) -> None:
        app = instrument_flask(flask.Flask("shop"))

        @app.get("/rows")
        def rows() -> flask.Response:
            def body() -> Iterator[str]:
                yield from "x" * parts
                raise LookupError("no more")

            return flask.Response(body())

        with pytest.raises(LookupError):
            get(app, "/rows")
        span = spans()["GET /rows"]
        assert span.status.status_code is StatusCode.ERROR
        assert attributes(span)["http.response.status_code"] == status
        assert [event.name for event in span.events] == ["exception"]

    def test_a_close_that_raises(self, spans: Spans) -> None:
        app = instrument_flask(shop())

        @app.after_request
        def watch(response: flask.Response) -> flask.Response:
            response.call_on_close(lambda: [].pop())
            return response

        body = app(EnvironBuilder("/items/1").get_environ(), lambda *_: None)
        assert b"".join(body) == b"item 1"
        with pytest.raises(IndexError):
            body.close()  # type: ignore[attr-defined]
        span = spans()["GET /items/<id>"]
        assert attributes(span)["error.type"] == "IndexError"
        assert attributes(span)["http.response.status_code"] == 200


@pytest.mark.parametrize("order", ["proxy first", "instrumented first"])
def test_behind_a_proxy_the_span_says_what_proxy_fix_says(spans: Spans, order: str) -> None:
    app = shop()
    if order == "instrumented first":
        instrument_flask(app)
    app.wsgi_app = ProxyFix(app.wsgi_app, x_for=1, x_proto=1, x_host=1, x_port=1, x_prefix=1)  # type: ignore[method-assign]
    instrument_flask(app)
    get(
        app,
        "/items/1",
        headers={
            "X-Forwarded-For": "203.0.113.7",
            "X-Forwarded-Proto": "https",
            "X-Forwarded-Host": "shop.example",
            "X-Forwarded-Port": "8443",
            "X-Forwarded-Prefix": "/shop",
        },
    )
    found = attributes(spans()["GET /shop/items/<id>"])
    assert found["client.address"] == "203.0.113.7"
    assert found["url.scheme"] == "https"
    assert (found["server.address"], found["server.port"]) == ("shop.example", 8443)
    assert found["http.route"] == "/shop/items/<id>"
    assert found["url.path"] == "/shop/items/1"
