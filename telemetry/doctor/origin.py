"""The traces that the doctor starts, as a client would."""

import secrets

from opentelemetry import trace
from opentelemetry.context import Context

from ..propagation import inject
from ..propagation.doctor import DOCTOR_MEMBER
from ..propagation.traceparent import TraceContext


def origin(low_bits: int, counted: bool) -> trace.SpanContext:
    """Return the context of a new trace whose id ends in the 64 *low_bits*.

    Samplers by ratio read these bits. 0 is sampled by each ratio above 0, the largest number by 1
    alone. Unless the trace is *counted*, its ``tracestate`` marks it as the doctor's.
    """
    return trace.SpanContext(
        secrets.randbits(64) << 64 | low_bits,
        secrets.randbits(64) | 1,
        True,
        trace.TraceFlags(1),
        None if counted else trace.TraceState([DOCTOR_MEMBER]),
    )


def context_of(span_context: trace.SpanContext) -> Context:
    """Return a context in which *span_context* is current."""
    return trace.set_span_in_context(trace.NonRecordingSpan(span_context), Context())


def headers_of(span_context: trace.SpanContext) -> dict[str, str]:
    """Return *span_context* as HTTP headers: W3C's, and those of the configured propagators."""
    headers: dict[str, str] = {}
    context = context_of(span_context)
    TraceContext().inject(headers, context)
    inject(headers, context)
    return headers
