"""Hop 3 of 5: PRODUCER. A task is published with the trace in its message's headers."""

import time
from collections.abc import Mapping, MutableMapping, Set
from functools import cached_property, lru_cache, wraps
from typing import Any, ClassVar

from celery import Celery, signals
from opentelemetry.context import create_key
from opentelemetry.trace import Span, SpanKind

from ..propagation import extract_parent, has_parent, inject_parent
from ..propagation.configured import configured_propagators
from ..propagation.message import LINKS, SENT_AT, trace_headers
from ..propagation.traceparent import format_links
from ..tracing.context import get_current, parent_of
from ..tracing.faults import log_internal_error
from ..tracing.hop import Hop
from ..tracing.record import Parent, RecordedLink, SendFacts, SpanTemplate, message_facts
from ..tracing.tracestate import TRACESTATE
from .chord import chord_part_runs
from .destination import destination
from .message import Broker, broker_of, message_template
from .run import IDS, QUEUE, RECEIVED_AT, Run, current_run

#: The attribute of an instrumented app: its ``SendTracer``.
SEND_TRACER = "queuehop"
#: Marks the wrapped method, so that it is wrapped once.
_MARK = "queuehop_traced"


class Send(Hop[SendFacts]):
    """The hop around the publishing of one message. Celery calls ``on_publish`` from inside it."""

    key: ClassVar[str] = create_key("queuehop-send")

    tracer: "SendTracer"


class SendTracer:
    """Traces what one Celery app publishes."""

    def __init__(self, app: Celery) -> None:
        self.app = app
        # A template has everything that is the same for all messages of a task, so it is made once.
        self._template = lru_cache(maxsize=1024)(self._make_template)

    def new_send(self, task_name: Any, headers: Any, broker: Broker | None = None) -> Send:
        """Return the hop of a message for *task_name* with the caller's *headers*.

        *broker* is that of the caller's own connection or producer; absent, it is the app's.
        """
        parent_given = headers is not None and isinstance(headers, Mapping) and has_parent(headers)
        send = Send(self._template(task_name, parent_given, broker), SendFacts())
        send.tracer = self
        # The context that the message has already: a retry's, or the caller's own.
        if parent_given and (parent := extract_parent(headers)[0]) is not None:
            send.links = [RecordedLink.to(parent)]
        return send

    @cached_property
    def _broker(self) -> Broker:
        return broker_of(self.app.connection_for_write)

    def _make_template(
        self, task_name: str, parent_given: bool, broker: Broker | None
    ) -> SpanTemplate:
        # The message has another context than this send, so its run is not under it: CLIENT.
        kind = SpanKind.CLIENT if parent_given else SpanKind.PRODUCER
        return message_template("send", task_name, kind, broker or self._broker)


def on_publish(
    body: Any, exchange: Any, routing_key: Any, declare: Any, headers: Any, **_: Any
) -> None:
    """Fill the headers at the last moment: Celery's ``before_task_publish``."""
    send = Send.current()
    if send is None:
        return
    try:
        message = headers if "id" in headers else body  # protocol 1 has its facts in the body
        inject_into_message(headers, message, send.span)
        facts = send.facts
        facts.message = message_facts(message)
        app = send.tracer.app
        facts.destination, facts.routing_key = destination(app, exchange, routing_key, declare)
    except Exception:
        log_internal_error("put the trace into a message")


def trace_sends(app: Celery, tracer: SendTracer) -> None:
    """Trace ``app.send_task``, which ``delay``, canvas, retries and beat all call.

    The method of Celery's class is wrapped, not one that is bound to *app*: other libraries replace
    either of them, at any time.
    """
    setattr(app, SEND_TRACER, tracer)
    signals.before_task_publish.connect(on_publish, weak=False)
    send_task: Any = Celery.send_task
    if hasattr(send_task, _MARK):
        return

    # No named parameters: Python would compare each name with those of all options.
    @wraps(send_task)
    def send(self: Celery, /, *args: Any, **options: Any) -> Any:
        tracer: SendTracer | None = getattr(self, SEND_TRACER, None)
        if tracer is None:
            return send_task(self, *args, **options)
        headers = options.get("headers")
        if headers or options.get("retries"):
            headers = options["headers"] = _headers_of_send(options)
        broker = _broker_of_caller(options)
        with tracer.new_send(args[0] if args else options.get("name"), headers, broker):
            return send_task(self, *args, **options)

    setattr(send, _MARK, True)
    Celery.send_task = send


