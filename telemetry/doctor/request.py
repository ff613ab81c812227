"""Send requests with a traceparent through the Flask app, and check their spans."""

import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from flask import Flask, request, request_started
from flask.testing import EnvironBuilder
from opentelemetry import trace
from opentelemetry.semconv._incubating.attributes.messaging_attributes import (
    MESSAGING_DESTINATION_NAME,
)
from opentelemetry.trace import SpanKind
from werkzeug.test import run_wsgi_app

from .answer import apart, not_served
from .finding import Finding
from .origin import headers_of, origin
from .spans import EndedSpans

#: The queues to which views have published, each with one of the tasks.
Published = dict[str, str]

#: The number of routes that are requested.
_MOST_ROUTES = 10


def check_request(
    app: Flask, path: str | None, timeout: float, counted: bool, published: Published
) -> Iterator[Finding]:
    """Send *app* a GET for *path*; without it, an OPTIONS for each route, which runs no view.

    Add the messages that the view sends to *published*.
    """
    if path is not None:
        yield from _check_path(app, "GET", path, timeout, counted, published)
        return
    found: dict[str, Finding] = {}
    paths = _paths(app)
    missed = 0
    for each in paths or ["/"]:
        for finding in _check_path(app, "OPTIONS", each, timeout, counted, published):
            missed += finding.code == "request-not-served"
            found.setdefault(finding.code, finding)
    if missed < len(paths) or not paths:  # one that works is enough, and / need not exist
        found.pop("request-not-served", None)
    yield from found.values()


def _paths(app: Flask) -> list[str]:
    """Return the shortest paths of *app* without arguments."""
    paths = {rule.rule for rule in app.url_map.iter_rules() if not rule.arguments}
    return sorted(paths, key=lambda path: (len(path), path))[:_MOST_ROUTES]


def _check_path(
    app: Flask, method: str, path: str, timeout: float, counted: bool, published: Published
) -> Iterator[Finding]:
    what = f"{method} {path}"
    # Its low 64 bits are zero, so a sampler by ratio samples it.
    sent = origin(0, counted)
    headers = headers_of(sent)
    seen: list[Mapping[str, str]] = []

    def note(*_: Any, **__: Any) -> None:
        seen.append(dict(request.headers))

    spans = EndedSpans()
    if not spans.sees:
        return  # the provider of another product, which does not show its spans
    with request_started.connected_to(note, app), _without_access_log():
        outcome = _call(app, method, path, headers, timeout)
    if outcome == "":
        yield Finding(
            "request-unanswered", "web", f"{what} got no answer within {timeout:g} s",
            "give another --path, or a longer --timeout",
        )  # fmt: skip
        return
    ended = spans.ended()
    servers = [span for span in ended if span.kind is SpanKind.SERVER]
    if not servers:
        yield _no_span(what, outcome, bool(seen))
    else:
        arrived = bool(seen) and _has(seen[0], headers)
        yield from _check_servers(what, servers, sent, arrived)
    yield from _check_sends(what, ended, servers, published)
    if servers and (hint := not_served(what, outcome)):
        yield hint


def _check_servers(
    what: str, servers: Sequence[Any], sent: trace.SpanContext, arrived: bool
) -> Iterator[Finding]:
    """Check the SERVER spans of a request in the context *sent*. Its headers may have *arrived*."""
    if len(servers) > 1:
        scopes = {span.instrumentation_scope.name for span in servers}
        yield Finding(
            "flask-doubled", "web",
            f"{what} made {len(servers)} SERVER spans, by {', '.join(sorted(scopes))}",
            "remove all but one instrumentation of Flask",
        )  # fmt: skip
    server = servers[-1]
    if server.context.trace_id != sent.trace_id:
        linked = any(link.context.trace_id == sent.trace_id for link in server.links)
        yield apart(what, arrived, linked)


def _check_sends(
    what: str, ended: Sequence[Any], servers: Sequence[Any], published: Published
) -> Iterator[Finding]:
    """Check the PRODUCER spans of a request, and add its messages to *published*."""
    sends = [span for span in ended if span.kind is SpanKind.PRODUCER]
    for span in sends:
        queue = str(span.attributes.get(MESSAGING_DESTINATION_NAME, ""))
        published[queue] = span.name.removeprefix("send ")
    traces = {span.context.trace_id for span in servers[-1:]}
    outside = sorted({span.name for span in sends if span.context.trace_id not in traces})
    if servers and outside:
        yield Finding(
            "send-apart", "web", f"{what} publishes outside its own trace: {', '.join(outside)}",
            "publish where the request's span is current; pass the context to threads: "
            "pool.submit(contextvars.copy_context().run, work)",
        )  # fmt: skip


def _has(seen: Mapping[str, str], sent: Mapping[str, str]) -> bool:
    """Return whether the headers that Flask has *seen* include those that were *sent*."""
    lower = {name.lower(): value for name, value in seen.items()}
    return all(lower.get(name.lower()) == value for name, value in sent.items())


@contextmanager
def _without_access_log() -> Iterator[None]:
    """Log warnings and errors only: a log of requests should not have those of the doctor."""
    before = logging.root.manager.disable
    logging.disable(max(before, logging.INFO))
    try:
        yield
    finally:
        logging.disable(before)


def _call(app: Flask, method: str, path: str, headers: Mapping[str, str], timeout: float) -> str:
    """Call *app* as a server does, in a thread. Return its status; "" if it takes too long."""
    outcome: list[str] = []

    def run() -> None:
        builder = EnvironBuilder(app, path, method=method, headers=dict(headers))
        try:
            environ = builder.get_environ()
            # Not the test client, which raises exceptions; a server answers 500.
            _, status, _ = run_wsgi_app(app, environ, buffered=True)
            outcome.append(status)
        except BaseException as exc:
            outcome.append(f"{type(exc).__name__}: {exc}")
        finally:
            builder.close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(timeout)
    return outcome[0] if outcome else ""


def _no_span(what: str, outcome: str, reached_flask: bool) -> Finding:
    if reached_flask:
        return Finding(
            "server-span-missing", "web", f"{what} made no SERVER span",
            "call instrument_flask(app) on the app that serves, and wrap app.wsgi_app in "
            "middlewares instead of replacing it",
        )  # fmt: skip
    return Finding(
        "server-span-missing", "web",
        f"{what} made no SERVER span: a middleware in front of Flask answered it ({outcome})",
        "give a --path that reaches Flask, or call instrument_flask(app) after the middleware was "
        "added",
    )  # fmt: skip
