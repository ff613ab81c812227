"""OpenTelemetry's current context: set, and restored on every way out."""

import os
from collections.abc import Callable
from contextvars import ContextVar, Token
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.environment_variables import OTEL_PYTHON_CONTEXT
from opentelemetry.trace import INVALID_SPAN, Span

from .faults import log_internal_error
from .record import Parent, ParentContext
from .span import HopSpan

#: The key of the current span in a context.
SPAN = next(iter(trace.set_span_in_context(INVALID_SPAN, Context())))


NO_CONTEXT = Context()

_CONTEXTVARS = "contextvars_context"


def _context_variable() -> ContextVar[Context] | None:
    """Return the variable of OpenTelemetry's context, None if that is somewhere else."""
    if os.environ.get(OTEL_PYTHON_CONTEXT, _CONTEXTVARS) != _CONTEXTVARS:
        return None
    token = otel_context.attach(Context())
    otel_context.detach(token)
    variable = getattr(token, "var", None)
    return variable if isinstance(variable, ContextVar) else None


# Found once, while this module is imported: a hop calls these several times.
_variable = _context_variable()

get_current: Callable[[], Context]
attach: Callable[[Context], Token[Context]]
if _variable is None:
    get_current, attach = otel_context.get_current, otel_context.attach
else:  # without the calls in between
    get_current, attach = _variable.get, _variable.set


def detach(token: Token[Context] | None) -> None:
    """Restore the context from before ``attach`` returned *token*.

    A second call does nothing, nor does one without a token. OpenTelemetry's own function would
    swallow the exception of a soft time limit.
    """
    if token is None:
        return
    if _variable is None:
        otel_context.detach(token)
        return
    try:
        _variable.reset(token)
    except RuntimeError:  # used already
        pass
    except ValueError:
        log_internal_error("restore the context: the code inside ended in another one")


def with_span(span: Span, context: Context) -> Context:
    """Return *context* with *span* as the current one."""
    return Context({**context, SPAN: span})


def parent_in(context: Context) -> Parent | None:
    """Return the span that is current in *context* as a parent, None if it has no valid one."""
    span: Any = context.get(SPAN)
    return parent_of(span) if span is not None else None


def parent_of(span: Span) -> Parent | None:
    """Return *span* as the parent of another, None if its context is invalid."""
    if isinstance(span, HopSpan):
        return span.record
    return ParentContext.of(span.get_span_context())
