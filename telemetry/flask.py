"""Hop 2 of 5: SERVER. A request arrives at Flask, and its trace goes on here."""

import contextvars
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

from flask import Flask, got_request_exception, request, request_started
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.semconv.attributes.client_attributes import CLIENT_ADDRESS
from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE
from opentelemetry.semconv.attributes.http_attributes import (
    HTTP_REQUEST_METHOD,
    HTTP_RESPONSE_STATUS_CODE,
    HTTP_ROUTE,
)
from opentelemetry.semconv.attributes.network_attributes import NETWORK_PROTOCOL_VERSION
from opentelemetry.semconv.attributes.server_attributes import SERVER_ADDRESS, SERVER_PORT
from opentelemetry.semconv.attributes.url_attributes import URL_PATH, URL_SCHEME
from opentelemetry.semconv.attributes.user_agent_attributes import USER_AGENT_ORIGINAL
from opentelemetry.semconv.metrics.http_metrics import HTTP_SERVER_REQUEST_DURATION
from opentelemetry.trace import Link, Span, SpanKind, StatusCode
from opentelemetry.util.types import AttributeValue
from werkzeug.sansio.utils import get_host

from . import faults
from .hop import error_type, fail, record, start
from .http import method_attributes
from .propagation import extract, from_environ
from .setup import measure

__all__ = ["Inbound", "instrument_flask"]

Inbound = Literal["continue", "link", "ignore"]
Environ = dict[str, Any]

EXTENSION = "queuehop"
_OF_A_METRIC = (HTTP_REQUEST_METHOD, URL_SCHEME, NETWORK_PROTOCOL_VERSION)
_SPAN = "queuehop.span"
_MEASURED = "queuehop.measured"


def instrument_flask(app: Flask, inbound: Inbound = "continue") -> Flask:
    """Make a SERVER span of every request to *app*; return *app*.

    *inbound* is what to do with a trace that the request brings: ``"continue"`` it; start a new
    one that has a ``"link"`` to it; or ``"ignore"`` it. The last two are for a public edge, and
    take no baggage from there. Doing it twice does no harm.
    """
    if inbound not in ("continue", "link", "ignore"):
        raise ValueError(f"inbound is {inbound!r}: it takes 'continue', 'link' or 'ignore'")
    if EXTENSION not in app.extensions:
        app.extensions[EXTENSION] = inbound
        app.wsgi_app = _ServerHop(app.wsgi_app, inbound)  # type: ignore[method-assign]
        request_started.connect(_name_by_route, app)
        got_request_exception.connect(_record_exception, app)
    return app


class _ServerHop:
    """WSGI middleware: the span is current while Flask works and while the body is produced."""

    def __init__(self, wsgi_app: Callable[..., Iterable[bytes]], inbound: Inbound) -> None:
        self._wsgi_app = wsgi_app
        self._inbound = inbound

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        method, attributes = _describe(environ)
        context, links = _inbound(environ, self._inbound)
        span = start(method, SpanKind.SERVER, context=context, attributes=attributes, links=links)
        environ[_SPAN] = span
        environ[_MEASURED] = {key: attributes[key] for key in _OF_A_METRIC if key in attributes}
        context = trace.set_span_in_context(span, context)
        began = time.perf_counter()

        def end() -> None:
            if environ.pop(_SPAN, None) is None:
                return
            seconds = time.perf_counter() - began
            measure({HTTP_SERVER_REQUEST_DURATION: seconds}, environ[_MEASURED], span)
            span.end()

        def answering(status: str, *args: Any) -> Any:
            _set_status(span, status, environ)
            return start_response(status, *args)

        token = otel_context.attach(context)
        try:
            body = self._wsgi_app(environ, answering)
        except BaseException as exc:
            fail(span, exc)
            environ[_MEASURED][ERROR_TYPE] = error_type(exc)
            end()
            raise
        finally:
            otel_context.detach(token)
        return _Body(body, span, context, end)


