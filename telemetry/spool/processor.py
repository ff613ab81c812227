"""Spans and measurements on their way to the segment."""

import json
from collections.abc import Sequence
from functools import lru_cache

from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from .. import faults, otlp
from ..series import Measured, Series
from . import frames
from .frames import Definition, Head
from .template import Template
from .writer import Writer

__all__ = ["SpoolProcessor"]

#: So many heads are kept: one for each task, queue and the like.
_MOST = 4096


class SpoolProcessor(SpanProcessor):
    """Keeps each span as soon as it has ended, and what was measured, in this thread.

    *hops* is the scope of the hops' spans, *service* what measurements say of the service; None
    where they are not wanted.
    """

    def __init__(
        self, writer: Writer, hops: InstrumentationScope, service: Resource | None
    ) -> None:
        self._writer = writer
        self._hops = hops
        self._service = _service(service) if service is not None else None
        self._definitions = _Definitions()
        #: What frames begin with, by what they are of.
        self._heads: dict[tuple[int, tuple[Definition, ...]], Head] = {}
        #: The same for the hops' spans in this process, of which *_resource* is, by their template
        #: and series.
        self._of_hops: dict[tuple[Template | None, Series | None], Head] = {}
        self._resource: Resource | None = None

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Nothing is kept of a span that has not ended."""

    def on_end(self, span: ReadableSpan) -> None:
        """Encode *span* and append it, with what a light span says was measured of it."""
        if span.context is None or not span.context.trace_flags.sampled:
            return
        try:
            measured: Measured | None = getattr(span, "measured", None)
            series, values = measured if measured and self._service else (None, ())
            head = self._head(span.resource, span.instrumentation_scope, series)
            before = frames.numbers(values) if series is not None else b""
            self._writer.append(head, before + otlp.encode_span(span))
        except Exception:
            faults.report("keep a span")

    def keep(self, encoded: bytes, resource: Resource, measured: Measured | None) -> None:
        """Append an *encoded* span of a hop, with what was *measured* of it: the fast path."""
        try:
            if measured is None or self._service is None:
                self._writer.append(self._head_of_hop(resource, None, None), encoded)
                return
            series, values = measured
            head = self._head_of_hop(resource, None, series)
            self._writer.append(head, frames.numbers(values) + encoded)
        except Exception:
            faults.report("keep a span")

    def keep_parts(
        self, template: Template, parts: bytes, resource: Resource, measured: Measured
    ) -> None:
        """Append a span of a hop as the *parts* that *template* wants, with what was *measured*."""
        try:
            series, values = measured
            head = self._head_of_hop(resource, template, series)
            self._writer.append(head, frames.numbers(values) + parts)
        except Exception:
            faults.report("keep a span")

    def measure(self, series: Series, values: Sequence[float]) -> None:
        """Append what was measured where there is no span that says so."""
        try:
            if self._service is not None:
                head = self._head_of(frames.MEASUREMENT, self._service, _series(series))
                self._writer.append(head, frames.numbers(values))
        except Exception:
            faults.report("keep a measurement")

    def _head_of_hop(
        self, resource: Resource, template: Template | None, series: Series | None
    ) -> Head:
        if resource is not self._resource:  # another process
            self._of_hops, self._resource = {}, resource
        head = self._of_hops.get((template, series))
        if head is None:
            if len(self._of_hops) >= _MOST:
                self._of_hops = {}
            head = self._head(resource, self._hops, series, template)
            self._of_hops[template, series] = head
        return head

    def _head(
        self,
        resource: Resource,
        scope: InstrumentationScope | None,
        series: Series | None,
        template: Template | None = None,
    ) -> Head:
        definitions = [self._definitions.of(resource), self._definitions.of(scope)]
        kind, measured_kind = frames.SPAN, frames.MEASURED_SPAN
        if template is not None:
            definitions.append(template.definition)
            kind, measured_kind = frames.PARTS, frames.MEASURED_PARTS
        if series is not None and self._service is not None:
            definitions += self._service, _series(series)
            kind = measured_kind
        return self._head_of(kind, *definitions)

    def _head_of(self, kind: int, *definitions: Definition) -> Head:
        head = self._heads.get((kind, definitions))
        if head is None:
            if len(self._heads) >= _MOST:
                self._heads = {}
            head = self._heads[kind, definitions] = Head(kind, *definitions)
        return head


class _Definitions:
    """The definitions of resources and scopes, found by what they are, not equal."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[object, Definition]] = {}

    def of(self, thing: Resource | InstrumentationScope | None) -> Definition:
        known = self._known.get(id(thing))
        if known is None:
            if len(self._known) >= 1024:
                self._known.clear()
            made = _resource(thing) if isinstance(thing, Resource) else _scope(thing)
            # Held, so that no other object can have its id.
            known = self._known[id(thing)] = thing, frames.define(made)
        return known[1]


def _resource(resource: Resource) -> bytes:
    """Return a ``ResourceSpans`` without spans."""
    return otlp.resource_spans(otlp.encode_resource(resource), resource.schema_url, ())


def _scope(scope: InstrumentationScope | None) -> bytes:
    """Return a ``ScopeSpans`` without spans."""
    schema_url = scope.schema_url if scope is not None else None
    return otlp.scope_spans(otlp.encode_scope(scope), schema_url or "", ())


def _service(resource: Resource) -> Definition:
    return frames.define(json.dumps(dict(resource.attributes)).encode())


@lru_cache(maxsize=1024)
def _series(series: Series) -> Definition:
    return frames.define(json.dumps([series.names, dict(series.attributes)]).encode())
