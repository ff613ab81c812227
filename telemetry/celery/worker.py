"""Hop 4, seen from the worker's main process: the attempts that no child lives to tell of.

A child that is killed reports nothing, and a message that never reaches one has no run. The main
process knows both, and has the message: it reports in the trace that the headers name.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

from billiard.einfo import ExceptionWithTraceback
from celery import Celery, bootsteps, states
from celery.exceptions import NotRegistered, Terminated, TimeLimitExceeded, WorkerLostError
from celery.utils.imports import symbol_by_name
from opentelemetry.context import Context
from opentelemetry.proto.trace.v1.trace_pb2 import Span as ProtoSpan
from opentelemetry.semconv._incubating.attributes.messaging_attributes import (
    MESSAGING_MESSAGE_ID,
)
from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE
from opentelemetry.trace import (
    INVALID_SPAN_CONTEXT,
    NonRecordingSpan,
    SpanContext,
    StatusCode,
    TraceFlags,
)

from .. import faults
from ..current import attach, detach
from ..hop import error_type
from ..propagation import SPAN_KEY, arrived
from ..setup import kept
from .chord import watch_chord
from .consumer import Consumer
from .message import CELERY_TASK_STATE, wire
from .run import RECEIVED_AT, Run

__all__ = ["Worker"]

EXPIRED = "EXPIRED"
UNKNOWN = "UNKNOWN"

#: What a child that is gone, or going, looks like from here.
_LOST = (TimeLimitExceeded, WorkerLostError, Terminated, SystemExit, KeyboardInterrupt)

#: Celery reckons when a child began from another clock: by so many seconds it may be too late.
CLOCKS_DIFFER = 0.001

_SAMPLED = TraceFlags(TraceFlags.SAMPLED)

_ON_REQUEST = "queuehop_run"
_SUCCEEDED = "queuehop_succeeded"


class Worker:
    """Reports for one Celery app what happens in the main process of its workers."""

    def __init__(self, app: Celery, consumer: Consumer) -> None:
        self._app = app
        self._consumer = consumer
        report = self

        class Watch(bootsteps.Step):
            """Built with the consumer, before any message comes."""

            def __init__(self, consumer: Any, **options: Any) -> None:
                super().__init__(consumer, **options)
                report.watch(consumer)

        app.steps["consumer"].add(Watch)

    def watch(self, consumer: Any) -> None:
        """Hook into the requests and the decoding of one Celery *consumer*."""
        traced = cache(self._traced_request)
        for task in consumer.app.tasks.values():
            task.Request = traced(symbol_by_name(task.Request))
            task.start_strategy = _taken(task.start_strategy)
        consumer.on_decode_error = self._on_decode_error(consumer.on_decode_error)

    def _traced_request(self, base: type[Any]) -> type[Any]:
        worker = self

        class Request(base):
            """Celery's view of one message in the main process; a lost child is reported."""

            def on_timeout(self, soft: bool, timeout: float) -> Any:
                if soft:
                    return super().on_timeout(soft, timeout)
                with worker.lost(self, TimeLimitExceeded(timeout)):
                    return super().on_timeout(soft, timeout)

            def on_failure(
                self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False
            ) -> Any:
                exc = exc_info.exception
                exc = exc.exc if isinstance(exc, ExceptionWithTraceback) else exc
                if return_ok or not isinstance(exc, _LOST):
                    return super().on_failure(exc_info, send_failed_event, return_ok)
                with worker.lost(self, exc):
                    return super().on_failure(exc_info, send_failed_event, return_ok)

            def _success_was_stored(self) -> Any:
                meta = super()._success_was_stored()
                setattr(self, _SUCCEEDED, bool(meta))
                return meta

        return Request

    @contextmanager
    def lost(self, request: Any, exc: BaseException) -> Iterator[None]:
        """Report the attempt of *request* that *exc* ended, and be inside of it meanwhile.

        Celery may tell of one death twice; it is one run. What Celery publishes on account of it,
        an errback or a retry, goes out under that run.
        """
        known: Run | None = getattr(request, _ON_REQUEST, None)
        try:
            run = known or self._begin_lost(request)
        except Exception:
            faults.report("report a lost run")
            yield
            return
        token = attach(run.inside())
        try:
            yield
        finally:
            detach(token)
            if known is None:
                self._end_lost(request, run, exc)

    def _begin_lost(self, request: Any) -> Run:
        message = request.request_dict
        run = _told_by_child(request) or self._consumer.begin(
            request.task.name, message, started=request.time_start
        )
        setattr(request, _ON_REQUEST, run)
        if request.chord:
            watch_chord(request.task.backend)
        return run

    def _end_lost(self, request: Any, run: Run, exc: BaseException) -> None:
        if getattr(request, _SUCCEEDED, False):
            state = states.SUCCESS
        else:
            # Celery's own words for why it ended a child, rather than how the child took it.
            if request._already_revoked:
                exc = Terminated()
            state = states.REVOKED if isinstance(exc, Terminated) else states.FAILURE
            run.fail(exc)
        run.end(state)

    def on_revoked(
        self, sender: Any, request: Any, terminated: bool, expired: bool, **_: Any
    ) -> None:
        """Report a message that was revoked or expired before it ran: ``task_revoked``."""
        # One that was running is reported when its child is gone.
        if sender.app is self._app and not terminated:
            state = EXPIRED if expired else states.REVOKED
            self._never_ran(sender.name, vars(request), state)

    def on_unknown(self, sender: Any, message: Any, name: str, **_: Any) -> None:
        """Report a message for a task that this worker does not have: ``task_unknown``."""
        if sender.app is self._app:
            self._never_ran(name, _fields(message), UNKNOWN, error_type(NotRegistered()))

    def on_rejected(self, sender: Any, message: Any, exc: Any, **_: Any) -> None:
        """Report a message that is no task or whose task is malformed: ``task_rejected``."""
        if sender.app is self._app:
            error = error_type(exc) if isinstance(exc, BaseException) else "unknown_message"
            self._never_ran(_name(message), _fields(message), states.REJECTED, error)

    def _on_decode_error(self, decode_error: Callable[..., Any]) -> Callable[..., Any]:
        def on_decode_error(message: Any, exc: BaseException) -> Any:
            error = error_type(exc)
            self._never_ran(_name(message), _fields(message), states.REJECTED, error)
            return decode_error(message, exc)

        return on_decode_error

    def _never_ran(
        self, name: str, message: Mapping[str, Any], state: str, error: str | None = None
    ) -> None:
        try:
            run = self._consumer.begin(name, message)
            run.span.set_attribute(CELERY_TASK_STATE, state)
            if error is not None:
                run.span.set_status(StatusCode.ERROR, error)
                run.span.set_attribute(ERROR_TYPE, error)
            run.span.end()
        except Exception:
            faults.report("report a message that did not run")


