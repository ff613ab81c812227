"""Hop 4 of 5: CONSUMER. A worker runs the task, in the trace that its message brought."""

import sys
import time
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from billiard import current_process
from celery import Celery, Task, states
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.semconv._incubating.attributes.messaging_attributes import (
    MESSAGING_DESTINATION_NAME,
)
from opentelemetry.semconv._incubating.metrics.messaging_metrics import (
    MESSAGING_CLIENT_CONSUMED_MESSAGES,
    MESSAGING_PROCESS_DURATION,
)
from opentelemetry.trace import SpanContext, SpanKind
from opentelemetry.util.types import AttributeValue

from .. import faults
from ..current import attach, detach, get_current
from ..hop import parent_in, record, start
from ..light import Light, Shape
from ..propagation import LINKS, RELATION, TRACEPARENT, arrived, parse_links, reads_w3c_alone
from ..series import Series
from ..spool.template import Template
from .chord import watch_chord
from .message import (
    CELERY_REDELIVERED,
    CELERY_TASK_ITEMS,
    Broker,
    measured,
    of_task,
    wire,
)
from .plain import begin_plain, template_of
from .run import ALL_WAITS, Run, RunFacts, current_run, waited

__all__ = ["Consumer"]

#: Where a run lives: on ``task.request``, as long as the task does.
_ON_REQUEST = "queuehop_run"

_MEASURED = (MESSAGING_CLIENT_CONSUMED_MESSAGES, MESSAGING_PROCESS_DURATION)


class Consumer:
    """Traces what one Celery app runs."""

    def __init__(self, app: Celery, relation: str) -> None:
        self._app = app
        self._broker = Broker(app)
        self._relation = relation
        # What is the same for every message of a task in a queue is put together once.
        self._shape = lru_cache(maxsize=1024)(self._make_shape)
        self._series = lru_cache(maxsize=1024)(self._make_series)
        self._plain = lru_cache(maxsize=1024)(self._make_plain)

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
            run.token = attach(run.inside())
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
        detach(token)
        # The span refers to the request: with the run on it still, what the task held, such as the
        # connections of a greenlet, would be there until the collector comes.
        if run.request is not None:
            run.request.pop(_ON_REQUEST, None)
        if state is None and current_process().daemon:
            # A child on its way out, by itself or killed: the main process sees that and reports.
            return
        try:
            if state != states.SUCCESS:
                _set_outcome(run, task, state, retval)
        except Exception:
            faults.report("say how a run ended")
        finally:
            run.end(state)

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
        if not eager and started is None and (plain := self._begin_plain(task, message)):
            return plain
        since = started or time.time()
        delivery = message.get("delivery_info") or {}
        queue = delivery.get("routing_key")
        if not isinstance(queue, str):
            queue = None
        measured: Series | None = None
        links: Sequence[SpanContext] = ()
        if eager:
            context = get_current()
            parent, facts = parent_in(context), RunFacts(message, None)
        else:
            own = message if TRACEPARENT in message else wire(message)
            parent, context, links = self._origin(own)
            facts = RunFacts(message, waited(message, own, since))
            measured = self._series(task, queue, facts.names)
        attributes: dict[str, AttributeValue] = {}
        if delivery.get("redelivered"):
            attributes[CELERY_REDELIVERED] = True
        if task in _MANY:
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

    def _begin_plain(self, task: str, message: Mapping[str, Any]) -> Run | None:
        """Start the run of a *message* that brings little, as most do; None for any other."""
        light: Light | None = getattr(trace.get_tracer_provider(), "light", None)
        delivery = message.get("delivery_info") or {}
        queue = delivery.get("routing_key")
        if light is None or type(queue) is not str or delivery.get("redelivered"):
            return None
        template, series = self._plain(task, queue)
        return begin_plain(light, template, series, message) if template is not None else None

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

    def _make_plain(self, task: str, queue: str) -> tuple[Template | None, Series]:
        plain = self._relation == "child" and task not in _MANY and reads_w3c_alone()
        template = template_of(self._shape(task, queue, False)) if plain else None
        return template, self._series(task, queue, ALL_WAITS)

    def _make_series(self, task: str, queue: str | None, waits: tuple[str, ...]) -> Series:
        said = measured(self._shape(task, queue, False).attributes)
        return Series((*_MEASURED, *waits), said)


#: What ``map``, ``starmap`` and ``chunks`` run as.
_MANY = ("celery.map", "celery.starmap")


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
    cause = retval
    if state == states.RETRY:  # raised where an exception is handled, it need not be given it
        cause = getattr(retval, "exc", None) or getattr(retval, "__context__", None)
    if state not in _FAILED or not isinstance(cause, BaseException):
        return
    if state == states.FAILURE and isinstance(cause, tuple(task.throws or ())):
        record(run.span, cause)
    else:
        run.fail(cause)


_FAILED = (states.RETRY, states.FAILURE, states.REJECTED)
