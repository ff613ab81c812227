"""The routes that take spans: OTLP/HTTP, and files from the page."""

from collections.abc import Callable
from urllib.parse import urlsplit

from flask import Flask, Response, abort, request
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from ...otlp.admission import Ticket
from ...otlp.server import JSON, PROTOBUF, encode_response, receive, response_to
from ...otlp.signals import Export
from ..import_files import read_file
from ..store.trace_store import PATIENCE, Store
from .answers import json_answer

#: The content types of an imported file.
FILE_TYPES = ("application/octet-stream", JSON, "application/gzip", "application/x-ndjson")


def add_intake(app: Flask, store: Store) -> None:
    """Add the routes that take spans and log records for *store*."""
    _add_otlp(app, store)

    @app.post("/api/import")
    def take_file() -> Response:
        _check_origin()
        with Ticket() as ticket:
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
        return json_answer(
            {
                "accepted": count,
                "logs": imported.logs,
                "traces": len(ids),
                "trace_id": ids[0] if ids else None,
                "format": imported.kind,
            }
        )


def _check_origin() -> None:
    """Refuse a file that a page of another site sends.

    Such a page can send the three content types of a form without a preflight.
    """
    if request.mimetype not in FILE_TYPES:
        abort(415, f"send the file with Content-Type: {FILE_TYPES[0]}")
    origin = request.headers.get("Origin")
    if origin is not None and urlsplit(origin).netloc != request.host:
        abort(403, "only the viewer's own page can import files")


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
        with Ticket() as ticket:
            ticket.fit(request.content_length or 0)
            _body()
        return Response(b"{}" if kind == JSON else b"", mimetype=kind)


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
