"""Spans on their way to the segment."""

from collections.abc import Callable
from typing import Any

from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from .. import faults, otlp
from . import frames
from .frames import Definition
from .writer import Writer

__all__ = ["SpoolProcessor"]

#: The tag of ``ScopeSpans.spans``.
_SPANS = b"\x12"


class SpoolProcessor(SpanProcessor):
    """Keeps each span as soon as it has ended."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._resources = _Definitions(_resource)
        self._scopes = _Definitions(_scope)

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Nothing is kept of a span that has not ended."""

    def on_end(self, span: ReadableSpan) -> None:
        """Encode *span* and append it to the segment, in this thread."""
        if span.context is None or not span.context.trace_flags.sampled:
            return
        try:
            self._writer.append(
                frames.SPAN,
                otlp.field(_SPANS, otlp.encode_span(span)),
                self._resources.of(span.resource),
                self._scopes.of(span.instrumentation_scope),
            )
        except Exception:
            faults.report("keep a span")


class _Definitions:
    """The definitions of objects that come again and again, found by what they are, not equal."""

    def __init__(self, encode: Callable[[Any], bytes]) -> None:
        self._encode = encode
        self._known: dict[int, tuple[object, Definition]] = {}

    def of(self, thing: object) -> Definition:
        known = self._known.get(id(thing))
        if known is None:
            if len(self._known) >= 1024:
                self._known.clear()
            # Held, so that no other object can have its id.
            known = self._known[id(thing)] = thing, frames.define(self._encode(thing))
        return known[1]


def _resource(resource: Resource) -> bytes:
    """Return a ``ResourceSpans`` without spans."""
    return otlp.resource_spans(otlp.encode_resource(resource), resource.schema_url, ())


def _scope(scope: InstrumentationScope | None) -> bytes:
    """Return a ``ScopeSpans`` without spans."""
    schema_url = scope.schema_url if scope is not None else None
    return otlp.scope_spans(otlp.encode_scope(scope), schema_url or "", ())
