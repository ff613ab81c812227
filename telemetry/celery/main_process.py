"""Hop 4, in the worker's main process: attempts that no child can report.

A child that is killed reports nothing, and a message that never reaches one has no run. The main
process knows of both and has the message: it reports them in the trace that the headers name.
"""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

from billiard.einfo import ExceptionWithTraceback
from celery import Celery, bootsteps, signals, states
from celery.exceptions import NotRegistered, Terminated, TimeLimitExceeded, WorkerLostError
from celery.utils.imports import symbol_by_name
from opentelemetry.trace import NonRecordingSpan

from ..setup import sink
from ..tracing.faults import log_internal_error
from ..tracing.provider import SPAN_ID_MASK
from ..tracing.record import RunFacts
from ..tracing.span import error_type
from .arrival import headers_of, note_arrival
from .chord import watch_chord
from .consumer import RUN_TRACER, RunTracer
from .destination import queue_of
from .run import QUEUE, Run, id_bits

EXPIRED = "EXPIRED"
UNKNOWN = "UNKNOWN"

#: The exceptions by which Celery reports a child that has died or is ending.
_LOST = (TimeLimitExceeded, WorkerLostError, Terminated, SystemExit, KeyboardInterrupt)

#: The attribute of a request with the state that Celery has stored for a lost attempt, if it is
#: neither a failure nor a revocation.
_STATE = "queuehop_state"

#: Marks a traced class, so that a second worker in one process derives none from it.
_MARK = "queuehop_traced"


def trace_main_process(app: Celery) -> None:
    """Report what happens to messages in the main process of the workers of *app*."""
    app.steps["consumer"].add(_Watch)
    signals.task_revoked.connect(on_revoked, weak=False)
    signals.task_unknown.connect(on_unknown, weak=False)
    signals.task_rejected.connect(on_rejected, weak=False)


class _Watch(bootsteps.Step):
    """Celery builds it with its consumer, before any message arrives."""

    def __init__(self, consumer: Any, **options: Any) -> None:
        super().__init__(consumer, **options)
        for task in consumer.app.tasks.values():
            task.Request = _traced_request(symbol_by_name(task.Request))
            task.start_strategy = note_arrival(task.start_strategy)
        decode_error = consumer.on_decode_error

        def on_decode_error(message: Any, exc: BaseException) -> Any:
            on_rejected(consumer, message, exc)
            return decode_error(message, exc)

        consumer.on_decode_error = on_decode_error


@cache
def _traced_request(base: type[Any]) -> type[Any]:
    if hasattr(base, _MARK):
        return base

    class Request(base):
        """Celery's view of one message in the main process. It reports a lost child."""

        def on_timeout(self, soft: bool, timeout: float) -> Any:
            if soft:
                return super().on_timeout(soft, timeout)
            with _lost(self, TimeLimitExceeded(timeout)):
                return super().on_timeout(soft, timeout)

        def on_failure(
            self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False
        ) -> Any:
            exc = exc_info.exception
            exc = exc.exc if isinstance(exc, ExceptionWithTraceback) else exc
            if return_ok or not isinstance(exc, _LOST):
                return super().on_failure(exc_info, send_failed_event, return_ok)
            with _lost(self, exc):
                return super().on_failure(exc_info, send_failed_event, return_ok)

        def reject(self, requeue: bool = False) -> Any:
            if self.time_start is None and not hasattr(self, Run.attribute):
                # Rejected before it runs, as if its ``eta`` overflows.
                exc = sys.exception()
                error = error_type(exc) if exc is not None else None
                _never_ran(self.app, self.name, self.request_dict, states.REJECTED, error)
            return super().reject(requeue)

        def _success_was_stored(self) -> Any:
            meta = super()._success_was_stored()
            if meta:
                setattr(self, _STATE, states.SUCCESS)
            return meta

        def _retry_worker_lost(self, exc: BaseException, exc_info: Any) -> Any:
            is_retried = super()._retry_worker_lost(exc, exc_info)
            if is_retried:
                setattr(self, _STATE, states.RETRY)
            return is_retried

    setattr(Request, _MARK, True)
    return Request