class _Body:
    """The response's body: each part is made inside the span, which ends when it is closed."""

    def __init__(
        self, body: Iterable[bytes], span: Span, context: Context, end: Callable[[], None]
    ) -> None:
        self._body = body
        self._parts = iter(body)
        self._span = span
        self._context = context
        self._end = end

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        part: bytes = self._inside(self._parts.__next__)
        return part

    def close(self) -> None:
        try:
            if close := getattr(self._body, "close", None):
                self._inside(close)
        finally:
            self._end()

    def __del__(self) -> None:
        # Werkzeug's server does not close the body where the client has reset the connection. The
        # collector may come while somebody sets a context variable, and processors set some:
        # before Python 3.12 that frees what is being read (python/cpython#148891).
        contextvars.Context().run(self._end)

    def _inside(self, step: Callable[[], Any]) -> Any:
        token = otel_context.attach(self._context)
        try:
            return step()
        except StopIteration:
            raise
        except Exception as exc:
            fail(self._span, exc)
            raise
        finally:
            otel_context.detach(token)


def _inbound(environ: Environ, inbound: Inbound) -> tuple[Context, list[Link]]:
    if inbound == "ignore":
        return Context(), []
    context = extract(from_environ(environ))
    if inbound == "continue":
        return context, []
    sender = trace.get_current_span(context).get_span_context()
    return Context(), [Link(sender)] if sender.is_valid else []


def _describe(environ: Environ) -> tuple[str, dict[str, AttributeValue]]:
    method, attributes = method_attributes(environ.get("REQUEST_METHOD", "GET"))
    try:
        attributes |= {
            URL_SCHEME: environ.get("wsgi.url_scheme", "http"),
            # PEP 3333 has bytes dressed as Latin-1 here.
            URL_PATH: (environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", ""))
            .encode("latin-1", "replace")
            .decode("utf-8", "replace"),
            **_server(environ),
        }
        if peer := environ.get("REMOTE_ADDR"):
            attributes[CLIENT_ADDRESS] = peer
        if agent := environ.get("HTTP_USER_AGENT"):
            attributes[USER_AGENT_ORIGINAL] = agent
        if version := environ.get("SERVER_PROTOCOL", "").removeprefix("HTTP/"):
            attributes[NETWORK_PROTOCOL_VERSION] = version
    except Exception:
        faults.report("describe a request")
    return method, attributes


def _server(environ: Environ) -> dict[str, AttributeValue]:
    scheme = environ.get("wsgi.url_scheme", "http")
    host = get_host(scheme, environ.get("HTTP_HOST"), _bound(environ))
    name, colon, port = host.rpartition(":")
    if not colon or not port.isdecimal():
        name, port = host, "443" if scheme == "https" else "80"
    return {SERVER_ADDRESS: name.strip("[]"), SERVER_PORT: int(port)}


def _bound(environ: Environ) -> tuple[str, int | None]:
    port = str(environ.get("SERVER_PORT", ""))
    return environ.get("SERVER_NAME", ""), int(port) if port.isdecimal() else None


def _name_by_route(app: Flask, **_: Any) -> None:
    span, rule = request.environ.get(_SPAN), request.url_rule
    if span is not None and rule is not None:
        method, _attributes = method_attributes(request.method)
        span.update_name(f"{method} {rule.rule}")
        span.set_attribute(HTTP_ROUTE, rule.rule)
        request.environ[_MEASURED][HTTP_ROUTE] = rule.rule


def _record_exception(app: Flask, exception: BaseException, **_: Any) -> None:
    if (span := request.environ.get(_SPAN)) is not None:
        record(span, exception)
        span.set_attribute(ERROR_TYPE, error_type(exception))
        request.environ[_MEASURED][ERROR_TYPE] = error_type(exception)


def _set_status(span: Span, status: str, environ: Environ) -> None:
    code = int(status[:3])
    measured = environ[_MEASURED]
    measured[HTTP_RESPONSE_STATUS_CODE] = code
    span.set_attribute(HTTP_RESPONSE_STATUS_CODE, code)
    if code >= 500:
        span.set_status(StatusCode.ERROR)
        # An exception says more than the status that comes of it.
        if ERROR_TYPE not in measured:
            measured[ERROR_TYPE] = str(code)
            span.set_attribute(ERROR_TYPE, str(code))
