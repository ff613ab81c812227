"""Hop 2 of 5: SERVER. A request arrives at Flask, and its trace goes on here."""

import contextvars
import time
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Any, Literal

from flask import Flask, got_request_exception, request, request_started
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
from opentelemetry.trace import Span, SpanContext, SpanKind, Status, StatusCode
from opentelemetry.util.types import AttributeValue
from werkzeug.sansio.utils import get_host

from . import faults
from .current import attach, restore
from .hop import describe, error_type, fail, finish, record, start, within
from .http import method_attributes
from .light import Shape
from .propagation import arrived, from_environ
from .series import Series

__all__ = ["Inbound", "instrument_flask"]

Inbound = Literal["continue", "link", "ignore"]
Environ = dict[str, Any]

EXTENSION = "queuehop"
_OF_A_METRIC = (HTTP_REQUEST_METHOD, URL_SCHEME, NETWORK_PROTOCOL_VERSION, HTTP_ROUTE)
#: Where a request is, in its WSGI environment.
_SERVED = "queuehop.served"


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


class _Request:
    """One request while it is served: its span, and what is measured of it."""

    __slots__ = ("_began", "code", "ended", "error", "shape", "span")

    def __init__(self, span: Span, shape: Shape) -> None:
        self.span = span
        self.code = 0
        self.error: str | None = None
        self.shape = shape
        self.ended = False
        self._began = time.perf_counter()

    def fail(self, exc: BaseException) -> None:
        """Mark the span as failed by *exc*, which nobody has handled."""
        error = error_type(exc)
        if self.error == error:  # Flask has told of it before it raised it
            self.span.set_status(Status(StatusCode.ERROR, type(exc).__name__))
        else:
            fail(self.span, exc)
        self.error = error

    def end(self) -> None:
        """End the span, the first time."""
        if not self.ended:
            self.ended = True
            seconds = time.perf_counter() - self._began
            series = _series(self.shape, self.code, self.error)
            finish(self.span, (series, (seconds,)))


class _ServerHop:
    """WSGI middleware: the span is current while Flask works and while the body is produced."""

    def __init__(self, wsgi_app: Callable[..., Iterable[bytes]], inbound: Inbound) -> None:
        self._wsgi_app = wsgi_app
        self._inbound = inbound

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        shape = _shape(environ)
        parent, context, links = _inbound(environ, self._inbound)
        span = start(shape, parent, context=context, attributes=_own(environ), links=links)
        served = environ[_SERVED] = _Request(span, shape)
        context = within(span, context)

        def answering(status: str, *args: Any) -> Any:
            _set_status(served, status)
            return start_response(status, *args)

        token = attach(context)
        try:
            body = self._wsgi_app(environ, answering)
        except BaseException as exc:
            served.fail(exc)
            served.end()
            raise
        finally:
            restore(token)
        return _Body(body, served, context)


class _Body:
    """The response's body: each part is made inside the span, which ends when it is closed."""

    def __init__(self, body: Iterable[bytes], served: _Request, context: Context) -> None:
        self._served = served
        self._body = body
        self._next = iter(body).__next__
        self._context = context

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        token = attach(self._context)
        try:
            return self._next()
        except StopIteration:
            raise
        except Exception as exc:
            self._served.fail(exc)
            raise
        finally:
            restore(token)

    def close(self) -> None:
        token = attach(self._context)
        try:
            if close := getattr(self._body, "close", None):
                close()
        except Exception as exc:
            self._served.fail(exc)
            raise
        finally:
            restore(token)
            self._served.end()

    def __del__(self) -> None:
        # Werkzeug's server does not close the body where the client has reset the connection. The
        # collector may come while somebody sets a context variable, and processors set some:
        # before Python 3.12 that frees what is being read (python/cpython#148891).
        if not self._served.ended:
            contextvars.Context().run(self._served.end)


def _inbound(
    environ: Environ, inbound: Inbound
) -> tuple[SpanContext | None, Context, list[SpanContext]]:
    """Return a request's parent, the context that came with it, and what it links to."""
    if inbound == "ignore":
        return None, Context(), []
    sender, context = arrived(from_environ(environ), None)
    if inbound == "continue":
        return sender, context, []
    return None, Context(), [sender] if sender else []


