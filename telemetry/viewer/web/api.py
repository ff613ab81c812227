"""The HTTP server of the viewer: its page, its API, and OTLP/HTTP. See docs/viewer.md."""

import base64
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from flask import Flask, Response, abort, request, send_from_directory
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from werkzeug.exceptions import HTTPException

from ...otlp.admission import ADMISSION
from ...otlp.bounds import TooLarge
from ...otlp.decode import ReceivedSpan
from ...otlp.server import (
    JSON,
    PROTOBUF,
    Busy,
    encode_response,
    receive,
    response_to,
)
from ...otlp.signals import Export
from ..analysis.rows import hops
from ..analysis.summary import to_text
from ..export_files import trace_document
from ..import_files import read_file
from ..map_layout import lay_out
from ..store.logs import LogSearch, Stored, find_logs, logs_of_trace
from ..store.query import QueryError
from ..store.queue_page import Asked, queue_page
from ..store.queues import queues
from ..store.read import (
    count_spans,
    linked_from,
    number_of,
    read_spans,
    read_trace,
)
from ..store.search import Search, facets, find
from ..store.search_trace import spans_like
from ..store.service_map import service_map
from ..store.suggest import suggest
from ..store.trace_store import PATIENCE, Store
from .events import Events

__all__ = ["create_app"]

STATIC = Path(__file__).parent / "static"

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)

#: The largest request body before decompression, in bytes.
MAX_BODY = 64 * 1024 * 1024

#: The content types of an imported file.
FILE_TYPES = ("application/octet-stream", JSON, "application/gzip", "application/x-ndjson")

#: The longest attribute value on the page, in characters. The download has the whole value.
LONGEST_VALUE = 65_536

#: The longest text of a log record in a tooltip, in characters.
LONGEST_TITLE = 200

#: The largest integer that JavaScript represents exactly.
LARGEST_NUMBER = 2**53 - 1


def create_app(store: Store, events: Events, hosts: frozenset[str]) -> Flask:
    """Return the application. It answers only to *hosts*: names and addresses without port."""
    app = Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY
    app.json.sort_keys = False  # type: ignore[attr-defined]

    @app.before_request
    def check_host() -> None:
        name = urlsplit(f"//{request.host}").hostname or ""
        if name not in hosts:
            abort(421, f"host {name[:100]!r} is not allowed: use localhost or the host of --http")

    @app.after_request
    def protect(response: Response) -> Response:
        response.headers["Content-Security-Policy"] = POLICY
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Referrer-Policy"] = "no-referrer"
        response.headers["Cross-Origin-Resource-Policy"] = "same-origin"
        response.headers["Cross-Origin-Opener-Policy"] = "same-origin"
        response.headers.setdefault("Cache-Control", "no-cache")
        return response

    @app.errorhandler(HTTPException)
    def explain(exc: HTTPException) -> Response:
        answer = _json({"error": exc.description}, exc.code or 500)
        answer.headers.extend((k, v) for k, v in exc.get_headers() if k in ("Allow", "Retry-After"))
        return answer

    @app.errorhandler(TooLarge)
    def explain_too_large(exc: TooLarge) -> Response:
        return _json({"error": str(exc)}, 413)

    @app.errorhandler(Busy)
    def explain_busy(exc: Busy) -> Response:
        answer = _json({"error": str(exc)}, 503)
        answer.headers["Retry-After"] = "1"
        return answer

    @app.errorhandler(QueryError)
    def explain_query(exc: QueryError) -> Response:
        return _json({"error": str(exc), "position": exc.position}, 400)

    @app.errorhandler(ValueError)
    def explain_value(exc: ValueError) -> Response:
        return _json({"error": str(exc)}, 400)

    _add_page(app)
    _add_traces(app, store)
    _add_logs(app, store)
    _add_rest(app, store, events)
    _add_otlp(app, store)
    return app


def _json(value: Any, status: int = 200) -> Response:
    return Response(to_text(value), status, mimetype="application/json")


