"""The answers of the HTTP server: JSON, headers, and errors in words."""

import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from http import HTTPStatus
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
from flask import Flask, Response, abort, request
from werkzeug.exceptions import HTTPException

from ...otlp.admission import Busy
from ...otlp.bounds import TooLarge
from ..analysis.summary import to_text
from ..store.query import QueryError

#: The rows in a line of an answer. The first line fills the screen.
ROWS_OF_LINE = 500

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)


def json_answer(value: Any, status: int = 200) -> Response:
    """Return *value* as JSON."""
    return Response(to_text(value), status, mimetype="application/json")


def json_rows(head: Mapping[str, Any], rows: Iterable[Any]) -> Response:
    """Return *head* with *rows* as JSON while they are made, many in a line.

    The first line, closed by ``]}``, is JSON too: a page shows it before the others are there.
    """
    return Response(_lines(head, iter(rows)), mimetype="application/json")


def _lines(head: Mapping[str, Any], rows: Iterator[Any]) -> Iterator[bytes]:
    yield msgspec.json.encode(head)[:-1] + b',"rows":['
    separator = b""
    while block := [*islice(rows, ROWS_OF_LINE)]:
        yield separator + msgspec.json.encode(block)[1:-1]
        separator = b"\n,"
    yield b"]}"


def guard(app: Flask, hosts: frozenset[str]) -> None:
    """Answer only to *hosts*, and tell browsers what the page may do."""

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


def explain_errors(app: Flask, page: Path) -> None:
    """Answer errors in JSON, and tell a browser that a path is unknown with the file *page*."""

    @app.errorhandler(HTTPException)
    def explain(exc: HTTPException) -> Response:
        status = exc.code or 500
        if not _is_for_reading():
            answer = json_answer({"error": exc.description}, status)
        elif status == HTTPStatus.NOT_FOUND and page.is_file():
            answer = Response(page.read_bytes(), status, mimetype="text/html")
        else:
            answer = Response(exc.description, status, mimetype="text/plain")
        answer.headers.extend((k, v) for k, v in exc.get_headers() if k in ("Allow", "Retry-After"))
        return answer

    @app.errorhandler(TooLarge)
    def explain_too_large(exc: TooLarge) -> Response:
        return json_answer({"error": str(exc)}, 413)

    @app.errorhandler(Busy)
    def explain_busy(exc: Busy) -> Response:
        answer = json_answer({"error": str(exc)}, 503)
        answer.headers["Retry-After"] = "1"
        return answer

    @app.errorhandler(sqlite3.OperationalError)
    def explain_database(exc: sqlite3.OperationalError) -> Response:
        return json_answer({"error": f"cannot read the database: {exc}"}, 503)

    @app.errorhandler(QueryError)
    def explain_query(exc: QueryError) -> Response:
        return json_answer({"error": str(exc), "position": exc.position}, 400)

    @app.errorhandler(ValueError)
    def explain_value(exc: ValueError) -> Response:
        return json_answer({"error": str(exc)}, 400)


def _is_for_reading() -> bool:
    """Return whether a browser shows the answer to a person, beyond the API."""
    accepted = request.accept_mimetypes
    is_page = accepted["text/html"] > accepted["application/json"]
    return is_page and not request.path.startswith(("/api/", "/v1/"))
