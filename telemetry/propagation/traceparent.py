"""The ``traceparent`` header, lists of it, and the W3C Trace Context propagator."""

import re
from collections.abc import Iterable
from itertools import islice
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.propagators.textmap import (
    Getter,
    Setter,
    TextMapPropagator,
    default_getter,
    default_setter,
)
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from ..tracing.record import Parent, ParentContext
from ..tracing.tracestate import TRACESTATE, HeaderTraceState, format_tracestate
from .carrier import header_values

TRACEPARENT = "traceparent"

# A higher version may have more after a dash, which is ignored. A comma there means that a server
# has joined two header fields.
_TRACEPARENT = re.compile(
    r"[ \t]*+(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})"
    r"(-[^,]*)?+[ \t]*+"
)
_KNOWN_FLAGS = TraceFlags.SAMPLED | TraceFlags.RANDOM_TRACE_ID

_FLAGS = ("00", "01", "02", "03")

#: More links than this are neither read nor written.
_MAX_LINKS = 1024


def parse_traceparent(value: Any) -> ParentContext | None:
    """Return the remote span that *value*, a ``traceparent``, names.

    Return None if it is malformed, or if there are several: no rule decides between them.
    """
    if not isinstance(value, str):
        values = header_values(value)
        if len(values) != 1:
            return None
        value = values[0]
    match = _TRACEPARENT.fullmatch(value)
    if match is None:
        return None
    version, trace_id, span_id, flags, more = match.groups()
    if more is not None and version == "00":
        return None
    known = int(flags, 16) & _KNOWN_FLAGS
    return ParentContext(bytes.fromhex(trace_id), int(span_id, 16), known, True)


def format_traceparent(parent: Parent) -> str:
    """Return the ``traceparent`` of a span, version 00."""
    span_id = parent.span_id.to_bytes(8, "big")
    return f"00-{parent.trace_id.hex()}-{span_id.hex()}-{_FLAGS[parent.flags & _KNOWN_FLAGS]}"


def format_links(parents: Iterable[Parent]) -> str:
    """Return spans as a list of traceparents, at most 1024."""
    return ",".join(map(format_traceparent, islice(parents, _MAX_LINKS)))


def parse_links(value: Any) -> list[ParentContext]:
    """Return the spans that *value*, a list of traceparents, names. Malformed ones are dropped."""
    # A traceparent and its comma are 56 characters. Text far past the last one is not split.
    text = ",".join(header_values(value))[: _MAX_LINKS * 64]
    parsed = (parse_traceparent(one) for one in text.split(","))
    return list(islice((parent for parent in parsed if parent is not None), _MAX_LINKS))


class TraceContext(TextMapPropagator):
    """``traceparent`` and ``tracestate``: W3C Trace Context Level 2."""

    def extract(
        self, carrier: Any, context: Context | None = None, getter: Getter[Any] = default_getter
    ) -> Context:
        """Return *context* with the remote parent that *carrier* names, if it names one."""
        context = Context() if context is None else context
        parent = parse_traceparent(getter.get(carrier, TRACEPARENT))
        if parent is None:
            return context
        span = parent.span_context()
        if values := header_values(getter.get(carrier, TRACESTATE)):
            state = HeaderTraceState.from_header(values)
            span = SpanContext(span.trace_id, span.span_id, True, span.trace_flags, state)
        return trace.set_span_in_context(NonRecordingSpan(span), context)

    def inject(
        self, carrier: Any, context: Context | None = None, setter: Setter[Any] = default_setter
    ) -> None:
        """Write the span of *context*, by default the current one, into *carrier*."""
        span_context = trace.get_current_span(context).get_span_context()
        parent = ParentContext.of(span_context)
        if parent is not None:
            setter.set(carrier, TRACEPARENT, format_traceparent(parent))
            if state := span_context.trace_state:
                setter.set(carrier, TRACESTATE, format_tracestate(state))

    @property
    def fields(self) -> set[str]:
        return {TRACEPARENT, TRACESTATE}
