"""Hop 4 of 5: CONSUMER. A worker runs the task, in the trace that its message brought."""

import sys
import time
from collections.abc import Mapping
from contextvars import Token
from dataclasses import dataclass
from typing import Any

from billiard import current_process
from celery import Celery, Task, states
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.semconv._incubating.metrics.messaging_metrics import (
    MESSAGING_CLIENT_CONSUMED_MESSAGES,
    MESSAGING_PROCESS_DURATION,
)
from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE
from opentelemetry.trace import Link, Span, SpanContext, SpanKind
from opentelemetry.util.types import AttributeValue

from .. import faults
from ..hop import error_type, fail, record, start
from ..propagation import LINKS, RELATION, SENT_AT, extract, parse_links
from ..setup import measure
from .chord import watch_chord
from .message import (
    CELERY_REDELIVERED,
    CELERY_TASK_ITEMS,
    CELERY_TASK_STATE,
    Broker,
    facts,
    measured,
    of_task,
    wire,
)
from .waits import Waits, parse_eta, parse_time, waits

__all__ = ["Consumer", "Run", "current_run"]

#: When the worker's main process took the message; from there to the child, never on the wire.
RECEIVED_AT = "queuehop-received-at"

#: Where a run lives: on ``task.request``, as long as the task does.
_ON_REQUEST = "queuehop_run"

#: Where the code inside of a run finds it: in the context, which follows threads and greenlets.
_IN_CONTEXT = "queuehop-run"


@dataclass(slots=True)
class Run:
    """One attempt at a task: its span, and the context that its code runs in."""

    span: Span
    context: Context
    metric: dict[str, AttributeValue]
    waits: Mapping[str, float]
    started: float
    token: Token[Context] | None = None

    def attach(self) -> None:
        """Make the run current."""
        self.token = otel_context.attach(self.context)

    def detach(self) -> None:
        """Make current again what was before."""
        if self.token is not None:
            otel_context.detach(self.token)
            self.token = None

    def fail(self, exc: BaseException) -> None:
        """Mark the run as failed by *exc*."""
        fail(self.span, exc)
        self.metric[ERROR_TYPE] = error_type(exc)

    def end(self) -> None:
        """Count and time the run, and end the span."""
        if self.metric:
            seconds = max(0.0, time.time() - self.started)
            counts = {MESSAGING_CLIENT_CONSUMED_MESSAGES: 1, MESSAGING_PROCESS_DURATION: seconds}
            measure({**counts, **self.waits}, self.metric, self.span)
        self.span.end()


def current_run() -> tuple[object, SpanContext] | None:
    """Return the task id and the span context of the run that the caller is inside of."""
    run = otel_context.get_value(_IN_CONTEXT)
    return run if isinstance(run, tuple) else None


class Consumer:
    """Traces what one Celery app runs."""

    def __init__(self, app: Celery, relation: str) -> None:
        self._app = app
        self._broker = Broker(app)
        self._relation = relation

    def on_received(self, request: Any, **_: Any) -> None:
        """Note when the main process took the message: Celery's ``task_received``."""
        if request.app is self._app:
            request.request_dict[RECEIVED_AT] = time.time()

    def on_prerun(self, task: Task, **_: Any) -> None:
        """Start the run and make it current: Celery's ``task_prerun``."""
        if task.app is not self._app:
            return
        try:
            request = task.request
            run = self.begin(task.name, vars(request), eager=request.is_eager)
            setattr(request, _ON_REQUEST, run)
            run.attach()
            if request.chord and not request.is_eager:
                watch_chord(task.backend)
        except Exception:
            faults.report("start the span of a run")

    def on_postrun(self, task: Task, state: str | None, retval: Any, **_: Any) -> None:
        """End the run as the task ended: Celery's ``task_postrun``, sent on every way out."""
        run: Run | None = vars(task.request).pop(_ON_REQUEST, None)
        if run is None:
            return
        run.detach()
        if state is None and current_process().daemon:
            # A child on its way out, by itself or killed: the main process sees that and reports.
            return
        try:
            _set_outcome(run, task, state, retval)
        except Exception:
            faults.report("say how a run ended")
        finally:
            run.end()

    def begin(
        self,
        task: str,
        message: Mapping[str, Any],
        *,
        eager: bool = False,
        started: float | None = None,
    ) -> Run:
        """Start the run of *task* from its *message*: the headers and what the worker added.

        *started* is a Unix time in seconds, now if absent. An eager run has no message of its own
        and goes on in the caller's context.
        """
        own = wire(message)
        context, links = (otel_context.get_current(), []) if eager else self._origin(own)
        delivery = message.get("delivery_info") or {}
        attributes = facts(delivery.get("routing_key"), message)
        metric: dict[str, AttributeValue] = {}
        waited: Mapping[str, float] = {}
        since = started or time.time()
        if eager:
            attributes |= of_task("process", task)
        else:
            attributes |= self._broker.fixed("process", task)
            metric = measured(attributes)
            found = _waits(message, own, since)
            attributes |= found.attributes()
            waited = found.known()
        if delivery.get("redelivered"):
            attributes[CELERY_REDELIVERED] = True
        if task in ("celery.map", "celery.starmap"):
            attributes |= _items(message)
        span = start(
            f"process {task}",
            SpanKind.CONSUMER,
            context=context,
            attributes=attributes,
            links=links,
            start_time=int(started * 1e9) if started else None,
        )
        task_id = message.get("id")
        context = trace.set_span_in_context(span, context)
        context = otel_context.set_value(_IN_CONTEXT, (task_id, span.get_span_context()), context)
        return Run(span, context, metric, waited, since)

    def _origin(self, own: Mapping[str, Any]) -> tuple[Context, list[Link]]:
        """Return the context that the run starts in, and what it links to."""
        context = extract(own)
        send = trace.get_current_span(context).get_span_context()
        origins = [send, *parse_links(own.get(LINKS))]
        links = [Link(origin) for origin in origins if origin.is_valid]
        relation = own.get(RELATION)
        if (relation if relation in ("child", "link") else self._relation) == "link":
            context = trace.set_span_in_context(trace.INVALID_SPAN, context)
        return context, links


def _waits(message: Mapping[str, Any], own: Mapping[str, Any], started: float) -> Waits:
    return waits(
        sent=parse_time(own.get(SENT_AT)),
        eta=parse_eta(message.get("eta")),
        received=parse_time(message.get(RECEIVED_AT)),
        started=started,
    )


def _items(message: Mapping[str, Any]) -> dict[str, Any]:
    """Count what ``map``, ``starmap`` and each piece of ``chunks`` go through in one run."""
    try:
        return {CELERY_TASK_ITEMS: len(message["kwargs"]["it"])}
    except (KeyError, TypeError):
        return {}


def _set_outcome(run: Run, task: Task, state: str | None, retval: Any) -> None:
    if state is None:
        # Neither result nor failure: SystemExit or a killed greenlet, on its way through.
        if (exc := sys.exception()) is not None:
            run.fail(exc)
        return
    run.span.set_attribute(CELERY_TASK_STATE, state)
    cause = getattr(retval, "exc", None) if state == states.RETRY else retval
    if state not in _FAILED or not isinstance(cause, BaseException):
        return
    if state == states.FAILURE and isinstance(cause, tuple(task.throws or ())):
        record(run.span, cause)
    else:
        run.fail(cause)


_FAILED = (states.RETRY, states.FAILURE, states.REJECTED)
