"""A hop's span where the application has a tracer provider of another class.

Such a span cannot read the hop's facts. So they are set on it as attributes: those that are known
when it starts, and those that have changed when it is described again or ends.
"""

from collections.abc import Sequence
from time import time_ns

from opentelemetry.context import Context
from opentelemetry.trace import INVALID_SPAN, NonRecordingSpan, Span, TracerProvider

from .context import with_span
from .interpret import interpret
from .interrupts import cleans_up
from .record import Facts, Parent, Record, RecordedLink, SpanTemplate
from .span import api_link


class ForeignSpan:
    """The *span* of a hop, started by *provider*. Describes it by the hop's *facts*."""

    def __init__(
        self,
        provider: TracerProvider,
        template: SpanTemplate,
        facts: Facts,
        parent: Parent | None,
        context: Context,
        links: Sequence[RecordedLink],
        start_time: int | None,
    ) -> None:
        self._template = template
        self._record = record = Record(
            parent.trace_id if parent else bytes(16),
            0,
            time_ns() if start_time is None else start_time,
            parent_id=parent.span_id if parent else 0,
            facts=facts,
            links=list(links),
        )
        self._described = described = interpret(template, record)
        above = NonRecordingSpan(parent.span_context()) if parent else INVALID_SPAN
        scope = template.scope
        # As OpenTelemetry's API calls it: a proxy need not name the parameters as the API does.
        tracer = provider.get_tracer(scope.name, scope.version, scope.schema_url)
        self.span: Span = tracer.start_span(
            described.name,
            context=with_span(above, context),
            kind=template.span_kind,
            attributes=described.attributes(template, record),
            links=list(map(api_link, described.links)),
            start_time=record.start_time,
        )

    def describe(self) -> None:
        """Set the facts that have changed. The rest may be what the code inside has set."""
        span, described = self.span, self._described
        if not span.is_recording():
            return
        self._described = now = interpret(self._template, self._record)
        if now.name != described.name:
            span.update_name(now.name)
        for key, value in now.facts.items():
            if described.facts.get(key) != value:
                span.set_attribute(key, value)

    @cleans_up
    def end(self) -> None:
        """End the span, with the facts as they are now."""
        try:
            self.describe()
        finally:
            self.span.end()
