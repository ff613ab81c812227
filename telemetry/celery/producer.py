"""Hop 3 of 5: PRODUCER. A task is published, and the trace goes into its message's headers."""

import time
from collections.abc import Callable, Mapping, MutableMapping
from functools import lru_cache, wraps
from typing import Any

from celery import Celery
from opentelemetry.semconv._incubating.attributes.messaging_attributes import (
    MESSAGING_DESTINATION_NAME,
)
from opentelemetry.semconv._incubating.metrics.messaging_metrics import (
    MESSAGING_CLIENT_OPERATION_DURATION,
    MESSAGING_CLIENT_SENT_MESSAGES,
)
from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE
from opentelemetry.trace import SpanKind

from .. import faults
from ..current import get_current
from ..hop import Hop, describe
from ..light import Shape
from ..propagation import (
    BAGGAGE,
    LINKS,
    SENT_AT,
    TRACEPARENT,
    TRACESTATE,
    carried,
    format_links,
    parse_traceparent,
)
from ..series import Measured, Series
from .chord import headers_of_chord
from .message import Broker, Facts, measured
from .run import RECEIVED_AT, current_run

__all__ = ["Producer"]

_MEASURED = (MESSAGING_CLIENT_SENT_MESSAGES, MESSAGING_CLIENT_OPERATION_DURATION)


class Producer:
    """Traces what one Celery app publishes."""

    def __init__(self, app: Celery) -> None:
        self._broker = Broker(app)
        # What is the same for every message of a task is put together once.
        self.shape = lru_cache(maxsize=1024)(self._shape)
        self.series = lru_cache(maxsize=1024)(self._series)

    def traced(self, send_task: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap ``app.send_task``, through which ``delay``, canvas, retries and beat all go."""

        @wraps(send_task)
        def send(name: str, *args: Any, **options: Any) -> Any:
            if options.get("retries"):
                options["headers"] = _of_retry(options)
            with _Send(self, name, options.get("headers")):
                return send_task(name, *args, **options)

        return send

    def _shape(self, name: str, given: bool, queue: str | None = None) -> Shape:
        try:
            said = self._broker.fixed("send", name)
        except Exception:
            faults.report("describe a message")
            said = {}
        if queue:
            said[MESSAGING_DESTINATION_NAME] = queue
        return Shape(f"send {name}", SpanKind.CLIENT if given else SpanKind.PRODUCER, said)

    def _series(self, name: str, queue: str | None, error: str | None) -> Series:
        said = measured(self.shape(name, False, queue).attributes)
        if error:
            said[ERROR_TYPE] = error
        return Series(_MEASURED, said)

    def on_publish(
        self, sender: str, body: Any, routing_key: str, declare: Any, headers: Any, **_: Any
    ) -> None:
        """Fill the headers at the last moment: Celery's ``before_task_publish``."""
        context = get_current()
        sending = context.get(_Send.key)
        if not isinstance(sending, _Send) or sending.producer is not self:
            return
        try:
            own = headers if "id" in headers else body  # protocol 1 has its facts in the body
            sending.tell(declare[0].name if declare else routing_key, own)
            _fill(headers, own, carried(sending.span.get_span_context(), context))
        except Exception:
            faults.report("put the trace into a message")


class _Send(Hop):
    """The hop around the publishing of one message of the task *name*, with *headers* as given.

    Celery calls back from inside of it, and finds it in the context.
    """

    __slots__ = ("_given", "_name", "_queue", "producer")

    key = "queuehop-send"

    def __init__(self, producer: Producer, name: str, headers: Any) -> None:
        # With a traceparent in the message already (a retry's, or the caller's own) that one goes
        # on: this send is not what the run hangs under, which CLIENT says.
        given = headers.get(TRACEPARENT) if isinstance(headers, dict) else None
        context = parse_traceparent(given) if given else None
        self.producer = producer
        self._name = name
        self._given = bool(given)
        self._queue: str | None = None
        super().__init__(producer.shape(name, self._given), None, (context,) if context else ())

    def tell(self, queue: str | None, headers: Mapping[str, Any]) -> None:
        """Say to which *queue* the message goes, and what its *headers* say of it."""
        self._queue = queue = queue if isinstance(queue, str) else None
        shape = self.producer.shape(self._name, self._given, queue)
        describe(self.span, shape, Facts(headers))

    def measured(self, seconds: float) -> Measured:
        return self.producer.series(self._name, self._queue, self.error), (1, seconds)


_CARRIED = frozenset({TRACEPARENT, TRACESTATE, BAGGAGE})


def _of_retry(options: Mapping[str, Any]) -> Any:
    """Return the headers of a retry with *options*, as they are unless the trace is not in them.

    Celery copies those of the attempt, but not where the task gives some of its own.
    """
    headers = options.get("headers")
    run = current_run()
    if run is None or run.id != options.get("task_id") or TRACEPARENT in (headers or ()):
        return headers
    send = getattr(run.span, "parent", None)
    if send is None:
        return headers
    brought = carried(send, run.context).items()
    return {**{key: value for key, value in brought if key in _CARRIED}, **(headers or {})}


def _fill(headers: MutableMapping[str, Any], own: Any, carried: Mapping[str, str]) -> None:
    if TRACEPARENT not in headers:
        for key, value in carried.items():
            if key in _CARRIED:
                headers.setdefault(key, value)
        if comes_after := headers_of_chord():
            headers[LINKS] = format_links(comes_after)
    elif own.get("retries"):
        # Celery copies the headers of the attempt into its retry: the next attempt is a
        # sibling under the same send and links to this one, not to the one before.
        run = current_run()
        headers.pop(LINKS, None)
        if run is not None and run.id == own.get("id"):
            headers[LINKS] = format_links([run.span.get_span_context()])
    headers.pop(RECEIVED_AT, None)
    headers[SENT_AT] = f"{time.time():.6f}"
