"""The tracer provider of ``telemetry.setup``: it decides what is sampled and makes ``HopSpan``s."""

from collections.abc import Sequence
from functools import lru_cache, partial
from random import getrandbits
from time import time_ns

from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.semconv.attributes.service_attributes import SERVICE_NAME
from opentelemetry.trace import (
    INVALID_SPAN,
    Link,
    NonRecordingSpan,
    Span,
    SpanKind,
    TraceFlags,
    Tracer,
)
from opentelemetry.util.types import Attributes

from ..config.sdk import SpanLimits, SpanProcessor, TracerProvider, remove_span_processor, sampling
from ..config.settings import Sampler
from .context import get_current, parent_in, with_span
from .current_span import CurrentSpan
from .faults import log_internal_error
from .interpret import interpret
from .limits import clean, exceeds, recorded_link
from .record import Facts, Parent, Record, RecordedLink, SpanTemplate
from .scope import Scope
from .sink import Sink
from .span import HopSpan, api_link

_SAMPLED, _RANDOM = Record.SAMPLED, int(TraceFlags.RANDOM_TRACE_ID)

#: The bits of a span's id.
SPAN_ID_MASK = (1 << 64) - 1


class HopTracerProvider(TracerProvider):
    """OpenTelemetry's provider, whose spans become records in *sink*.

    Without a sink, spans go to the span processors alone.
    """

    def __init__(
        self, sampler: Sampler, resource: Resource, limits: SpanLimits, sink: Sink | None = None
    ) -> None:
        super().__init__(sampler=sampler.asked, resource=resource, span_limits=limits)
        self.sink = sink or Sink()
        self.limits = limits
        self.has_narrow_limits = (
            exceeds(limits.max_span_attributes, 0)
            or exceeds(limits.max_links, 0)
            or limits.max_span_attribute_length is not None
        )
        #: The name of the service, if it replaces the one in *resource*.
        self.service_name: str | None = None
        #: The flags of a root, and those of a child by its parent's. None: the sampler is asked.
        self._root_flags = _flags(sampler.root, _RANDOM)
        children = sampler.child_of_unsampled, sampler.child_of_sampled
        self._child_flags = [_flags(children[n & _SAMPLED], n & _RANDOM) for n in range(4)]
        #: Makes the ids of spans and traces.
        self.random_bits = getrandbits
        self._processors: tuple[SpanProcessor, ...] = ()
        # Code may ask for its tracer at each call, and what a sink knows of a template is found by
        # identity.
        self._tracer = lru_cache(maxsize=1024)(self._make_tracer)

    @property
    def resource(self) -> Resource:
        """Return the resource of the spans of this process."""
        resource = super().resource
        if self.service_name is None:
            return resource
        return resource.merge(Resource({SERVICE_NAME: self.service_name}))

    def add_span_processor(self, span_processor: SpanProcessor) -> None:
        super().add_span_processor(span_processor)  # which flushes it and shuts it down
        self._processors = *self._processors, span_processor

    def remove_span_processor(self, span_processor: SpanProcessor) -> None:
        remove_span_processor(self, span_processor)
        self._processors = tuple(each for each in self._processors if each is not span_processor)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Deliver the spans that have ended, by the sink and by the span processors."""
        try:
            delivered = self.sink.flush(timeout_millis / 1000)
        except Exception:  # for example, the process has another user now
            log_internal_error("flush")
            delivered = False
        return super().force_flush(timeout_millis) and delivered

    def get_tracer(
        self,
        instrumenting_module_name: str,
        instrumenting_library_version: str | None = None,
        schema_url: str | None = None,
        attributes: Attributes = None,
    ) -> Tracer:
        """Return the tracer of an instrumentation scope, the same for the same arguments."""
        scope = (
            instrumenting_module_name or "",
            instrumenting_library_version or "",
            schema_url or "",
        )
        if attributes:
            return HopTracer(self, Scope(*scope, clean(attributes, None, None)[0]))
        return self._tracer(*scope)

    def _make_tracer(self, name: str, version: str, schema_url: str) -> "HopTracer":
        return HopTracer(self, Scope(name, version, schema_url))

    def start(
        self,
        template: SpanTemplate,
        facts: Facts | None,
        parent: Parent | None,
        context: Context,
        links: Sequence[RecordedLink] = (),
        start_time: int | None = None,
        id_bits: int = 0,
        name: str | None = None,
        attributes: Attributes = None,
    ) -> Span:
        """Start a span under *parent*, and decide whether it is sampled.

        *context* is for a sampler and for span processors. *start_time* is in Unix
        nanoseconds. *id_bits* are 128 random bits for its ids, drawn here if absent.
        """
        now = time_ns() if start_time is None else start_time
        if parent is None:
            trace_id = (id_bits or self.random_bits(128) or 1).to_bytes(16, "big")
            span_id = id_bits & SPAN_ID_MASK or self.random_bits(64) or 1
            record = Record(trace_id, span_id, now, facts=facts)
            flags = self._root_flags
        else:
            span_id = id_bits & SPAN_ID_MASK or self.random_bits(64) or 1  # an id is never zero
            record = Record(
                parent.trace_id,
                span_id,
                now,
                parent_id=parent.span_id,
                parent_is_remote=parent.is_remote,
                trace_state=parent.trace_state,
                facts=facts,
            )
            flags = self._child_flags[parent.flags & (_RANDOM | _SAMPLED)]
        if name is not None:
            record.name = name
            record.attributes, dropped = clean(
                attributes, self.limits.max_span_attributes, self.limits.max_span_attribute_length
            )
            record.dropped = dropped, 0, 0
        if links:
            record.links = list(links)
        if flags is None:
            flags, recorded = self._ask_sampler(template, record, parent, context)
        else:
            recorded = flags & _SAMPLED != 0
        record.flags = flags
        span = HopSpan(self, template, record, parent, recorded)
        if recorded:
            for processor in self._processors:
                try:
                    processor.on_start(span, parent_context=context)  # type: ignore[arg-type]
                except Exception:
                    log_internal_error("call a span processor")
        elif facts is None or not self.sink.measures:
            return NonRecordingSpan(record.span_context())
        return span

    def _ask_sampler(
        self, template: SpanTemplate, record: Record, parent: Parent | None, context: Context
    ) -> tuple[int, bool]:
        """Return the flags of *record*, and whether it is recorded at all."""
        record.flags = parent.flags if parent is not None else 0  # of a run's link to its parent
        interpretation = interpret(template, record)
        attributes = interpretation.attributes(template, record)
        above = NonRecordingSpan(parent.span_context()) if parent else INVALID_SPAN
        result = self.sampler.should_sample(
            with_span(above, context),
            int.from_bytes(record.trace_id, "big"),
            interpretation.name,
            template.span_kind,
            attributes,
            list(map(api_link, interpretation.links)),
        )
        added = {k: v for k, v in (result.attributes or {}).items() if attributes.get(k) != v}
        if added:
            record.attributes = {**(record.attributes or {}), **clean(added, None, None)[0]}
        decision = result.decision
        recorded = decision in (sampling.Decision.RECORD_ONLY, sampling.Decision.RECORD_AND_SAMPLE)
        record.trace_state = result.trace_state.to_header() if result.trace_state else ""
        flags = parent.flags & _RANDOM if parent is not None else _RANDOM
        if decision is sampling.Decision.RECORD_AND_SAMPLE:
            flags |= _SAMPLED
        return flags, recorded

    def finish(self, span: HopSpan, end_time: int | None) -> None:
        """End *span*: its record goes to the sink, and the span to the span processors."""
        sink, record = self.sink, span.record
        record.end_time = record.end_time or end_time or time_ns()
        if record.attributes or record.links or self.has_narrow_limits:
            span.apply_limits()
        if record.flags & _SAMPLED or (sink.measures and record.facts is not None):
            try:
                sink.append(span.template, record)
            except Exception:
                log_internal_error("write a span")
        if self._processors and span.recorded:
            ended = span.readable()
            for processor in self._processors:
                try:
                    processor.on_end(ended)
                except Exception:
                    log_internal_error("call a span processor")


def _flags(sampled: bool | None, random: int) -> int | None:
    if sampled is None:
        return None
    return random | _SAMPLED if sampled else random


class HopTracer(Tracer):
    """Starts the application's own spans, as records like those of the hops."""

    def __init__(self, provider: HopTracerProvider, scope: Scope) -> None:
        self._provider = provider
        # An application may have any number of span names, so they are in the records.
        self._templates = {kind: SpanTemplate("", kind.value, {}, scope) for kind in SpanKind}

    def start_span(
        self,
        name: str,
        context: Context | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Attributes = None,
        links: Sequence[Link] | None = (),
        start_time: int | None = None,
        record_exception: bool = True,
        set_status_on_exception: bool = True,
    ) -> Span:
        """Start a span under that of *context*, the current one if absent."""
        context = get_current() if context is None else context
        limits = self._provider.limits
        recorded = (recorded_link(one.context, one.attributes, limits) for one in links or ())
        parent = parent_in(context)
        try:
            span = self._provider.start(
                self._templates[kind],
                None,
                parent,
                context,
                links=[one for one in recorded if one is not None],
                start_time=start_time,
                name=name,
                attributes=attributes,
            )
        except Exception:  # another library's sampler
            log_internal_error("start a span")
            return NonRecordingSpan(parent.span_context()) if parent else INVALID_SPAN
        if isinstance(span, HopSpan):
            span.on_exception = record_exception, set_status_on_exception
        return span

    def start_as_current_span(  # type: ignore[override]  # the API wants a generator's manager
        self,
        name: str,
        context: Context | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Attributes = None,
        links: Sequence[Link] | None = (),
        start_time: int | None = None,
        record_exception: bool = True,
        set_status_on_exception: bool = True,
        end_on_exit: bool = True,
    ) -> CurrentSpan:
        """Start a span and make it current, in a ``with`` or as a decorator."""
        start = partial(self.start_span, name, context, kind, attributes, links, start_time)
        return CurrentSpan(start, record_exception, set_status_on_exception, end_on_exit)
