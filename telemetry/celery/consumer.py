"""Hop 4 of 5: CONSUMER. A worker runs the task, in the trace of its message."""

import sys
import time
from collections.abc import Mapping
from functools import cache, cached_property, lru_cache, partial, wraps
from typing import Any

from billiard import current_process
from celery import Celery, Task, signals, states
from celery.app import trace
from celery.app.task import Context as Request
from celery.utils.dispatch import Signal
from opentelemetry.context import Context
from opentelemetry.trace import SpanKind

from ..propagation import extract_parent
from ..propagation.message import LINKS, RELATION, SENT_AT, trace_headers
from ..propagation.traceparent import parse_links
from ..setup import sink
from ..tracing.context import NO_CONTEXT, SPAN, get_current, parent_in
from ..tracing.faults import log_internal_error
from ..tracing.interpret import waits_of
from ..tracing.interrupts import uninterrupted
from ..tracing.record import (
    ParentContext,
    RecordedLink,
    RunFacts,
    SpanTemplate,
    message_facts,
)
from .chord import watch_chord
from .message import Broker, broker_of, message_template
from .run import QUEUE, RECEIVED_AT, Run, id_bits
from .time_limit import guard_soft_time_limit

#: The attribute of an instrumented app: its ``RunTracer``.
RUN_TRACER = "queuehop_runs"

#: The tasks that ``map``, ``starmap`` and ``chunks`` run as.
_MANY = ("celery.map", "celery.starmap")

_FAILED = (states.RETRY, states.FAILURE, states.REJECTED)

#: The exceptions that a pool of greenlets raises in a task, for a hard time limit and to revoke it,
#: and the states that Celery then stores.
_ENDED_GREENLET = {"Timeout": states.FAILURE, "GreenletExit": states.REVOKED}

#: The exceptions that end a child of the prefork pool.
_ENDS_CHILD = (SystemExit, KeyboardInterrupt)


class RunTracer:
    """Traces what one Celery app runs."""

    def __init__(self, app: Celery, relation: str) -> None:
        self._app = app
        self._relation = relation
        # A template has everything that is the same for all messages of a task, so it is made once.
        self._template = lru_cache(maxsize=1024)(self._make_template)
        self.soft_time_limit = guard_soft_time_limit()

    def start(
        self, task_name: str, message: Mapping[str, Any], started: float | None = None
    ) -> Run:
        """Start the run of *task_name* from its *message*: the headers, and what the worker added.

        *started* is a Unix time in seconds, now if absent.
        """
        headers = trace_headers(message)
        parent, context, links = self._parent_of_message(headers)
        facts = _facts(message, headers)
        if task_name in _MANY:
            facts.items = _items(message)
        facts.links_to_parent = parent is not None
        run = Run(self._template(task_name, False), facts)
        run.id, run.context = facts.message_id, context
        start_time = int(started * 1e9) if started else None
        run.start(parent, context, links, start_time, id_bits(message))
        return run

    def _parent_of_message(
        self, headers: Mapping[str, Any]
    ) -> tuple[ParentContext | None, Context, list[RecordedLink]]:
        """Return the run's parent, the context of its message, and the links of the run."""
        parent, context = extract_parent(headers)
        links: list[RecordedLink] = []
        if LINKS in headers:
            links = [RecordedLink.to(each) for each in parse_links(headers[LINKS])]
        relation = headers.get(RELATION)
        if relation not in ("child", "link"):
            relation = self._relation
        if relation == "child":
            return parent, context, links
        return None, context, links if parent is None else [RecordedLink.to(parent), *links]

    def start_eager(self, task_name: str, message: Mapping[str, Any]) -> Run:
        """Start a run that the caller waits for. It has no message, and is inside the caller."""
        context = get_current()
        facts = RunFacts(
            message_facts(message),
            items=_items(message) if task_name in _MANY else None,
            eager=True,
            measured=False,
        )
        run = Run(self._template(task_name, True), facts)
        run.id, run.context = message.get("id"), context
        run.start(parent_in(context), context)
        return run

    def start_batch(self, task_name: str, task_id: str, batch: list[Mapping[str, Any]]) -> Run:
        """Start a run of many messages: a trace of its own that links to each of their sends.

        Its waits are those of the message that waited longest.
        """
        headers = list(map(trace_headers, batch))
        taken = list(map(_facts, batch, headers))
        facts = max(taken, key=partial(_waited, now=time.time()))
        facts.message = message_facts({"eta": facts.eta})
        facts.queue = facts.queue if len({each.queue for each in taken}) == 1 else None
        facts.redelivered = any(each.redelivered for each in taken)
        facts.messages = len(taken)
        parents = [extract_parent(each)[0] for each in headers]
        run = Run(self._template(task_name, False), facts)
        run.id = task_id
        links = [RecordedLink.to(parent) for parent in parents if parent is not None]
        run.start(None, NO_CONTEXT, links)
        return run

    @cached_property
    def _broker(self) -> Broker:
        return broker_of(self._app.connection_for_read)

    def _make_template(self, task_name: str, eager: bool) -> SpanTemplate:
        broker = None if eager else self._broker
        return message_template("process", task_name, SpanKind.CONSUMER, broker)


