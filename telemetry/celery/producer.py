"""Hop 3 of 5: PRODUCER. A task is published with the trace in its message's headers."""

import time
from collections.abc import Mapping, MutableMapping, Set
from functools import cached_property, lru_cache, wraps
from typing import Any, ClassVar

from celery import Celery
from opentelemetry.context import create_key
from opentelemetry.trace import Span, SpanKind

from ..propagation import add_context, extract_parent, has_parent
from ..propagation.configured import configured_propagators
from ..propagation.message import LINKS, SENT_AT, trace_headers
from ..propagation.traceparent import format_links
from ..tracing.context import get_current, parent_of
from ..tracing.faults import log_internal_error
from ..tracing.hop import Hop
from ..tracing.record import Parent, RecordedLink, SendFacts, SpanTemplate, message_facts
from ..tracing.tracestate import TRACESTATE
from .chord import chord_header_runs
from .destination import destination
from .message import Broker, broker_of, message_template
from .run import QUEUE, RECEIVED_AT, Run, current_run

__all__ = ["PRODUCER", "Producer", "trace_sends"]

#: The attribute of an instrumented app: its producer.
PRODUCER = "queuehop"
#: Marks the wrapped method, so that it is wrapped once.
_MARK = "queuehop_traced"


class Send(Hop[SendFacts]):
    """The hop around the publishing of one message. Celery calls ``on_publish`` from inside it."""

    key: ClassVar[str] = create_key("queuehop-send")

    producer: "Producer"


class Producer:
    """Traces what one Celery app publishes."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        # A template has everything that is the same for all messages of a task, so it is made once.
        self._template = lru_cache(maxsize=1024)(self._make_template)

    def hop(self, task: Any, headers: Any, broker: Broker | None = None) -> Send:
        """Return the hop of a message for *task* with the caller's *headers*.

        *broker* is given only if it is not the app's.
        """
        is_given = headers is not None and isinstance(headers, Mapping) and has_parent(headers)
        send = Send(self._template(task, is_given, broker), SendFacts())
        send.producer = self
        # The context that the message has already: a retry's, or the caller's own.
        if is_given and (parent := extract_parent(headers)[0]) is not None:
            send.links = [RecordedLink.to(parent)]
        return send

    @cached_property
    def _broker(self) -> Broker:
        return broker_of(self._app.connection_for_write)

    def _make_template(self, task: str, is_given: bool, broker: Broker | None) -> SpanTemplate:
        # The message has another context than this send, so its run is not under it: CLIENT.
        kind = SpanKind.CLIENT if is_given else SpanKind.PRODUCER
        return message_template("send", task, kind, broker or self._broker)

    def on_publish(
        self, body: Any, exchange: Any, routing_key: Any, declare: Any, headers: Any, **_: Any
    ) -> None:
        """Fill the headers at the last moment: Celery's ``before_task_publish``."""
        send = Send.current()
        if send is None or send.producer is not self:
            return
        try:
            message = headers if "id" in headers else body  # protocol 1 has its facts in the body
            inject_into_message(headers, message, send.span)
            facts = send.facts
            facts.message = message_facts(message)
            facts.queue, facts.routing_key = destination(self._app, exchange, routing_key, declare)
        except Exception:
            log_internal_error("put the trace into a message")


def trace_sends(app: Celery, producer: Producer) -> None:
    """Trace ``app.send_task``, which ``delay``, canvas, retries and beat all call.

    The method of Celery's class is wrapped, not one that is bound to *app*: other libraries replace
    either of them, at any time.
    """
    setattr(app, PRODUCER, producer)
    send_task: Any = Celery.send_task
    if hasattr(send_task, _MARK):
        return

    # No parameter has a name: Python would compare it with that of every option.
    @wraps(send_task)
    def send(self: Celery, /, *args: Any, **options: Any) -> Any:
        producer: Producer | None = getattr(self, PRODUCER, None)
        if producer is None:
            return send_task(self, *args, **options)
        headers = options.get("headers")
        if headers or options.get("retries"):
            headers = options["headers"] = _headers_of_send(options)
        broker = _broker_of_caller(options)
        with producer.hop(args[0] if args else options.get("name"), headers, broker):
            return send_task(self, *args, **options)

    setattr(send, _MARK, True)
    Celery.send_task = send


def inject_into_message(
    headers: MutableMapping[str, Any], message: Mapping[str, Any], span: Span
) -> None:
    """Write the context of *span* into the *headers* of a message, unless they have one."""
    if not has_parent(headers):
        parent = parent_of(span)
        if parent is not None:
            add_context(headers, parent, get_current())
    elif message.get("retries"):
        # Celery copies the headers of an attempt into its retry. So the next attempt is a sibling
        # under the same send, and links to this one.
        headers.pop(LINKS, None)
        run = current_run()
        parent = parent_of(run.span) if run is not None and run.id == message.get("id") else None
        if parent is not None:
            headers[LINKS] = format_links([parent])
    if header_runs := chord_header_runs():
        headers[LINKS] = format_links(header_runs)
    if RECEIVED_AT in headers:  # passed on from the message of a run
        headers.pop(RECEIVED_AT)
        headers.pop(QUEUE, None)
    now = str(time.time_ns())
    headers[SENT_AT] = f"{now[:-9]}.{now[-9:-3]}"


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

    A trace header stays only if the caller has chosen it. It is removed if the task has copied it
    from its own message, or if it names no span. A retry is under the same send as its attempt.
    Celery copies the attempt's headers into the retry, but not if the task gives headers, and not
    those below another tracer's table. They are added here.
    """
    headers, run = options.get("headers"), current_run()
    if not isinstance(headers, Mapping | None):
        return headers
    headers = {} if headers is None else headers
    is_retry = run is not None and options.get("retries") and options.get("task_id") == run.id
    if has_parent(headers):
        propagators, parent = configured_propagators(), extract_parent(headers)[0]
        if parent is None:
            headers = _without(headers, propagators.parent_fields | {TRACESTATE})
        elif run is not None and (parent.trace_id, parent.span_id) in _parents(run, is_retry):
            headers = _without(headers, propagators.fields | {LINKS})
    if run is not None and is_retry and not has_parent(headers):
        parent, context = extract_parent(trace_headers(run.request or {}))
        if parent is not None:
            headers = dict(headers)
            add_context(headers, parent, context)
    return headers


def _without(headers: Mapping[str, Any], dropped: Set[str]) -> dict[str, Any]:
    return {name: value for name, value in headers.items() if name not in dropped}


def _parents(run: Run, is_retry: object) -> set[tuple[bytes, int]]:
    """Return the ids of the parents in the message of *run*, and for a retry that of the run."""
    message = run.request or {}
    brought = [each for each in (message, message.get("headers")) if isinstance(each, Mapping)]
    parents: list[Parent | None] = [extract_parent(each)[0] for each in brought]
    if is_retry:  # a base class of tasks that injects the current context by hand
        parents.append(parent_of(run.span))
    return {(parent.trace_id, parent.span_id) for parent in parents if parent is not None}
