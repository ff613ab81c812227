"""Hop 2 of 5: SERVER. A request arrives at Flask, and its trace continues."""

import contextvars
from collections.abc import Callable, Iterable, Iterator
from functools import cache, partial
from typing import Any, Literal, TypeVar

from flask import (
    Flask,
    Response,
    after_this_request,
    got_request_exception,
    request,
    request_started,
)
from opentelemetry.context import Context
from opentelemetry.trace import SpanKind, format_span_id, format_trace_id

from .propagation import extract_parent, headers_in
from .propagation.doctor import DOCTOR_HEADER
from .propagation.traceparent import TRACEPARENT
from .setup import sink
from .tracing.context import NO_CONTEXT, attach, get_current, parent_in
from .tracing.hop import Hop
from .tracing.record import Parent, RecordedLink, ServerFacts, SpanTemplate, environ_facts
from .tracing.scope import hop_scope
from .tracing.span import error_type

__all__ = ["Inbound", "instrument_flask"]

Inbound = Literal["continue", "link", "ignore"]
App = TypeVar("App", bound=Flask)
Environ = dict[str, Any]

EXTENSION = "queuehop"
#: The key of a WSGI environment that holds its hop.
_HOP = "queuehop.hop"
#: The key of the doctor's header in a WSGI environment.
_DOCTOR = "HTTP_" + DOCTOR_HEADER.upper().replace("-", "_")


def instrument_flask(app: App, inbound: Inbound = "continue") -> App:
    """Make a SERVER span of every request to *app*. Return *app*.

    *inbound* is ``"continue"`` to continue the caller's trace, ``"link"`` to start a new one with a
    link to it, or ``"ignore"``. The last two are for a public edge, and accept no baggage. A second
    call with the same app changes nothing.
    """
    if inbound not in ("continue", "link", "ignore"):
        raise ValueError(f"inbound is {inbound!r}, not 'continue', 'link' or 'ignore'")
    if EXTENSION not in app.extensions:
        app.extensions[EXTENSION] = inbound
        app.wsgi_app = _TracedApp(_wsgi_app_of(app), inbound)  # type: ignore[method-assign]
        # Of any app: one that is mounted in this one need not be instrumented itself.
        request_started.connect(_note_request)
        got_request_exception.connect(_note_exception)
    return app


def _wsgi_app_of(app: Flask) -> Callable[..., Iterable[bytes]]:
    """Return what *app* calls for a request: a middleware, or the method of its class.

    Other libraries replace the method in the class, at any time.
    """
    if "wsgi_app" in vars(app):
        return app.wsgi_app
    return lambda environ, start_response: type(app).wsgi_app(app, environ, start_response)


class _TracedApp:
    """WSGI middleware: the span is current while Flask works and while the body is produced."""

    def __init__(self, wsgi_app: Callable[..., Iterable[bytes]], inbound: Inbound) -> None:
        self._wsgi_app = wsgi_app
        self._inbound = inbound

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        outer = environ.get(_HOP)
        if outer is not None and outer.is_serving:
            return self._wsgi_app(environ, start_response)  # mounted in another: one request
        hop = environ[_HOP] = _ServerHop(_template(), ServerFacts(environ_facts(environ)))
        parent, context, links = _parent_of_request(environ, self._inbound)
        hop.start(parent, context, links)
        wrapper = environ.get("wsgi.file_wrapper")
        if wrapper is not None and not isinstance(wrapper, type):
            wrapper = environ["wsgi.file_wrapper"] = _FileWrapper(wrapper)

        def answering(status: str, *args: Any, **kwargs: Any) -> Any:
            hop.note_status(status)
            return start_response(status, *args, **kwargs)

        hop.attach(context)
        try:
            body = self._wsgi_app(environ, answering)
        except BaseException as exc:
            if hop.facts.error or not _is_end_of_websocket(exc, environ):
                hop.fail_unanswered(exc)
            hop.end()
            raise
        finally:
            hop.pause()
        if wrapper is not None and _is_servers_file(body, wrapper):
            hop.end()
            return body
        return _TracedBody(body, hop)


class _TracedBody:
    """The response's body. Each part is made inside the span, and the span ends with ``close``."""

    def __init__(self, body: Iterable[bytes], hop: "_ServerHop") -> None:
        self._hop = hop
        self._body = body
        self._next = iter(body).__next__
        self._fail: Callable[[BaseException], None] = hop.fail_unanswered

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        self._hop.resume()
        try:
            part = self._next()
            self._fail = self._hop.fail  # with its first part the status is sent
            return part
        except StopIteration:
            raise
        except Exception as exc:
            self._fail(exc)
            raise
        finally:
            self._hop.pause()

    def close(self) -> None:
        self._hop.resume()
        try:
            if close := getattr(self._body, "close", None):
                close()
        except Exception as exc:
            self._hop.fail(exc)
            raise
        finally:
            self._hop.pause()
            self._hop.end()

    def __del__(self) -> None:
        # Werkzeug's server does not close the body where the client has reset the connection. The
        # collector may run while another function sets a context variable, and processors set some:
        # before Python 3.12, that can free what is being read (python/cpython#148891).
        if self._hop.is_serving:
            contextvars.Context().run(self._hop.end)
            # A generator that ends now restores what was current when it began.
            outside = get_current()
            vars(self).clear()
            if get_current() is not outside:
                attach(outside)