def trace_runs(app: Celery, tracer: RunTracer) -> None:
    """Trace what the workers of *app* run, and what it runs in place."""
    setattr(app, RUN_TRACER, tracer)
    # When Celery copies a request, attributes that it does not know become headers.
    setattr(Request, Run.attribute, None)
    signals.task_prerun.connect(on_prerun, weak=False)
    signals.task_postrun.connect(on_postrun, weak=False)
    _end_on_every_way_out()


def on_prerun(task: Task, task_id: str, args: Any, **_: Any) -> None:
    """Start the run and make it current: Celery's ``task_prerun``."""
    tracer: RunTracer | None = getattr(task.app, RUN_TRACER, None)
    if tracer is None:
        return
    try:
        request = task.request
        # Celery makes an attribute of each header: the attributes of its request are the message.
        message = vars(request)
        if request.is_eager:
            run = tracer.start_eager(task.name, message)
        elif request.id is None and (batch := batch_of(args)):
            run = tracer.start_batch(task.name, task_id, batch)
        else:
            run = tracer.start(task.name, message)
            if request.chord:
                watch_chord(task.backend)
        message[Run.attribute] = run
        run.message = message
        run.outside = get_current()
        run.attach(run.context)
        _come_last(signals.task_postrun, on_postrun)
    except Exception:
        log_internal_error("start the span of a run")


def on_postrun(task_id: str, task: Task, state: str | None, retval: Any, **_: Any) -> None:
    """End the run as the task ended: Celery's ``task_postrun``, sent on every way out.

    It runs after all other receivers: for them the run is still current, and a tracer that began
    inside of it has ended.
    """
    tracer: RunTracer | None = getattr(task.app, RUN_TRACER, None)
    if tracer is None:
        return
    run: Run | None = Run.current()
    if run is None or run.id != task_id:
        # The task left another context current. Looking up Celery's request is slower.
        run = vars(task.request).get(Run.attribute)
        if run is None or run.id != task_id:
            return
    # Another tracer that began before this run may have restored the context by now.
    is_restored = SPAN in run.outside and Run.current() is not run
    if not is_restored:
        run.detach()
    # The run and its request refer to each other. Without this, the task's objects, such as the
    # connections of a greenlet, would live until the garbage collector runs.
    if run.message is not None:
        run.message.pop(Run.attribute, None)
    facts = run.facts
    is_leaving = isinstance(sys.exception(), _ENDS_CHILD) and _is_for_main_process(facts)
    if is_leaving and (state is None or sink().in_memory):
        # The main process reports the run. It cannot see a span that waits in this one's memory.
        return
    facts.state = state
    if state != states.SUCCESS:
        try:
            _set_outcome(run, task, state, retval)
        except Exception:
            log_internal_error("describe the end of a run")
    run.end()
    limit = tracer.soft_time_limit
    if limit is not None and limit.pending is not None and not facts.eager:
        limit.cancel()


