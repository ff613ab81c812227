"""The routes: ``/ping`` enqueues a task, ``/ping/<task_id>`` returns its state."""

import re
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from celery import Task, states
from flask import Blueprint, Response, current_app, jsonify, request, url_for
from opentelemetry import trace
from opentelemetry.trace import format_trace_id
from werkzeug.exceptions import HTTPException

from workers import tasks

from .task_queue import Result, TaskQueue, Unreachable

views = Blueprint("views", __name__)

TASKS: Mapping[str, Task] = {"ping": tasks.ping, "retry": tasks.retry, "fail": tasks.fail}

#: The longest time that a request waits for its result, in seconds.
LONGEST_WAIT = 30

#: Seconds after which a client may retry while the broker is down.
RETRY_AFTER = 5


@views.get("/ping")
def ping() -> Response:
    """Enqueue a task; with ``wait``, wait for its result."""
    task = _task(_parameter("task"))
    length = _length(_parameter("length"))
    seconds = _wait(_parameter("wait"))

    task_id = _task_queue().publish(task, length=length)
    if seconds is None:
        return _answer(202, task_id)
    result = _task_queue().wait(task_id, seconds)
    if not result.is_ready:
        message = f"the task has not finished within {seconds:g} s"
        return _answer(504, task_id, state=result.state, error={"message": message})
    return _answer(200 if result.state == states.SUCCESS else 502, task_id, **_describe(result))


@views.get("/ping/<uuid:task_id>")
def status(task_id: UUID) -> Response:
    """Return the state of a task."""
    result = _task_queue().result(str(task_id))
    return jsonify(task_id=str(task_id), **_describe(result))


@views.get("/healthz")
def health() -> tuple[Response, int]:
    """Return whether the broker and a worker answer."""
    broker, worker = _task_queue().health()
    return jsonify(broker=broker, worker=worker), 200 if broker and worker else 503


def _task_queue() -> TaskQueue:
    task_queue: TaskQueue = current_app.extensions["task_queue"]
    return task_queue


def _answer(code: int, task_id: str, **more: Any) -> Response:
    trace_id = format_trace_id(trace.get_current_span().get_span_context().trace_id)
    # If the request names no valid host, the URL is the path alone.
    status_url = url_for("views.status", task_id=task_id, _external=bool(request.host))
    response = jsonify(task_id=task_id, trace_id=trace_id, status_url=status_url, **more)
    response.status_code = code
    response.location = status_url
    return response


def _describe(result: Result) -> dict[str, Any]:
    if result.error is not None:
        return {"state": result.state, "error": {"type": result.error}}
    if result.state == states.SUCCESS:
        return {"state": result.state, "result": result.value}
    return {"state": result.state}


class WrongParameter(Exception):
    """A parameter has a value that is not allowed."""

    def __init__(self, name: str, rule: str) -> None:
        super().__init__(f"{name} must be {rule}")
        self.name = name


def _parameter(name: str) -> str | None:
    values = request.args.getlist(name)
    if len(values) > 1:
        raise WrongParameter(name, "a single value")
    return values[0] if values else None


def _task(value: str | None) -> Task:
    if (task := TASKS.get("ping" if value is None else value)) is None:
        raise WrongParameter("task", f"one of {', '.join(TASKS)}")
    return task


def _length(value: str | None) -> int | None:
    if value is None:
        return None
    if not re.fullmatch("[0-9]{1,9}", value) or int(value) not in tasks.LENGTHS:
        shortest, longest = tasks.LENGTHS[0], tasks.LENGTHS[-1]
        raise WrongParameter("length", f"a whole number from {shortest} to {longest}")
    return int(value)


def _wait(value: str | None) -> float | None:
    if value is None:
        return None
    if (
        not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{0,9})?|\.[0-9]{1,9}", value)
        or float(value) > LONGEST_WAIT
    ):
        raise WrongParameter("wait", f"a number of seconds from 0 to {LONGEST_WAIT}")
    return float(value)


@views.app_errorhandler(WrongParameter)
def _wrong_parameter(exc: WrongParameter) -> tuple[Response, int]:
    return jsonify(error={"message": str(exc), "parameter": exc.name}), 400


@views.app_errorhandler(Unreachable)
def _unreachable(exc: Unreachable) -> tuple[Response, int, dict[str, str]]:
    current_app.logger.error("the broker is down: %s", exc)
    error = {"message": "the broker is down: try again later"}
    return jsonify(error=error), 503, {"Retry-After": str(RETRY_AFTER)}


@views.app_errorhandler(HTTPException)
def _http_error(exc: HTTPException) -> Response:
    answer = jsonify(error={"message": exc.name})
    answer.status_code = exc.code or 500
    for name, value in exc.get_headers():
        if name not in ("Content-Type", "Content-Length"):
            answer.headers[name] = value
    return answer
