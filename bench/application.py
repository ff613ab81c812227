"""The application that is measured: a task that does nothing, and a page that publishes it."""

import gc
import json
import os
import time
from array import array
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from celery import Celery
from flask import Flask, Response, jsonify

from .cachegrind import snapshot
from .measure import Usage
from .names import BROKER, MARKS
from .variants import chosen

#: A mark that sends nothing: there is nobody to send to.
NO_FLUSH = "away"

app = Celery("bench", broker=os.environ[BROKER])
app.conf.update(
    broker_connection_retry_on_startup=True,
    # Valgrind slows a program down, so what runs by the clock would be counted for each task.
    broker_transport_options={"unacked_restore_interval": 86_400},
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
    _note({"mark": name, "starts": list(_starts), "cpu until": until, **Usage.now().as_json()})
    del _starts[:]


@app.task
def count(begin: bool) -> None:
    """Have Valgrind print what this process has done so far, all spans until now included."""
    _note({"snapshot": take_snapshot(begin)})


def take_snapshot(begin: bool) -> int:
    """Take a snapshot (see ``bench.cachegrind``), all spans until now included.

    *begin* is whether counting begins here. Garbage is collected then, so that each variant has
    the same collections while it is counted.
    """
    chosen().settle()
    if begin:
        gc.collect()
    return snapshot()


def _note(line: Mapping[str, Any]) -> None:
    with Path(os.environ[MARKS]).open("a") as marks:
        marks.write(json.dumps(line) + "\n")


def create_app() -> Flask:
    """Make the web application: gunicorn finds it."""
    web = Flask(__name__)

    @web.get("/ping")
    def ping() -> tuple[Response, int]:
        return jsonify(task_id=nothing.delay().id), 202

    chosen().instrument_web(web)
    return web