@cache
def _end_on_every_way_out() -> None:
    """Call ``on_postrun`` also if another receiver raises ``WorkerShutdown`` or ``SystemExit``.

    Celery's dispatcher then calls no further receivers. The function is private: where Celery lacks
    it, such a run has no span.
    """
    send: Any = getattr(trace, "send_postrun", None)
    if send is None:
        return

    @wraps(send)
    @uninterrupted
    def send_postrun(sender: Task, **named: Any) -> Any:
        try:
            return send(sender, **named)
        except BaseException:
            on_postrun(**named)
            raise

    trace.send_postrun = send_postrun


def _come_last(signal: Signal, receiver: Any) -> None:
    """Let *signal* call *receiver*, if it is connected, after all others."""
    receivers = signal.receivers
    if receivers and receivers[-1][1] is not receiver:
        with signal.lock:
            for entry in [each for each in receivers if each[1] is receiver]:
                receivers.remove(entry)
                receivers.append(entry)


def _facts(message: Mapping[str, Any], headers: Mapping[str, Any]) -> RunFacts:
    """Return the facts of a run from its *message*. *headers* are those that carry its trace."""
    delivery = message.get("delivery_info") or {}
    return RunFacts(
        message_facts(message),
        message.get(QUEUE, delivery.get("routing_key")),
        delivery.get("redelivered"),
        headers.get(SENT_AT),
        message.get(RECEIVED_AT),
    )


def batch_of(args: Any) -> list[Mapping[str, Any]]:
    """Return the messages of a batch, empty for any other run.

    The package celery-batches hands a task a list of requests.
    """
    if not args or not isinstance(args[0], list):
        return []
    requests = args[0]
    if not all(isinstance(getattr(one, "request_dict", None), Mapping) for one in requests):
        return []
    return [{**one.request_dict, "delivery_info": one.delivery_info} for one in requests]


def _waited(facts: RunFacts, now: float) -> float:
    """Return how many seconds a message that runs *now* has waited since it was due."""
    _, queue, prefetch, _ = waits_of(facts, now)
    return (queue or 0.0) + prefetch


def _items(message: Mapping[str, Any]) -> int | None:
    """Return how many items ``map``, ``starmap`` or a piece of ``chunks`` has in one run."""
    try:
        return len(message["kwargs"]["it"])
    except (KeyError, TypeError):
        return None


def _is_for_main_process(facts: RunFacts) -> bool:
    """Return whether a run is one that a child of the prefork pool, the only daemon, was given."""
    return not facts.eager and bool(current_process().daemon)


def _set_outcome(run: Run, task: Task, state: str | None, retval: Any) -> None:
    if state is None:
        # SystemExit, the end of a greenlet, or an exception that an errback or a handler such as
        # ``on_failure`` raised. For the last, Celery stores FAILURE; for a prefork child, whose
        # main process stores the result, for any.
        if (exc := sys.exception()) is not None:
            run.fail(exc)
            is_failure = isinstance(exc, Exception) or _is_for_main_process(run.facts)
            failed = states.FAILURE if is_failure else None
            run.facts.state = _ENDED_GREENLET.get(type(exc).__name__, failed)
        return
    if state not in _FAILED:
        return
    cause = retval
    if state == states.RETRY:  # without an ``exc=``, its cause is the exception being handled
        cause = getattr(retval, "exc", None) or getattr(retval, "__context__", None)
    if not isinstance(cause, BaseException):
        if run.facts.messages is not None:  # celery-batches does not pass on the exception
            run.set_error()
        return
    if state == states.FAILURE and isinstance(cause, tuple(task.throws or ())):
        run.record_exception(cause)
    else:
        run.fail(cause)
