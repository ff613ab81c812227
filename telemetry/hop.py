"""One hop, one ``with``: started, current while it lasts, failed or ended on every way out."""

import traceback
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from importlib import metadata
from time import perf_counter

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE
from opentelemetry.semconv.attributes.exception_attributes import (
    EXCEPTION_MESSAGE,
    EXCEPTION_STACKTRACE,
)
from opentelemetry.semconv.schemas import Schemas
from opentelemetry.trace import Link, Span, SpanContext, Status, StatusCode
from opentelemetry.util.types import AttributeValue

from . import faults
from .current import attach, detach, get_current
from .light import Facts, Light, LightSpan, Shape
from .propagation import SPAN_KEY
from .series import Measured
from .setup import measure

__all__ = [
    "Hop",
    "describe",
    "error_type",
    "fail",
    "finish",
    "parent_in",
    "record",
    "scope",
    "start",
    "within",
]

#: The name under which the spans are found, whatever the folder is called.
SCOPE = "queuehop"

Attributes = Mapping[str, AttributeValue]


@cache
def version() -> str:
    """Return the version of the installed distribution, empty for a copied folder."""
    try:
        return metadata.version(SCOPE)
    except metadata.PackageNotFoundError:
        return ""


NOTHING = Context()

#: The newest conventions that the installed constants know.
SCHEMA_URL = list(Schemas)[-1].value


def start(
    shape: Shape,
    parent: SpanContext | None,
    *,
    context: Context = NOTHING,
    attributes: dict[str, AttributeValue] | None = None,
    facts: Facts | None = None,
    links: Sequence[SpanContext] = (),
    start_time: int | None = None,
) -> Span:
    """Start a span of *shape* under *parent*; where tracing fails, one that records nothing.

    *context* is what a sampler may look at besides. *attributes*, which become the span's, and
    *facts* are those that the shape does not have; *links* are valid; *start_time* is in
    nanoseconds.
    """
    own = {} if attributes is None else attributes
    try:
        provider = trace.get_tracer_provider()
        light: Light | None = getattr(provider, "light", None)
        if light is not None:
            span = light.start(shape, parent, own, facts, links, start_time)
            if span is not None:
                return span
        said = {**shape.attributes, **(facts.attributes() if facts else {}), **own}
        above = trace.NonRecordingSpan(parent) if parent else trace.INVALID_SPAN
        context = trace.set_span_in_context(above, context)
        to = [Link(one) for one in links]
        return _tracer(provider).start_span(shape.name, context, shape.kind, said, to, start_time)
    except Exception:
        faults.report("start a span")
        return trace.NonRecordingSpan(parent or trace.INVALID_SPAN_CONTEXT)


def describe(span: Span, shape: Shape, facts: Facts | None = None) -> None:
    """Say of *span* what was not known when it began: *shape* says what its first one did, too."""
    if isinstance(span, LightSpan) and span.describe(shape, facts):
        return
    if span.is_recording():
        span.update_name(shape.name)
        span.set_attributes({**shape.attributes, **(facts.attributes() if facts else {})})


def parent_in(context: Context) -> SpanContext | None:
    """Return the span of *context*, None if it has none."""
    span = context.get(SPAN_KEY)
    if type(span) is LightSpan:  # most often, and always valid
        return span._context
    if span is None or not isinstance(span, Span):
        return None
    span_context = span.get_span_context()
    return span_context if span_context.is_valid else None


@lru_cache(maxsize=1)
def _tracer(provider: trace.TracerProvider) -> trace.Tracer:
    # The SDK's own look-up adds a warnings filter, every time: 15 µs of a run.
    return provider.get_tracer(SCOPE, version(), schema_url=SCHEMA_URL)


@cache
def scope() -> InstrumentationScope:
    """Return the scope of the hops' spans."""
    return InstrumentationScope(SCOPE, version(), SCHEMA_URL)


def within(span: Span, context: Context) -> Context:
    """Return *context* with *span* as its span."""
    return Context({**context, SPAN_KEY: span})


class Hop:
    """``with Hop(…) as span``: run the block inside a span of its own, failed by an exception.

    The exception goes on to the caller. Nothing stays current afterwards. *attributes* and *links*
    are as for ``start``; *secrets* are what an exception may quote and a span must not. Inside of
    the block the hop itself stands in the context, under ``key``.
    """

    __slots__ = ("_attributes", "_began", "_links", "_secrets", "_shape", "_token", "error", "span")

    key = "queuehop-hop"

    def __init__(
        self,
        shape: Shape,
        attributes: dict[str, AttributeValue] | None = None,
        links: Sequence[SpanContext] = (),
        secrets: Sequence[str] = (),
    ) -> None:
        self._shape = shape
        self._attributes = attributes
        self._links = links
        self._secrets = secrets
        self.error: str | None = None

    def __enter__(self) -> Span:
        context = get_current()
        self.span = span = start(
            self._shape,
            parent_in(context),
            context=context,
            attributes=self._attributes,
            links=self._links,
        )
        inside = Context({**context, SPAN_KEY: span, self.key: self})
        self._token = attach(inside)
        self._began = perf_counter()
        return span

    def __exit__(self, kind: object, exc: BaseException | None, traceback: object) -> None:
        seconds = perf_counter() - self._began
        detach(self._token)
        if exc is not None:
            self.error = error_type(exc)
            fail(self.span, exc, self._secrets)
        try:
            measured = self.measured(seconds)
        except Exception:
            faults.report("measure a hop")
            measured = None
        finish(self.span, measured)

    def measured(self, seconds: float) -> Measured | None:
        """Return what is measured of the block, which took so many *seconds*."""
        return None


def finish(span: Span, measured: Measured | None) -> None:
    """End *span*, and keep what was *measured* of it."""
    if isinstance(span, LightSpan):
        span.end(None, measured)  # one write
    else:
        if measured is not None:
            measure(*measured)
        span.end()


def fail(span: Span, exc: BaseException, secrets: Sequence[str] = ()) -> None:
    """Mark *span* as failed by *exc*: status ERROR, ``error.type``, one exception event."""
    span.set_status(Status(StatusCode.ERROR, type(exc).__name__))
    span.set_attribute(ERROR_TYPE, error_type(exc))
    record(span, exc, secrets)


def record(span: Span, exc: BaseException, secrets: Sequence[str] = ()) -> None:
    """Add the exception event of *exc* to *span*, leaving its status alone."""
    try:
        if not secrets:
            span.record_exception(exc)
            return
        message, stacktrace = str(exc), "".join(traceback.format_exception(exc))
        for secret in secrets:
            message, stacktrace = message.replace(secret, "…"), stacktrace.replace(secret, "…")
        # What is given here stands over what the SDK would put.
        told = {EXCEPTION_MESSAGE: message, EXCEPTION_STACKTRACE: stacktrace}
        span.record_exception(exc, attributes=told)
    except Exception:  # a message or a traceback that cannot be formatted
        faults.report("describe an exception")


def error_type(exc: BaseException) -> str:
    """Return the fully qualified class name of *exc*, as ``error.type`` wants it."""
    module, name = type(exc).__module__, type(exc).__qualname__
    return name if module == "builtins" else f"{module}.{name}"