def _add_page(app: Flask) -> None:
    def page(**_: str) -> Response:
        if not (STATIC / "index.html").is_file():
            abort(404, "the files of the page are not installed; the API is at /api/traces")
        return send_from_directory(STATIC, "index.html")

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
            return _json(find(db, search, store.stuck_after_ns))

    @app.get("/api/suggest")
    def suggestions() -> Response:
        with store.reading() as db:
            return _json(suggest(db, request.args.get("q", "")))

    @app.get("/api/traces/<trace_id>")
    def export(trace_id: str) -> Response:
        with store.reading() as db:
            document = trace_document(db, _number(db, trace_id), trace_id)
        response = _json(document)
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
            return _json(hops(trace, count_spans(db, number)))

    @app.get("/api/traces/<trace_id>/matches")
    def show_matches(trace_id: str) -> Response:
        text = request.args.get("q", "").strip()
        with store.reading() as db:
            return _json({"span_ids": spans_like(db, _number(db, trace_id), text)})

    @app.get("/api/traces/<trace_id>/spans/<span_id>")
    def span(trace_id: str, span_id: str) -> Response:
        with store.reading() as db:
            number = _number(db, trace_id)
            found = list(read_spans(db, number, _bytes(span_id)))
            if not found:
                abort(404, f"trace {trace_id} has no span {span_id[:100]}")
            return _json(_span(db, found[0]))


def _add_logs(app: Flask, store: Store) -> None:
    @app.get("/api/logs")
    def list_logs() -> Response:
        search = LogSearch.parse(request.args)
        with store.reading() as db:
            found, following = find_logs(db, search)
        return _json({"logs": list(map(_log, found)), "next": following})

    @app.get("/api/traces/<trace_id>/logs")
    def show_logs(trace_id: str) -> Response:
        span_id = request.args.get("span_id")
        with store.reading() as db:
            found, more = logs_of_trace(
                db, _bytes(trace_id), None if span_id is None else _bytes(span_id)
            )
        # The timeline draws log records as ticks. The details of a span show them whole.
        show = _tick if span_id is None else _log
        return _json({"logs": list(map(show, found)), "more": more})


def _tick(stored: Stored) -> dict[str, Any]:
    log = stored.log
    return {
        "time_ns": str(log.time_ns),
        "span_id": log.span_id,
        "severity": log.severity,
        "level": log.level,
        "text": log.text[:LONGEST_TITLE],
    }


def _log(stored: Stored) -> dict[str, Any]:
    log = stored.log
    return {
        "id": stored.number,
        "time_ns": str(log.time_ns),
        "trace_id": log.trace_id,
        "span_id": log.span_id,
        "is_known": stored.is_known,
        "severity": log.severity,
        "level": log.level,
        "text": _plain(log.text),
        "logger": log.scope,
        "service": log.service,
        "attributes": _plain(log.attributes),
    }


def _number(db: Any, trace_id: str) -> int:
    number = number_of(db, trace_id)
    if number is None:
        abort(404, f"trace {trace_id[:100]} not found: it was deleted or has not arrived")
    return number


def _bytes(span_id: str) -> bytes:
    try:
        return bytes.fromhex(span_id)
    except ValueError:
        return b""


def _linked(db: Any, trace_id: str, span_id: str) -> dict[str, Any]:
    """Return whether the target of a link is stored, and its name and service."""
    number = number_of(db, trace_id)
    found = list(read_spans(db, number, _bytes(span_id))) if number is not None else []
    return {
        "known": bool(found),
        "name": found[0].name if found else None,
        "service": found[0].service if found else None,
    }


def _linked_from(db: Any, span: ReceivedSpan) -> list[dict[str, Any]]:
    return [
        {
            "trace_id": other.trace_id,
            "span_id": other.span_id,
            "name": other.name,
            "service": other.service,
            "later_ms": (other.start_ns - max(span.start_ns, span.end_ns)) / 1e6,
        }
        for other in linked_from(db, span.trace_id, span.span_id)
    ]


def _span(db: Any, span: ReceivedSpan) -> dict[str, Any]:
    attributes, events, links = span.dropped
    return {
        "span_id": span.span_id,
        "parent_span_id": span.parent_id,
        "name": span.name,
        "kind": span.kind,
        "service": span.service,
        "scope": span.scope,
        "start_ns": str(span.start_ns),
        "duration_ms": max(0, span.end_ns - span.start_ns) / 1e6,
        "status": span.status.lower(),
        "message": span.status_message,
        "attributes": _plain(span.attributes),
        "resource": _plain(span.resource),
        "events": [
            {
                "name": event.name,
                "offset_ms": (event.time_ns - span.start_ns) / 1e6,
                "attributes": _plain(event.attributes),
            }
            for event in span.events
        ],
        "links": [
            {
                "trace_id": link.trace_id,
                "span_id": link.span_id,
                "attributes": _plain(link.attributes),
                **_linked(db, link.trace_id, link.span_id),
            }
            for link in span.links
        ],
        "linked_from": _linked_from(db, span),
        "traceparent": f"00-{span.trace_id}-{span.span_id}-{span.flags & 0xFF:02x}",
        "dropped": {"attributes": attributes, "events": events, "links": links},
    }


