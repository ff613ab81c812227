"""Hop 2 of 5: SERVER. The HTTP side. ``flask run`` finds ``create_app`` without ``FLASK_APP``."""

import logging
from urllib.parse import quote

from flask import Flask, Response, request

import telemetry
from telemetry.flask import instrument_flask

logger = logging.getLogger(__name__)

#: The largest body of a request, in bytes. No route reads one.
LARGEST_BODY = 16 * 1024

#: No page of this application may be shown in a frame or cached.
SECURITY = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

FORMAT = "[%(asctime)s: %(levelname)s/%(name)s] [trace=%(trace_id)s span=%(span_id)s] %(message)s"


def create_app() -> Flask:
    """Return the web application, traced and with its log set up."""
    # Imported here, because the client is in this package too and needs no queue.
    from workers.celery import app as celery

    from .task_queue import TaskQueue
    from .views import views

    telemetry.setup("queuehop-web")
    _log()
    app = Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = LARGEST_BODY
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.extensions["task_queue"] = TaskQueue(celery)
    app.register_blueprint(views)
    app.after_request(_finish)
    return instrument_flask(app)


def _log() -> None:
    logging.basicConfig(level=logging.INFO, format=FORMAT)
    logging.getLogger("werkzeug").addFilter(_is_no_access_line)


def _is_no_access_line(record: logging.LogRecord) -> bool:
    # Werkzeug writes its line after the request's span has ended; ours has the span's ids.
    return '"%s" %s %s' not in str(record.msg)


def _finish(response: Response) -> Response:
    response.headers.update(SECURITY)
    logger.info("%s %s %s", request.method, quote(request.path), response.status_code)
    return response
