"""Hop 4 of 5: CONSUMER. A worker runs the task, in the trace that its message brought."""

import sys
import time
from collections.abc import Mapping, Sequence
from contextvars import Token
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

from billiard import current_process
from celery import Celery, Task, states
from opentelemetry import context as otel_context
from opentelemetry.context import Context
from opentelemetry.semconv._incubating.attributes.messaging_attributes import (
    MESSAGING_DESTINATION_NAME,
)
from opentelemetry.semconv._incubating.metrics.messaging_metrics import (
    MESSAGING_CLIENT_CONSUMED_MESSAGES,
    MESSAGING_PROCESS_DURATION,
)
from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE
from opentelemetry.trace import Span, SpanContext, SpanKind
from opentelemetry.util.types import AttributeValue

from .. import faults, otlp
from ..hop import error_type, fail, finish, parent_in, record, start
from ..light import Shape
from ..propagation import (
    LINKS,
    RELATION,
    SENT_AT,
    SPAN_KEY,
    TRACEPARENT,
    arrived,
    parse_links,
)
from ..series import Measured, Series, series
from .chord import watch_chord
from .message import (
    CELERY_REDELIVERED,
    CELERY_TASK_ITEMS,
    CELERY_TASK_STATE,
    Broker,
    Facts,
    measured,
    of_task,
    wire,
)
from .waits import PREFETCH, QUEUE, SCHEDULED, SKEWED, Waits, parse_eta, parse_time, waits

__all__ = ["Consumer", "Run", "current_run"]

#: When the worker's main process took the message; from there to the child, never on the wire.
RECEIVED_AT = "queuehop-received-at"

#: Where a run lives: on ``task.request``, as long as the task does.
_ON_REQUEST = "queuehop_run"

#: Where the code inside of a run finds it: in the context, which follows threads and greenlets.
_IN_CONTEXT = "queuehop-run"

_MEASURED = (MESSAGING_CLIENT_CONSUMED_MESSAGES, MESSAGING_PROCESS_DURATION)


@dataclass(slots=True)
class Run:
    """One attempt at the task of *id*: its span, and the *context* that its message brought.

    *series* is None where a run is not measured; *waits* are the last of its values.
    """

    id: object
    span: Span
    context: Context
    series: Series | None
    waits: tuple[float, ...]
    started: float
    token: Token[Context] | None = None
    #: Where it stands while it lasts, under ``_ON_REQUEST``: the attributes of ``task.request``.
    request: dict[str, Any] | None = None

    def inside(self) -> Context:
        """Return the context that its code runs in."""
        return Context({**self.context, SPAN_KEY: self.span, _IN_CONTEXT: self})

    def fail(self, exc: BaseException) -> None:
        """Mark the run as failed by *exc*."""
        fail(self.span, exc)
        if self.series is not None:
            attributes = {**self.series.attributes, ERROR_TYPE: error_type(exc)}
            self.series = series(self.series.names, attributes)

    def end(self) -> None:
        """Count and time the run, and end the span."""
        measured: Measured | None = None
        if self.series is not None:
            measured = self.series, (1, max(0.0, time.time() - self.started), *self.waits)
        finish(self.span, measured)


def current_run() -> Run | None:
    """Return the run that the caller is inside of."""
    run = otel_context.get_value(_IN_CONTEXT)
    return run if isinstance(run, Run) else None