def inject_into_message(
    headers: MutableMapping[str, Any], message: Mapping[str, Any], span: Span
) -> None:
    """Write the trace into the *headers* of *message*, which is about to be published.

    This is the context of *span*, unless the headers have one; the runs to link to; and the time.
    """
    if not has_parent(headers) and (parent := parent_of(span)) is not None:
        inject_parent(headers, parent, get_current())
    if message.get("retries"):
        _link_to_attempt(headers, message)
    if part_runs := chord_part_runs():
        headers[LINKS] = format_links(part_runs)
    if RECEIVED_AT in headers:  # passed on from the message of a run
        for name in (RECEIVED_AT, QUEUE, IDS):
            headers.pop(name, None)
    now = str(time.time_ns())
    headers[SENT_AT] = f"{now[:-9]}.{now[-9:-3]}"


def _link_to_attempt(headers: MutableMapping[str, Any], message: Mapping[str, Any]) -> None:
    """Link a retry to the attempt that publishes it.

    Celery copies the headers of the attempt into *message*. So the next attempt is a sibling, under
    the same send, unless the first message came without a context.
    """
    headers.pop(LINKS, None)
    run = current_run()
    parent = parent_of(run.span) if run is not None and run.id == message.get("id") else None
    if parent is not None:
        headers[LINKS] = format_links([parent])


def _broker_of_caller(options: Mapping[str, Any]) -> Broker | None:
    """Return the broker of the connection or producer in *options*, None if there is neither.

    Celery's canvas gives one producer to all messages of a group.
    """
    connection = options.get("connection")
    if connection:
        return broker_of(lambda: connection)
    producer = options.get("producer") or options.get("publisher")
    return broker_of(lambda: producer.connection) if producer else None


def _headers_of_send(options: Mapping[str, Any]) -> Any:
    """Return the headers of a message with *options*: those that the caller gives, and a retry's.

    A parent stays if the caller has chosen it. It is removed if the task has copied it from its own
    message, or if it names no span. A retry then gets the parent of its attempt: Celery loses it if
    the task gives headers, or if another tracer's table hides it.
    """
    headers, run = options.get("headers"), current_run()
    if not isinstance(headers, Mapping | None):
        return headers
    headers = {} if headers is None else headers
    is_retry = run is not None and bool(options.get("retries")) and options.get("task_id") == run.id
    if has_parent(headers):
        propagators, parent = configured_propagators(), extract_parent(headers)[0]
        if parent is None:
            headers = _without(headers, propagators.parent_fields | {TRACESTATE})
        elif run is not None and (parent.trace_id, parent.span_id) in _parent_ids(run, is_retry):
            headers = _without(headers, propagators.fields | {LINKS})
    if run is not None and is_retry and not has_parent(headers):
        parent, context = extract_parent(trace_headers(run.message or {}))
        if parent is not None:
            headers = dict(headers)
            inject_parent(headers, parent, context)
    return headers


def _without(headers: Mapping[str, Any], dropped: Set[str]) -> dict[str, Any]:
    return {name: value for name, value in headers.items() if name not in dropped}


def _parent_ids(run: Run, is_retry: bool) -> set[tuple[bytes, int]]:
    """Return the ids of the parents in the message of *run*, and for a retry that of the run."""
    message = run.message or {}
    brought = [each for each in (message, message.get("headers")) if isinstance(each, Mapping)]
    parents: list[Parent | None] = [extract_parent(each)[0] for each in brought]
    if is_retry:  # a base class of tasks that injects the current context by hand
        parents.append(parent_of(run.span))
    return {(parent.trace_id, parent.span_id) for parent in parents if parent is not None}