def _plain(value: Any) -> Any:
    """Return *value* in types that JSON and JavaScript can represent."""
    match value:
        case Mapping():
            return {key: _plain(item) for key, item in value.items()}
        case list():
            return [_plain(item) for item in value]
        case bytes():
            return _plain(base64.b64encode(value).decode())
        case str() if len(value) > LONGEST_VALUE:
            return f"{value[:LONGEST_VALUE]}… ({len(value)} characters in all)"
        case bool():
            return value
        case int() if abs(value) > LARGEST_NUMBER:
            return str(value)
        case float() if not math.isfinite(value):
            return str(value)
    return value


def _add_rest(app: Flask, store: Store, events: Events) -> None:
    @app.get("/api/queues")
    def list_queues() -> Response:
        with store.reading() as db:
            return _json(queues(db, _since(), store.stuck_after_ns))

    @app.get("/api/queue")
    def show_queue() -> Response:
        args = request.args
        asked = Asked(args.get("queue", ""), args.get("task"), args.get("broker"))
        with store.reading() as db:
            return _json(queue_page(db, asked, _since(), store.stuck_after_ns))

    @app.get("/api/map")
    def show_map() -> Response:
        direction = request.args.get("direction", "right")
        with store.reading() as db:
            found = service_map(db, _since())
        return _json(lay_out(found, direction))

    @app.get("/api/facets")
    def list_facets() -> Response:
        with store.reading() as db:
            return _json(facets(db))

    @app.get("/api/stats")
    def stats() -> Response:
        return _json(events.stats() | {"bounds": asdict(store.bounds)})

    @app.get("/healthz")
    def healthz() -> Response:
        failing = store.failing
        return _json({"error": failing} if failing else {"status": "ok"}, 503 if failing else 200)

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


def _since() -> float:
    try:
        since = float(request.args.get("since_s") or 3600)
        if 0 < since < 1e12:
            return since
    except ValueError:
        pass
    raise ValueError("since_s must be a number of seconds")


def _add_otlp(app: Flask, store: Store) -> None:
    def take(kind: type[Export], put: Callable[[Export], tuple[int, str]]) -> Response:
        content_type = _kind()
        body = (request.content_length, _body, _encoding(), content_type)
        with receive(kind, *body) as export:
            response = response_to(kind, *put(export))
        return Response(encode_response(response, content_type), mimetype=content_type)

    @app.post("/v1/traces")
    def take_traces() -> Response:
        return take(ExportTraceServiceRequest, store.take)

    @app.post("/v1/logs")
    def take_logs() -> Response:
        return take(ExportLogsServiceRequest, store.take_logs)

    @app.post("/v1/metrics")
    def take_metrics() -> Response:
        kind = _kind()
        _encoding()
        with ADMISSION.ticket() as ticket:
            ticket.fit(request.content_length or 0)
            _body()
        return Response(b"{}" if kind == JSON else b"", mimetype=kind)

    @app.post("/api/import")
    def take_file() -> Response:
        # A page of another site can send the three content types of a form without a preflight.
        if request.mimetype not in FILE_TYPES:
            abort(415, f"send the file with Content-Type: {FILE_TYPES[0]}")
        origin = request.headers.get("Origin")
        if origin is not None and urlsplit(origin).netloc != request.host:
            abort(403, "only the viewer's own page can import files")
        with ADMISSION.ticket() as ticket:
            ticket.fit(request.content_length or 0)
            imported = read_file(_body(), ticket)
            count = imported.spans
            refused, reason = store.take(imported.request)
            refused_logs, reason_of_logs = store.take_logs(imported.log_request)
        if refused:
            abort(422, f"{refused} of {count} spans were refused: {reason}")
        if refused_logs:
            abort(
                422, f"{refused_logs} of {imported.logs} log records were refused: {reason_of_logs}"
            )
        # The page opens the trace next. A write to a locked database fails within this time.
        if reason := store.wait_until_written(2 * PATIENCE):
            abort(503, f"the spans were not written: {reason}")
        ids = imported.trace_ids
        return _json(
            {
                "accepted": count,
                "logs": imported.logs,
                "traces": len(ids),
                "trace_id": ids[0] if ids else None,
                "format": imported.kind,
            }
        )


def _kind() -> str:
    if request.mimetype not in (PROTOBUF, JSON):
        abort(415, f"send OTLP as {PROTOBUF} or {JSON}")
    return request.mimetype


def _encoding() -> str:
    encoding = request.headers.get("Content-Encoding", "identity").lower()
    if encoding not in ("identity", "gzip"):
        abort(415, "this Content-Encoding is not supported: use gzip or none")
    return encoding


def _body() -> bytes:
    return request.get_data(cache=False)
