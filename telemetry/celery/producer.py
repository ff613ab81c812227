"""Hop 3 of 5: PRODUCER. A task is published, and the trace goes into its message's headers."""

import time
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from contextvars import ContextVar
from functools import lru_cache, wraps
from typing import Any, ClassVar

from celery import Celery
from opentelemetry.context import get_current
from opentelemetry.trace import Span, SpanKind

from ..propagation import headers_for
from ..propagation.message import LINKS, SENT_AT, TRACEPARENT
from ..propagation.traceparent import format_links, parse_parent
from ..tracing.context import parent_of
from ..tracing.faults import log_internal_error
from ..tracing.hop import Hop
from ..tracing.record import RecordedLink, SendFacts, SpanTemplate, message_facts
from .chord import headers_of_chord
from .message import Broker, message_template
from .run import RECEIVED_AT, Run

__all__ = ["Producer"]


class Send(Hop[SendFacts]):
    """The hop around the publishing of one message. Celery calls ``on_publish`` from inside it."""

    __slots__ = ("producer", "replaced")

    variable: ClassVar[ContextVar["Send | None"]] = ContextVar("queuehop-send", default=None)

    def __init__(self, producer: "Producer", task: str, given: Any) -> None:
        #: The context that the message has already: a retry's, or the caller's own.
        self.replaced = parse_parent(given) if given else None
        self.producer = producer
        super().__init__(producer.template(task, bool(given)), SendFacts())

    def _links(self) -> Sequence[RecordedLink]:
        return [RecordedLink.to(self.replaced)] if self.replaced else ()


class Producer:
    """Traces what one Celery app publishes."""

    def __init__(self, app: Celery) -> None:
        self._broker = Broker(app)
        # What is the same for every message of a task is put together once.
        self.template = lru_cache(maxsize=1024)(self._template)

    def _template(self, task: str, given: bool) -> SpanTemplate:
        # The run is not under a send whose context is not the one in the message: CLIENT.
        kind = SpanKind.CLIENT if given else SpanKind.PRODUCER
        return message_template("send", task, kind, self._broker)

    def traced(self, send_task: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap ``app.send_task``, through which ``delay``, canvas, retries and beat all go."""

        @wraps(send_task)
        def send(name: str, *args: Any, **options: Any) -> Any:
            if options.get("retries"):
                options["headers"] = _headers_of_retry(options)
            headers = options.get("headers")
            given = headers.get(TRACEPARENT) if isinstance(headers, dict) else None
            with Send(self, name, given):
                return send_task(name, *args, **options)

        return send

    def on_publish(
        self, sender: str, body: Any, routing_key: str, declare: Any, headers: Any, **_: Any
    ) -> None:
        """Fill the headers at the last moment: Celery's ``before_task_publish``."""
        send = Send.current()
        if send is None or send.producer is not self:
            return
        try:
            message = headers if "id" in headers else body  # protocol 1 has its facts in the body
            queue = declare[0].name if declare else routing_key
            send.facts.message = message_facts(message)
            send.facts.queue = queue if isinstance(queue, str) else None
            inject_into_message(headers, message, send.span)
        except Exception:
            log_internal_error("put the trace into a message")


def inject_into_message(
    headers: MutableMapping[str, Any], message: Mapping[str, Any], span: Span
) -> None:
    """Write the context of *span* into the *headers* of a message, unless they have one."""
    if TRACEPARENT not in headers:
        parent = parent_of(span)
        for name, value in headers_for(parent, get_current()).items() if parent else ():
            headers.setdefault(name, value)
        if after := headers_of_chord():
            headers[LINKS] = format_links(after)
    elif message.get("retries"):
        # Celery copies the headers of an attempt into its retry. So the next attempt is a sibling
        # under the same send, and links to this one.
        headers.pop(LINKS, None)
        run = Run.current()
        parent = parent_of(run.span) if run is not None and run.id == message.get("id") else None
        if parent is not None:
            headers[LINKS] = format_links([parent])
    headers.pop(RECEIVED_AT, None)
    now = str(time.time_ns())
    headers[SENT_AT] = f"{now[:-9]}.{now[-9:-3]}"


def _headers_of_retry(options: Mapping[str, Any]) -> Any:
    """Return the headers of a retry with *options*: those that the task gives, and the trace.

    Celery copies the headers of the attempt, but not where the task gives some of its own.
    """
    headers = options.get("headers")
    run = Run.current()
    if run is None or run.id != options.get("task_id") or TRACEPARENT in (headers or ()):
        return headers
    if run.parent is None:
        return headers
    return {**headers_for(run.parent, run.context), **(headers or {})}