@contextmanager
def _lost(request: Any, exc: BaseException) -> Iterator[None]:
    """Report the attempt of *request* that *exc* ended. Its run is current in the block.

    Celery may report one death twice; it is one run. An errback or a retry that Celery then
    publishes is under that run.
    """
    known: Run | None = getattr(request, Run.attribute, None)
    try:
        run = known or _start_lost(request)
    except Exception:
        log_internal_error("report a lost run")
        yield
        return
    run.attach(run.context)
    try:
        yield
    finally:
        run.detach()
        if known is None:
            _end_lost(request, run, exc)


def _start_lost(request: Any) -> Run:
    runs: RunTracer = getattr(request.app, RUN_TRACER)
    run = _reported_by_child(request) or runs.start(
        request.task.name, request.request_dict, started=request.time_start
    )
    run.message = request.request_dict
    setattr(request, Run.attribute, run)
    if request.chord:
        watch_chord(request.task.backend)
    return run


def _end_lost(request: Any, run: Run, exc: BaseException) -> None:
    state = getattr(request, _STATE, None)
    if state != states.SUCCESS:
        # Celery ended the child because the task was revoked, or because the connection to the
        # broker was lost and the message comes again: report that, not the signal.
        if request._already_revoked or request._already_cancelled:
            exc = Terminated()
            state = states.REVOKED if request._already_revoked else states.RETRY
        run.fail(exc)
        state = state or (states.REVOKED if isinstance(exc, Terminated) else states.FAILURE)
    run.facts.state = state
    run.end()


def _never_ran(
    app: Celery, name: str, message: Mapping[str, Any], state: str, error: str | None = None
) -> None:
    """Report a message that ended without a run, if *app* is instrumented."""
    runs: RunTracer | None = getattr(app, RUN_TRACER, None)
    if runs is None:
        return
    try:
        run = runs.start(name, message)
        run.facts.measured = False
        run.facts.state, run.facts.error = state, error
        if error is not None:
            run.set_error(error)
        run.end()
    except Exception:
        log_internal_error("report a message that did not run")


def on_revoked(sender: Any, request: Any, terminated: bool, expired: bool, **_: Any) -> None:
    """Report a message that was revoked or expired before it ran: ``task_revoked``."""
    if not terminated:  # one that was running is reported when its child is gone
        state = EXPIRED if expired else states.REVOKED
        _never_ran(sender.app, sender.name, vars(request), state)


def on_unknown(sender: Any, message: Any, name: str, id: Any, **_: Any) -> None:
    """Report a message for a task that this worker does not have: ``task_unknown``."""
    # In protocol 1, the id is not in the headers.
    fields = {**_fields(sender, message), "id": id}
    _never_ran(sender.app, name, fields, UNKNOWN, error_type(NotRegistered()))


def on_rejected(sender: Any, message: Any, exc: Any, **_: Any) -> None:
    """Report a message that is not a task, or whose task is malformed: ``task_rejected``."""
    error = error_type(exc) if isinstance(exc, BaseException) else "unknown_message"
    _never_ran(sender.app, _name(message), _fields(sender, message), states.REJECTED, error)


def _reported_by_child(request: Any) -> Run | None:
    """Return the run of *request* if the child had ended it before the child was lost.

    Its span is written already, and does not change.
    """
    ids = id_bits(request.request_dict)
    if request.time_start is None or not ids:
        return None
    for template, record in sink().recent_spans():
        facts = record.facts
        if isinstance(facts, RunFacts) and record.span_id == ids & SPAN_ID_MASK:
            run = Run(template, facts)
            run.id = request.id
            # Not a HopSpan: ``Hop.fail`` and ``Hop.end`` then write no second record.
            run.span = NonRecordingSpan(record.span_context())
            return run
    return None


def _fields(consumer: Any, message: Any) -> dict[str, Any]:
    """Return the headers of a raw kombu *message* that *consumer* took, and its delivery."""
    delivery = message.delivery_info or {}
    return {**headers_of(message), QUEUE: queue_of(consumer, message), "delivery_info": delivery}


def _name(message: Any) -> str:
    """Return the name of the task, ``unknown`` where the message has none."""
    name = headers_of(message).get("task")
    return name if isinstance(name, str) and name else "unknown"