def _told_by_child(request: Any) -> Run | None:
    """Return the run of *request* if its child had ended it, and was lost only then.

    Its span is on disk already, and nothing is added to it.
    """
    if request.time_start is None:
        return None
    since = (request.time_start - CLOCKS_DIFFER) * 1e9
    for encoded in kept():
        if request.id.encode() not in encoded:
            continue
        span = ProtoSpan.FromString(encoded)
        if _is_run(span, request.id) and span.start_time_unix_nano >= since:
            trace_id, span_id = int.from_bytes(span.trace_id), int.from_bytes(span.span_id)
            told = NonRecordingSpan(SpanContext(trace_id, span_id, False, _SAMPLED))
            return Run(request.id, told, Context(), None, (), request.time_start)
    return None


def _is_run(span: ProtoSpan, task_id: str) -> bool:
    return span.kind == ProtoSpan.SPAN_KIND_CONSUMER and any(
        attribute.key == MESSAGING_MESSAGE_ID and attribute.value.string_value == task_id
        for attribute in span.attributes
    )


def _taken(start_strategy: Callable[..., Any]) -> Callable[..., Any]:
    """Let a task's messages say when they were taken, and be taken in the context that they bring.

    Log lines then say in which.
    """

    def start(app: Any, consumer: Any, **options: Any) -> Callable[..., Any]:
        take = start_strategy(app, consumer, **options)

        def take_in_context(message: Any, body: Any, *args: Any, **options: Any) -> Any:
            now = time.time()
            # Celery makes its request of one or the other, as the message's protocol has it.
            for headers in (message.headers, body):
                if type(headers) is dict:
                    headers[RECEIVED_AT] = now
            token = attach(Context({SPAN_KEY: _Arriving(message)}))
            try:
                return take(message, body, *args, **options)
            finally:
                detach(token)

        return take_in_context

    return start


class _Arriving(NonRecordingSpan):
    """The span that *message* names, read only if somebody asks: most are not logged."""

    _context = INVALID_SPAN_CONTEXT

    def __init__(self, message: Any) -> None:
        self._message = message

    def get_span_context(self) -> SpanContext:
        parent, _ = arrived(wire(_fields(self._message)))
        return parent or INVALID_SPAN_CONTEXT


def _fields(message: Any) -> dict[str, Any]:
    """Return the headers of a raw kombu *message*, with how it was delivered."""
    headers = message.headers if isinstance(message.headers, Mapping) else {}
    return {**headers, "delivery_info": message.delivery_info or {}}


def _name(message: Any) -> str:
    """Return the task's name, as far as the message has one that can be a span's name."""
    name = _fields(message).get("task")
    return name if isinstance(name, str) and name else "unknown"
