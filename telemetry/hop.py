"""One hop, one ``with``: started, current while it lasts, failed or ended on every way out."""

import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, lru_cache
from importlib import metadata

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE
from opentelemetry.semconv.attributes.exception_attributes import (
    EXCEPTION_MESSAGE,
    EXCEPTION_STACKTRACE,
)
from opentelemetry.semconv.schemas import Schemas
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode
from opentelemetry.util.types import AttributeValue

from . import faults

__all__ = ["error_type", "fail", "hop", "record", "start"]

#: The name under which the spans are found, whatever the folder is called.
SCOPE = "queuehop"

Attributes = Mapping[str, AttributeValue]
#: What was counted or timed, by the name of the instrument.
Values = Mapping[str, float]


@cache
def version() -> str:
    """Return the version of the installed distribution, empty for a copied folder."""
    try:
        return metadata.version(SCOPE)
    except metadata.PackageNotFoundError:
        return ""


#: The newest conventions that the installed constants know.
SCHEMA_URL = list(Schemas)[-1].value


def start(
    name: str,
    kind: SpanKind,
    *,
    context: Context | None = None,
    attributes: Attributes | None = None,
    links: Sequence[Link] = (),
    start_time: int | None = None,
) -> Span:
    """Start a span; where tracing itself fails, one that records nothing.

    *context* holds the parent, the current one if absent; *start_time* is in nanoseconds.
    """
    try:
        tracer = _tracer(trace.get_tracer_provider())
        return tracer.start_span(name, context, kind, attributes, links, start_time)
    except Exception:
        faults.report("start a span")
        return trace.NonRecordingSpan(trace.get_current_span(context).get_span_context())


@lru_cache(maxsize=1)
def _tracer(provider: trace.TracerProvider) -> trace.Tracer:
    # The SDK's own look-up adds a warnings filter, every time: 15 µs of a run.
    return provider.get_tracer(SCOPE, version(), schema_url=SCHEMA_URL)


@contextmanager
def hop(
    name: str,
    kind: SpanKind,
    *,
    context: Context | None = None,
    attributes: Attributes | None = None,
    links: Sequence[Link] = (),
    secrets: Sequence[str] = (),
) -> Iterator[Span]:
    """Run the block inside a span of its own, which an exception marks as failed.

    The exception goes on to the caller. Nothing stays current afterwards. *secrets* are what an
    exception may quote and a span must not.
    """
    span = start(name, kind, context=context, attributes=attributes, links=links)
    token = otel_context.attach(trace.set_span_in_context(span, context))
    try:
        yield span
    except BaseException as exc:
        fail(span, exc, secrets)
        raise
    finally:
        otel_context.detach(token)
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
