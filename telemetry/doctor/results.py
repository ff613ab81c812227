"""Check the result backend, which ``delay().get()`` needs on both sides."""

import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from celery import Celery, uuid
from celery.backends.base import DisabledBackend
from celery.backends.cache import CacheBackend
from celery.backends.rpc import RPCBackend
from celery.exceptions import ImproperlyConfigured
from celery.exceptions import TimeoutError as ResultTimeout

from .bounded import within
from .broker import TIMEOUT, is_login, reason, refusal
from .finding import Finding


def wants_results(app: Celery) -> bool:
    """Return whether *app* has a result backend and uses it by default.

    A message of protocol 1 cannot ask for a result of the doctor's task, which ignores it.
    """
    conf = app.conf
    return (
        not conf.task_ignore_result
        and not isinstance(app.backend, DisabledBackend)
        and conf.task_protocol != 1
    )


def check_result_backend(app: Celery) -> Finding | None:
    """Look up a result once, as ``AsyncResult.get`` does."""
    try:
        if not wants_results(app):
            return None
    except (ImportError, ImproperlyConfigured, KeyError, ValueError) as exc:
        return Finding(
            "result-backend-unknown", "queue",
            f"the result_backend of this Celery app is not usable ({reason(exc)})",
            "correct the URL (percent-encode the characters @ / # ? % in its password), or install "
            "the backend: celery[redis], celery[mongodb], …",
        )  # fmt: skip
    if isinstance(app.backend, CacheBackend) and app.backend.backend == "memory":
        return Finding(
            "result-backend-in-memory", "queue",
            f"{backend_of(app)} is a result backend inside one process: get() never returns",
            "set result_backend to a store that both sides reach, or to rpc://; or set "
            "task_ignore_result if nobody reads results",
        )  # fmt: skip
    failed = _fails_within(TIMEOUT, lambda: app.backend.get_task_meta(uuid()))
    if failed is None:
        return None
    uri, why = backend_of(app), reason(failed)
    if is_login(failed):
        return Finding(
            "result-backend-login", "queue", f"the result backend {uri} refuses this login ({why})",
            "correct the user and password in the Celery app's result_backend",
        )  # fmt: skip
    return Finding(
        "result-backend-unreachable", "queue",
        f"the result backend {uri} does not answer ({why}): delay() or get() raises",
        known if (known := refusal(failed))
        else "start it, correct result_backend, or set task_ignore_result if nobody reads results",
    )  # fmt: skip


def backend_of(app: Celery) -> str:
    """Return the URL of the result backend of *app* without its password."""
    try:
        uri = app.backend.as_uri(include_password=False)
    except Exception:
        return "of this Celery app"
    return str(uri) if uri else type(app.backend).__name__


def _fails_within(seconds: float, call: Any) -> BaseException | None:
    """Return what *call* raises, or TimeoutError after *seconds*."""
    try:
        within(seconds, call)
    except BaseException as exc:
        return exc
    return None


def check_result(
    app: Celery, result: Any, deadline: float, worker_backends: set[str]
) -> Iterator[Finding]:
    """Wait for the *result* of a task that has run, until *deadline* on the monotonic clock."""
    try:
        result.get(timeout=max(1.0, min(TIMEOUT, deadline - time.monotonic())))
    except Exception as exc:
        yield _missing(app, None if isinstance(exc, ResultTimeout) else exc, worker_backends)
    with suppress(Exception):
        result.forget()


def _missing(app: Celery, failed: BaseException | None, worker_backends: set[str]) -> Finding:
    """Report a result that did not arrive, or that raised *failed* when it was read."""
    mine = backend_of(app)
    others = ", ".join(sorted(worker_backends - {mine}))
    if failed is None and not others and not isinstance(app.backend, RPCBackend):
        # A server that answers may still refuse to store.
        failed = _fails_within(TIMEOUT, lambda: _store(app))
    why = f": the worker stores results in {others}" if others else ""
    return Finding(
        "result-missing", "worker",
        f"the task ran, and its result is not in {mine}{f': {reason(failed)}' if failed else why}",
        known if (known := refusal(failed))
        else "set the same result_backend, with its transport options, and result_serializer on "
        "both sides, or task_ignore_result if nobody reads results",
    )  # fmt: skip


def _store(app: Celery) -> None:
    """Store a result as a worker does, and delete it."""
    task_id = uuid()
    app.backend.store_result(task_id, None, "SUCCESS")
    app.backend.forget(task_id)
