"""Record when and from which queue a message arrives in the worker's main process.

The child reads both from the headers, and the ids of its span. The log lines about the message have
its trace id.
"""

import os
import time
from collections.abc import Callable, Mapping
from functools import cache, wraps
from random import getrandbits
from typing import Any

from opentelemetry.context import Context
from opentelemetry.trace import INVALID_SPAN_CONTEXT, NonRecordingSpan, SpanContext

from ..propagation import extract_parent
from ..propagation.message import trace_headers
from ..tracing.context import SPAN, attach, detach, get_current
from .destination import queue_of
from .run import IDS, QUEUE, RECEIVED_AT

#: Marks the wrapped strategy, so that a second worker in one process wraps nothing twice.
_MARK = "queuehop_traced"


def note_arrival(start_strategy: Callable[..., Any]) -> Callable[..., Any]:
    """Return the *start_strategy* of a task, which notes each message and makes it current."""
    if hasattr(start_strategy, _MARK):
        return start_strategy
    _forget_arrivals_in_children()

    @wraps(start_strategy)
    def start(app: Any, consumer: Any, **options: Any) -> Callable[..., Any]:
        take = start_strategy(app, consumer, **options)

        def take_in_context(message: Any, body: Any, *args: Any, **options: Any) -> Any:
            # Celery makes its request from the headers, also in protocol 1, unless the body has no
            # arguments.
            fields = body if type(body) is dict and "args" not in body else message.headers
            if type(fields) is dict:
                fields[RECEIVED_AT] = time.time()
                fields[IDS] = getrandbits(128)
                if (message.delivery_info or {}).get("exchange"):
                    fields[QUEUE] = queue_of(consumer, message)
            token = attach(Context({SPAN: _Arriving(message)}))
            try:
                return take(message, body, *args, **options)
            finally:
                detach(token)

        return take_in_context

    setattr(start, _MARK, True)
    return start


@cache
def _forget_arrivals_in_children() -> None:
    """Let a child begin without context: an autoscaled pool forks while a message arrives."""

    def forget() -> None:
        if isinstance(get_current().get(SPAN), _Arriving):
            attach(Context())

    os.register_at_fork(after_in_child=forget)


class _Arriving(NonRecordingSpan):
    """The span that a raw kombu *message* names. The headers are read only if a log line asks."""

    def __init__(self, message: Any) -> None:
        self._message = message

    def get_span_context(self) -> SpanContext:
        """Return the span context in the message's headers."""
        parent, _ = extract_parent(trace_headers(headers_of(self._message)))
        return parent.span_context() if parent is not None else INVALID_SPAN_CONTEXT

    def __repr__(self) -> str:
        return f"NonRecordingSpan({self.get_span_context()!r})"


def headers_of(message: Any) -> Mapping[str, Any]:
    """Return the headers of a raw kombu *message*, which may be anything."""
    headers = getattr(message, "headers", None)
    return headers if isinstance(headers, Mapping) else {}