class _ServerHop(Hop[ServerFacts]):
    """One request while it is served, in several pieces: the call, each part, the end."""

    #: Until the end, also where no span is made of the request.
    is_serving = True
    #: The context when the code inside was left.
    _inside: Context = NO_CONTEXT

    def end(self) -> None:
        """End the span, and the request."""
        self.is_serving = False
        super().end()

    def pause(self) -> None:
        """Restore the context from outside, until ``resume``."""
        self._inside = get_current()
        self.detach()

    def resume(self) -> None:
        """Restore the context that the code inside left."""
        self.token = attach(self._inside)

    def fail_unanswered(self, exc: BaseException) -> None:
        """Mark the span as failed by *exc*, for which the server answers 500."""
        self.fail(exc)
        self.facts.status = 500

    def fail(self, exc: BaseException) -> None:
        """Mark the span as failed by *exc*, which no code has handled."""
        if self.facts.error == error_type(exc):  # Flask has reported it before it raised it
            self.set_error(type(exc).__name__)
        else:
            super().fail(exc)

    def note_status(self, status: str) -> None:
        """Note the *status* line of the response."""
        number = status.partition(" ")[0]
        if len(number) != 3 or not number.isdecimal():  # Werkzeug's is 0 where a view gives none
            return
        self.facts.status = int(number)
        if self.facts.status >= 500:
            self.set_error()
            # An exception is more specific than the status that follows from it.
            self.facts.error = self.facts.error or number


def _parent_of_request(
    environ: Environ, inbound: Inbound
) -> tuple[Parent | None, Context, list[RecordedLink]]:
    """Return a request's parent, its context, and the links of its span.

    The span of a WSGI middleware outside, or of code that calls the app in place, is the parent. If
    the headers name another trace, such a span has nothing to do with this request.
    """
    current = get_current()
    outer = parent_in(current) if current else None
    caller, context = extract_parent(headers_in(environ), current)
    if inbound == "continue":
        in_trace = outer is not None and (caller is None or caller.trace_id == outer.trace_id)
        return outer if in_trace else caller, context, []
    if outer is not None and (caller is None or caller.trace_id != outer.trace_id):
        return outer, current, []
    return None, NO_CONTEXT, [RecordedLink.to(caller)] if caller and inbound == "link" else []


class _FileWrapper:
    """The server's ``wsgi.file_wrapper`` where it is a function. Remember what it returned."""

    returned: object = None

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.returned = self._function(*args, **kwargs)
        return self.returned


def _is_servers_file(body: Iterable[bytes], wrapper: type | _FileWrapper) -> bool:
    """Return whether *body* is what the server's file *wrapper* returned (PEP 3333).

    The server sends it in its own way, and would not find it inside another body.
    """
    if isinstance(wrapper, _FileWrapper):
        return body is wrapper.returned
    return isinstance(body, wrapper)


def _is_end_of_websocket(exc: BaseException, environ: Environ) -> bool:
    """Return whether *exc* tells the server that a websocket has ended well.

    gunicorn expects StopIteration for that, and Werkzeug's server ConnectionError.
    """
    is_websocket = environ.get("HTTP_UPGRADE", "").lower() == "websocket"
    return isinstance(exc, StopIteration) or (is_websocket and isinstance(exc, ConnectionError))


@cache
def _template() -> SpanTemplate:
    return SpanTemplate("HTTP", SpanKind.SERVER.value, {}, hop_scope())


def _note_request(app: Flask, **_: Any) -> None:
    """Note the request as Flask sees it: behind ``ProxyFix``, under the prefix of its mount."""
    started = request._get_current_object()  # type: ignore[attr-defined]  # the proxy looks for it each time
    environ, rule = started.environ, started.url_rule
    hop = environ.get(_HOP)
    if hop is not None and hop.facts.route is None:  # else passed on by a view
        hop.facts.environ = environ_facts(environ)
        if rule is not None:
            hop.facts.route = started.root_path + rule.rule
        hop.describe()
        if _DOCTOR in environ:
            after_this_request(partial(_answer_doctor, hop))


def _note_exception(app: Flask, exception: BaseException, **_: Any) -> None:
    hop = request.environ.get(_HOP)
    if hop is not None:
        hop.facts.error = error_type(exception)
        hop.record_exception(exception)


def _answer_doctor(hop: _ServerHop, response: Response) -> Response:
    span = hop.span.get_span_context()
    response.headers[DOCTOR_HEADER] = (
        f"span={format_trace_id(span.trace_id)}-{format_span_id(span.span_id)}; "
        f"recording={'yes' if hop.span.is_recording() else 'no'}; "
        f"received={request.headers.get(TRACEPARENT, '')[:55]}; "
        f"exports={'failing' if sink().last_export_error() else 'ok'}"
    )
    return response
