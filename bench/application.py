"""The application that is measured: a task that does nothing, and a page that publishes it."""

import json
import os
import time
from array import array
from pathlib import Path

from celery import Celery
from flask import Flask, Response, jsonify

from .measure import Usage
from .names import BROKER, MARKS
from .variants import chosen

__all__ = ["NO_FLUSH", "app", "create_app"]

#: A mark that sends nothing: there is nobody to send to.
NO_FLUSH = "away"

app = Celery("bench", broker=os.environ[BROKER])
app.conf.update(
    broker_connection_retry_on_startup=True,
    task_ignore_result=True,
    worker_hijack_root_logger=False,
)
chosen().instrument_queue(app)

_starts = array("d")


@app.task
def nothing() -> None:
    """Do nothing."""


@app.task
def timed() -> None:
    """Note when it began."""
    _starts.append(time.perf_counter())


@app.task
def mark(name: str) -> None:
    """Send what is there to send, and note what this process and its helpers have used so far."""
    if name != NO_FLUSH:
        chosen().flush()
    until = time.process_time()
    line = {"mark": name, "starts": list(_starts), "cpu until": until, **Usage.now().as_json()}
    with Path(os.environ[MARKS]).open("a") as marks:
        marks.write(json.dumps(line) + "\n")
    del _starts[:]


def create_app() -> Flask:
    """Make the web application: gunicorn finds it."""
    web = Flask(__name__)

    @web.get("/ping")
    def ping() -> tuple[Response, int]:
        return jsonify(task_id=nothing.delay().id), 202

    chosen().instrument_web(web)
    return web