def _shape(environ: Environ) -> Shape:
    get = environ.get
    return _shape_of(
        get("REQUEST_METHOD", "GET"),
        get("wsgi.url_scheme", "http"),
        get("HTTP_HOST"),
        get("SERVER_NAME", ""),
        str(get("SERVER_PORT", "")),
        get("SERVER_PROTOCOL", ""),
    )


@lru_cache(maxsize=256)
def _shape_of(
    method: str, scheme: str, host: str | None, server: str, port: str, protocol: str
) -> Shape:
    """Return what many requests have in common, from what WSGI says of them."""
    name, attributes = method_attributes(method)
    attributes[URL_SCHEME] = scheme
    try:
        attributes |= _server(scheme, host, server, port)
    except Exception:
        faults.report("describe a server")
    if version := protocol.removeprefix("HTTP/"):
        attributes[NETWORK_PROTOCOL_VERSION] = version
    return Shape(name, SpanKind.SERVER, attributes)


@lru_cache(maxsize=1024)
def _routed(shape: Shape, route: str) -> Shape:
    return Shape(f"{shape.name} {route}", shape.kind, {**shape.attributes, HTTP_ROUTE: route})


@lru_cache(maxsize=1024)
def _series(shape: Shape, code: int, error: str | None) -> Series:
    said = shape.attributes
    measured = {key: said[key] for key in _OF_A_METRIC if key in said}
    if code:
        measured[HTTP_RESPONSE_STATUS_CODE] = code
    if error:
        measured[ERROR_TYPE] = error
    return Series((HTTP_SERVER_REQUEST_DURATION,), measured)


def _own(environ: Environ) -> dict[str, AttributeValue]:
    """Return what a request says of itself alone."""
    own: dict[str, AttributeValue] = {}
    try:
        path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
        # PEP 3333 has bytes dressed as Latin-1 here.
        own[URL_PATH] = (
            path if path.isascii() else path.encode("latin-1", "replace").decode("utf-8", "replace")
        )
        if peer := environ.get("REMOTE_ADDR"):
            own[CLIENT_ADDRESS] = peer
        if agent := environ.get("HTTP_USER_AGENT"):
            own[USER_AGENT_ORIGINAL] = agent
    except Exception:
        faults.report("describe a request")
    return own


def _server(scheme: str, host: str | None, server: str, port: str) -> dict[str, AttributeValue]:
    bound = server, int(port) if port.isdecimal() else None
    asked_for = get_host(scheme, host, bound)
    name, colon, port = asked_for.rpartition(":")
    if not colon or not port.isdecimal():
        name, port = asked_for, "443" if scheme == "https" else "80"
    return {SERVER_ADDRESS: name.strip("[]"), SERVER_PORT: int(port)}


def _name_by_route(app: Flask, **_: Any) -> None:
    started = request._get_current_object()  # type: ignore[attr-defined]  # looked for once
    served, rule = started.environ.get(_SERVED), started.url_rule
    if served is not None and rule is not None:
        served.shape = shape = _routed(served.shape, rule.rule)
        describe(served.span, shape)


def _record_exception(app: Flask, exception: BaseException, **_: Any) -> None:
    if (served := request.environ.get(_SERVED)) is not None:
        record(served.span, exception)
        served.error = error_type(exception)
        served.span.set_attribute(ERROR_TYPE, served.error)


def _set_status(served: _Request, status: str) -> None:
    number = status.partition(" ")[0]
    if len(number) != 3 or not number.isdecimal():  # Werkzeug's is 0 where a view gives none
        return
    code = served.code = int(number)
    served.span.set_attribute(HTTP_RESPONSE_STATUS_CODE, code)
    if code >= 500:
        served.span.set_status(StatusCode.ERROR)
        # An exception says more than the status that comes of it.
        if served.error is None:
            served.error = str(code)
            served.span.set_attribute(ERROR_TYPE, served.error)