class Consumer:
    """Traces what one Celery app runs."""

    def __init__(self, app: Celery, relation: str) -> None:
        self._app = app
        self._broker = Broker(app)
        self._relation = relation
        # What is the same for every message of a task in a queue is put together once.
        self._shape = lru_cache(maxsize=1024)(self._make_shape)
        self._series = lru_cache(maxsize=1024)(self._make_series)

    def on_prerun(self, task: Task, **_: Any) -> None:
        """Start the run and make it current: Celery's ``task_prerun``."""
        if task.app is not self._app:
            return
        try:
            request = task.request
            message = vars(request)
            eager = request.is_eager
            run = message[_ON_REQUEST] = self.begin(task.name, message, eager=eager)
            run.request = message
            run.token = otel_context.attach(run.inside())
            if request.chord and not eager:
                watch_chord(task.backend)
        except Exception:
            faults.report("start the span of a run")

    def on_postrun(
        self, task_id: str, task: Task, state: str | None, retval: Any, **_: Any
    ) -> None:
        """End the run as the task ended: Celery's ``task_postrun``, sent on every way out."""
        run = current_run()
        if run is None or run.id != task_id or run.token is None:
            # What the task left current is not its run. Celery takes longer to find its request.
            run = vars(task.request).get(_ON_REQUEST)
        if run is None or run.token is None:
            return
        token, run.token = run.token, None
        otel_context.detach(token)
        # The span refers to the request: with the run on it still, what the task held, such as the
        # connections of a greenlet, would be there until the collector comes.
        if run.request is not None:
            run.request.pop(_ON_REQUEST, None)
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
        since = started or time.time()
        delivery = message.get("delivery_info") or {}
        queue = delivery.get("routing_key")
        if not isinstance(queue, str):
            queue = None
        measured: Series | None = None
        links: Sequence[SpanContext] = ()
        if eager:
            context = otel_context.get_current()
            parent, facts = parent_in(context), RunFacts(message, None)
        else:
            own = message if TRACEPARENT in message else wire(message)
            parent, context, links = self._origin(own)
            facts = RunFacts(message, _waits(message, own, since))
            measured = self._series(task, queue, facts.names)
        attributes: dict[str, AttributeValue] = {}
        if delivery.get("redelivered"):
            attributes[CELERY_REDELIVERED] = True
        if task in ("celery.map", "celery.starmap"):
            attributes |= _items(message)
        span = start(
            self._shape(task, queue, eager),
            parent,
            context=context,
            attributes=attributes,
            facts=facts,
            links=links,
            start_time=int(started * 1e9) if started else None,
        )
        return Run(message.get("id"), span, context, measured, facts.values, since)

    def _origin(
        self, own: Mapping[str, Any]
    ) -> tuple[SpanContext | None, Context, Sequence[SpanContext]]:
        """Return the run's parent, the context that came with it, and what the run links to."""
        send, context = arrived(own)
        links = [] if send is None else [send]
        if LINKS in own:
            links += parse_links(own[LINKS])
        relation = own.get(RELATION)
        if (relation if relation in ("child", "link") else self._relation) == "link":
            return None, context, links
        return send, context, links

    def _make_shape(self, task: str, queue: str | None, eager: bool) -> Shape:
        said = of_task("process", task) if eager else self._broker.fixed("process", task)
        if queue:
            said[MESSAGING_DESTINATION_NAME] = queue
        return Shape(f"process {task}", SpanKind.CONSUMER, said)

    def _make_series(self, task: str, queue: str | None, waits: tuple[str, ...]) -> Series:
        said = measured(self._shape(task, queue, False).attributes)
        return Series((*_MEASURED, *waits), said)


class RunFacts(Facts):
    """What is said of one run alone: of its message, and how long that waited; None if unknown."""

    __slots__ = ("_skewed", "names", "values")

    keys: ClassVar[frozenset[str]] = frozenset({*Facts.keys, SCHEDULED, QUEUE, PREFETCH, SKEWED})

    #: The waits that are known, and their seconds.
    names: tuple[str, ...]
    values: tuple[float, ...]

    def __init__(self, message: Mapping[str, Any], waits: Waits | None) -> None:
        self.headers = message
        if waits is None:
            self.names, self.values, self._skewed = (), (), False
        else:
            scheduled, queue, prefetch, skewed = waits
            self._skewed = skewed
            if queue is None:
                self.names, self.values = _UNSENT, (scheduled, prefetch)
            else:
                self.names, self.values = _WAITS, (scheduled, queue, prefetch)

    def attributes(self) -> dict[str, AttributeValue]:
        waits = dict(zip(self.names, self.values, strict=True))
        skewed = {SKEWED: True} if self._skewed else {}
        return {**super().attributes(), **waits, **skewed}

    def encoded(self) -> bytes:
        encoded = Facts.encoded(self)
        if self.names is _WAITS:
            encoded += _encode_waits(self.values)
        elif self.names:
            encoded += otlp.encode_attributes(dict(zip(self.names, self.values, strict=True)))
        if self._skewed:
            encoded += otlp.encode_attributes({SKEWED: True})
        return encoded


_WAITS, _UNSENT = (SCHEDULED, QUEUE, PREFETCH), (SCHEDULED, PREFETCH)
_encode_waits = otlp.three_doubles(*_WAITS)


def _waits(message: Mapping[str, Any], own: Mapping[str, Any], started: float) -> Waits:
    eta = message.get("eta")
    return waits(
        parse_time(own.get(SENT_AT)),
        parse_eta(eta) if eta else None,
        parse_time(message.get(RECEIVED_AT)),
        started,
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
