"""The traces that the doctor begins, as a client would."""

import secrets

from opentelemetry import trace
from opentelemetry.context import Context

from ..propagation import inject
from ..propagation.doctor import DOCTOR_MEMBER
from ..propagation.traceparent import TraceContext

__all__ = ["context_of", "headers_of", "origin"]


def origin(low_bits: int, counted: bool) -> trace.SpanContext:
    """Return the context of a new trace whose id ends in *low_bits*, 64 of them.

    Samplers by a ratio look at these bits: all of them keep 0, unless they keep nothing. Unless the
    trace is to be *counted*, its ``tracestate`` says that it is no traffic.
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
    """Return HTTP headers with *span_context*: W3C's, and those that this process would send."""
    headers: dict[str, str] = {}
    context = context_of(span_context)
    TraceContext().inject(headers, context)
    inject(headers, context)
    return headers
