"""Whether results come back: ``delay().get()`` needs the result backend at both ends."""

import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from celery import Celery, uuid
from celery.backends.base import DisabledBackend
from celery.exceptions import ImproperlyConfigured
from celery.exceptions import TimeoutError as ResultTimeout

from .broker import TIMEOUT, is_login, reason
from .finding import Finding

__all__ = ["backend_of", "check_result", "check_result_backend", "wants_results"]


def wants_results(app: Celery) -> bool:
    """Return whether tasks of *app* store results: it has a result backend, and uses it."""
    return not app.conf.task_ignore_result and not isinstance(app.backend, DisabledBackend)


def check_result_backend(app: Celery) -> Finding | None:
    """Look up a result once, as ``AsyncResult.get`` does."""
    try:
        if not wants_results(app):
            return None
    except (ImportError, ImproperlyConfigured, KeyError, ValueError) as exc:
        return Finding(
            "result-backend-unknown", "queue",
            f"the result_backend of this Celery app cannot be used ({reason(exc, None)})",
            "correct the URL, or install what it needs: celery[redis], celery[mongodb], …",
        )  # fmt: skip
    failed = _fails_within(TIMEOUT, lambda: app.backend.get_task_meta(uuid()))
    if failed is None:
        return None
    uri, why = backend_of(app), reason(failed, None)
    if is_login(failed):
        return Finding(
            "result-backend-login", "queue", f"the result backend {uri} refuses this login ({why})",
            "correct user and password in the Celery app's result_backend",
        )  # fmt: skip
    return Finding(
        "result-backend-unreachable", "queue",
        f"the result backend {uri} does not answer ({why}): delay() or get() raises",
        "start it, correct result_backend, or set task_ignore_result if nobody reads results",
    )  # fmt: skip


def backend_of(app: Celery) -> str:
    """Return the URL of the result backend of *app* without its password."""
    try:
        uri = app.backend.as_uri(include_password=False)
    except Exception:
        return "of this Celery app"
    return str(uri) if uri else type(app.backend).__name__


def _fails_within(seconds: float, call: Any) -> BaseException | None:
    """Call *call* in a thread; return what it raises, or that it takes longer than *seconds*.

    Clients of result backends retry for as long as they are configured to.
    """
    outcome: list[BaseException | None] = []

    def run() -> None:
        try:
            call()
        except BaseException as exc:
            outcome.append(exc)
        else:
            outcome.append(None)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    return outcome[0] if outcome else TimeoutError(f"no answer in {seconds:g} s")


def check_result(
    app: Celery, result: Any, deadline: float, worker_backends: set[str]
) -> Iterator[Finding]:
    """Wait for the *result* of a task that has run, until *deadline* on the monotonic clock."""
    try:
        result.get(timeout=max(1.0, min(TIMEOUT, deadline - time.monotonic())))
    except Exception as exc:
        timed_out = isinstance(exc, ResultTimeout)
        mine = backend_of(app)
        others = ", ".join(sorted(worker_backends - {mine}))
        yield Finding(
            "result-missing", "worker",
            f"the task ran, and its result did not arrive from {mine}"
            + ("" if timed_out else f" ({reason(exc, None)})")
            + (f": the worker stores results in {others}" if others else ""),
            "set the same result_backend and result_serializer in the worker, "
            "or task_ignore_result if nobody reads results",
        )  # fmt: skip
    with suppress(Exception):
        result.forget()
