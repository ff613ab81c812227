"""Collect the spans that end in this process."""

import threading
from typing import Any

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor


class EndedSpans(SpanProcessor):
    """Collects the spans that end from now on, if the provider accepts span processors."""

    def __init__(self) -> None:
        self._spans: list[ReadableSpan] = []
        self._lock = threading.Lock()
        provider: Any = trace.get_tracer_provider()
        add = getattr(provider, "add_span_processor", None)
        #: Whether the provider shows its spans.
        self.sees = callable(add)
        if callable(add):
            add(self)

    def on_end(self, span: ReadableSpan) -> None:
        with self._lock:
            self._spans.append(span)

    def ended(self) -> list[Any]:
        """Return the spans that have ended, in the order of their ends."""
        with self._lock:
            return list(self._spans)
