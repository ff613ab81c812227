"""Carriers of headers, and the parent that they name."""

from typing import Any

from hypothesis import settings
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.trace import SpanContext

from telemetry.config.settings import sampler, span_limits
from telemetry.propagation import extract, inject
from telemetry.tracing.provider import HopTracerProvider

reproducibly = settings(derandomize=True, deadline=None)

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
GOOD = f"00-{TRACE}-{SPAN}-01"
TRACER = HopTracerProvider(sampler(), Resource.get_empty(), span_limits()).get_tracer("test")


def parent(carrier: Any) -> SpanContext:
    return trace.get_current_span(extract(carrier)).get_span_context()


def sent(carrier: Any) -> dict[str, str]:
    """Return the headers for the next hop, from a span of this process."""
    context = extract(carrier)
    goes: dict[str, str] = {}
    inject(goes, trace.set_span_in_context(TRACER.start_span("hop", context), context))
    return goes


class Hostile:
    def __str__(self) -> str:
        raise RuntimeError("no")


class Raising:
    @property
    def items(self) -> Any:
        raise RuntimeError("no")


HOSTILE = [None, 7, "x", b"x", [], dict, Hostile(), Raising()]
