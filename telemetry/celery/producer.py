"""Hop 3 of 5: PRODUCER. A task is published, and the trace goes into its message's headers."""

import time
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Any, NamedTuple

from celery import Celery
from opentelemetry.semconv._incubating.attributes.messaging_attributes import (
    MESSAGING_DESTINATION_NAME,
)
from opentelemetry.semconv._incubating.metrics.messaging_metrics import (
    MESSAGING_CLIENT_OPERATION_DURATION,
    MESSAGING_CLIENT_SENT_MESSAGES,
)
from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE
from opentelemetry.trace import Link, Span, SpanKind
from opentelemetry.util.types import AttributeValue

from .. import faults
from ..hop import error_type, hop
from ..propagation import (
    BAGGAGE,
    LINKS,
    SENT_AT,
    TRACEPARENT,
    TRACESTATE,
    format_links,
    inject,
    parse_traceparent,
)
from ..setup import measure
from .chord import headers_of_chord
from .consumer import RECEIVED_AT, current_run
from .message import Broker, facts, measured

__all__ = ["Producer"]


class _Sending(NamedTuple):
    producer: "Producer"
    span: Span
    metric: dict[str, AttributeValue]


#: The send under way in this context; Celery calls back from inside of it.
_sending: ContextVar[_Sending | None] = ContextVar("queuehop_sending", default=None)


class Producer:
    """Traces what one Celery app publishes."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._broker = Broker(app)

    def traced(self, send_task: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap ``app.send_task``, through which ``delay``, canvas, retries and beat all go."""

        @wraps(send_task)
        def send(name: str, *args: Any, **options: Any) -> Any:
            with self._hop(name, options.get("headers")):
                return send_task(name, *args, **options)

        return send

    @contextmanager
    def _hop(self, name: str, headers: Any) -> Iterator[None]:
        # With a traceparent in the message already (a retry's, or the caller's own) that one goes
        # on: this send is not what the run hangs under, which CLIENT says.
        given = headers.get(TRACEPARENT) if isinstance(headers, dict) else None
        context = parse_traceparent(given) if given else None
        kind = SpanKind.CLIENT if given else SpanKind.PRODUCER
        links = [Link(context)] if context else []
        attributes = self._fixed(name)
        metric = measured(attributes)
        began = time.perf_counter()
        with hop(f"send {name}", kind, links=links, attributes=attributes) as span:
            token = _sending.set(_Sending(self, span, metric))
            try:
                yield
            except Exception as exc:
                metric[ERROR_TYPE] = error_type(exc)
                raise
            finally:
                _sending.reset(token)
                seconds = time.perf_counter() - began
                counts = {
                    MESSAGING_CLIENT_SENT_MESSAGES: 1,
                    MESSAGING_CLIENT_OPERATION_DURATION: seconds,
                }
                measure(counts, metric, span)

    def _fixed(self, name: str) -> Mapping[str, AttributeValue]:
        try:
            return self._broker.fixed("send", name)
        except Exception:
            faults.report("describe a message")
            return {}

    def on_publish(
        self, sender: str, body: Any, routing_key: str, declare: Any, headers: Any, **_: Any
    ) -> None:
        """Fill the headers at the last moment: Celery's ``before_task_publish``."""
        sending = _sending.get()
        if sending is None or sending.producer is not self:
            return
        try:
            own = headers if "id" in headers else body  # protocol 1 has its facts in the body
            queue = declare[0].name if declare else routing_key
            attributes = facts(queue, own)
            if queue:
                sending.metric[MESSAGING_DESTINATION_NAME] = queue
            if sending.span.is_recording():
                sending.span.set_attributes(attributes)
            self._fill(headers, own)
        except Exception:
            faults.report("put the trace into a message")

    def _fill(self, headers: MutableMapping[str, Any], own: Any) -> None:
        if TRACEPARENT not in headers:
            carrier: dict[str, str] = {}
            inject(carrier)
            for key in (TRACEPARENT, TRACESTATE, BAGGAGE):
                if key in carrier:
                    headers.setdefault(key, carrier[key])
            if comes_after := headers_of_chord():
                headers[LINKS] = format_links(comes_after)
        elif own.get("retries"):
            # Celery copies the headers of the attempt into its retry: the next attempt is a
            # sibling under the same send and links to this one, not to the one before.
            run = current_run()
            headers.pop(LINKS, None)
            if run is not None and run[0] == own.get("id"):
                headers[LINKS] = format_links([run[1]])
        headers.pop(RECEIVED_AT, None)
        headers[SENT_AT] = f"{time.time():.6f}"
