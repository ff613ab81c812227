"""The HTTP server of the viewer: its page and its API. See docs/viewer.md."""

import re
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from flask import Flask, Response, abort, request, send_from_directory

from ..analysis.rows import head_of, rows_of
from ..export_files import trace_document
from ..map_layout import lay_out
from ..store.log_table import LogSearch, find_logs, logs_of_trace
from ..store.queue_page import Asked, queue_page
from ..store.queues import queues
from ..store.read import count_spans, number_of, read_spans, read_trace
from ..store.search import Search, facets, find
from ..store.search_trace import spans_like
from ..store.service_map import service_map
from ..store.suggest import suggest
from ..store.trace_store import Store
from .answers import explain_errors, guard, json_answer, json_rows
from .details import log_details, span_details, tick, to_bytes
from .events import Events
from .intake import add_intake

STATIC = Path(__file__).parent / "static"
PAGE = STATIC / "index.html"

TRACE_ID = re.compile(r"[0-9a-fA-F]{32}")

#: The largest request body before decompression, in bytes.
MAX_BODY = 64 * 1024 * 1024


def create_app(store: Store, events: Events, hosts: frozenset[str]) -> Flask:
    """Return the application. It answers only to *hosts*: names and addresses without port."""
    app = Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY
    guard(app, hosts)
    explain_errors(app, PAGE)
    _add_page(app)
    _add_traces(app, store)
    _add_logs(app, store)
    _add_queues(app, store)
    _add_rest(app, store, events)
    add_intake(app, store)
    return app


def _add_page(app: Flask) -> None:
    def page(**_: str) -> Response:
        if not PAGE.is_file():
            abort(404, "the files of the page are not installed; the API is at /api/traces")
        return send_from_directory(STATIC, PAGE.name)

    for rule in (
        "/",
        "/trace/<trace_id>",
        "/trace/<trace_id>/<span_id>",
        "/queues",
        "/queue",
        "/map",
        "/logs",
    ):
        app.add_url_rule(rule, endpoint=rule, view_func=page)

    @app.get("/static/<path:name>")
    def static(name: str) -> Response:
        return send_from_directory(STATIC, name)


def _add_traces(app: Flask, store: Store) -> None:
    @app.get("/api/traces")
    def list_traces() -> Response:
        search = Search.parse(request.args)
        with store.reading() as db:
            return json_answer(find(db, search, store.stuck_after_ns))

    @app.get("/api/suggest")
    def suggestions() -> Response:
        with store.reading() as db:
            return json_answer(suggest(db, request.args.get("q", "")))

    @app.get("/api/traces/<trace_id>")
    def export(trace_id: str) -> Response:
        with store.reading() as db:
            document = trace_document(db, _number(db, trace_id), trace_id)
        response = json_answer(document)
        if request.args.get("download"):
            response.headers["Content-Disposition"] = (
                f'attachment; filename="trace-{trace_id.lower()}.json"'
            )
        return response

    @app.get("/api/traces/<trace_id>/hops")
    def show_hops(trace_id: str) -> Response:
        with store.reading() as db:
            number = _number(db, trace_id)
            trace = read_trace(db, number, time.time_ns(), store.stuck_after_ns)
            return json_rows(head_of(trace, count_spans(db, number)), rows_of(trace))

    @app.get("/api/traces/<trace_id>/matches")
    def show_matches(trace_id: str) -> Response:
        text = request.args.get("q", "").strip()
        with store.reading() as db:
            return json_answer({"span_ids": spans_like(db, _number(db, trace_id), text)})

    @app.get("/api/traces/<trace_id>/spans/<span_id>")
    def span(trace_id: str, span_id: str) -> Response:
        with store.reading() as db:
            number = _number(db, trace_id)
            found = list(read_spans(db, number, to_bytes(span_id)))
            if not found:
                abort(404, f"trace {trace_id} has no span {span_id[:100]}")
            return json_answer(span_details(db, found[0]))


def _add_logs(app: Flask, store: Store) -> None:
    @app.get("/api/logs")
    def list_logs() -> Response:
        search = LogSearch.parse(request.args)
        with store.reading() as db:
            found, following = find_logs(db, search)
        return json_answer({"logs": list(map(log_details, found)), "next": following})

    @app.get("/api/traces/<trace_id>/logs")
    def show_logs(trace_id: str) -> Response:
        span_id = request.args.get("span_id")
        with store.reading() as db:
            found, more = logs_of_trace(
                db, to_bytes(trace_id), None if span_id is None else to_bytes(span_id)
            )
        # The timeline draws log records as ticks. The details of a span show them whole.
        show = tick if span_id is None else log_details
        return json_answer({"logs": list(map(show, found)), "more": more})


def _number(db: Any, trace_id: str) -> int:
    if not TRACE_ID.fullmatch(trace_id):
        abort(404, f"{trace_id[:100]!r} is not a trace id: it has 32 hexadecimal digits")
    number = number_of(db, trace_id)
    if number is None:
        abort(404, f"trace {trace_id[:100]} not found: it was deleted or has not arrived")
    return number


def _add_queues(app: Flask, store: Store) -> None:
    @app.get("/api/queues")
    def list_queues() -> Response:
        with store.reading() as db:
            return json_answer(queues(db, _since(), store.stuck_after_ns))

    @app.get("/api/queue")
    def show_queue() -> Response:
        args = request.args
        asked = Asked(args.get("queue", ""), args.get("task"), args.get("broker"))
        with store.reading() as db:
            return json_answer(queue_page(db, asked, _since(), store.stuck_after_ns))

    @app.get("/api/map")
    def show_map() -> Response:
        direction = request.args.get("direction", "right")
        with store.reading() as db:
            found = service_map(db, _since())
        return json_answer(lay_out(found, direction))


def _since() -> float:
    try:
        since = float(request.args.get("since_s") or 3600)
        if 0 < since < 1e12:
            return since
    except ValueError:
        pass
    raise ValueError("since_s must be a number of seconds")


def _add_rest(app: Flask, store: Store, events: Events) -> None:
    @app.get("/api/facets")
    def list_facets() -> Response:
        with store.reading() as db:
            return json_answer(facets(db))

    @app.get("/api/stats")
    def stats() -> Response:
        return json_answer(events.stats() | {"bounds": asdict(store.bounds)})

    @app.get("/healthz")
    def healthz() -> Response:
        failing = store.failing
        return json_answer(
            {"error": failing} if failing else {"status": "ok"}, 503 if failing else 200
        )

    @app.get("/api/events")
    def listen() -> Response:
        listener = events.subscribe()
        if listener is None:
            abort(503, "too many browsers have this viewer open: close one")

        def stream() -> Iterator[str]:
            try:
                yield from listener
            finally:
                events.unsubscribe(listener)

        response = Response(stream(), mimetype="text/event-stream")
        response.call_on_close(lambda: events.unsubscribe(listener))
        return response
