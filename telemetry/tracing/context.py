"""OpenTelemetry's current context: set, and restored on every way out."""

import inspect
import os
from collections.abc import Callable
from contextvars import ContextVar, Token
from functools import wraps
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.environment_variables import OTEL_PYTHON_CONTEXT
from opentelemetry.trace import INVALID_SPAN, Span

from .faults import log_internal_error
from .interrupts import cleans_up
from .record import Parent, ParentContext
from .span import HopSpan, fail_as_asked

__all__ = [
    "SPAN",
    "CurrentSpan",
    "attach",
    "detach",
    "get_current",
    "parent_in",
    "parent_of",
    "with_span",
]

#: The key of the current span in a context.
SPAN = next(iter(trace.set_span_in_context(INVALID_SPAN, Context())))


def _context_variable() -> ContextVar[Context] | None:
    """Return the variable of OpenTelemetry's context, None if that is somewhere else."""
    if os.environ.get(OTEL_PYTHON_CONTEXT, _DEFAULT) != _DEFAULT:
        return None
    token = otel_context.attach(Context())
    otel_context.detach(token)
    variable = getattr(token, "var", None)
    return variable if isinstance(variable, ContextVar) else None


_DEFAULT = "contextvars_context"
_variable = _context_variable()

get_current: Callable[[], Context]
attach: Callable[[Context], Token[Context]]
if _variable is None:
    get_current, attach = otel_context.get_current, otel_context.attach
else:  # without the calls in between
    get_current, attach = _variable.get, _variable.set


def detach(token: Token[Context]) -> None:
    """Restore the context from before ``attach`` returned *token*. A second time does nothing.

    OpenTelemetry's own function would swallow the exception of a soft time limit.
    """
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


class CurrentSpan:
    """``with CurrentSpan(start) as span``: a span that is current inside, or a decorator for it.

    Like the API's ``start_as_current_span``, with the same arguments.
    """

    def __init__(
        self,
        start: Callable[[], Span],
        record_exception: bool = True,
        set_status_on_exception: bool = True,
        end_on_exit: bool = True,
    ) -> None:
        self._start = start
        self._on_exception = record_exception, set_status_on_exception
        self._end_on_exit = end_on_exit

    def __enter__(self) -> Span:
        context = get_current()
        try:
            self._span = self._start()
            self._token = attach(with_span(self._span, get_current()))
        except BaseException:  # a signal that was raised in the middle
            attach(context)
            raise
        return self._span

    @cleans_up
    def __exit__(self, kind: object, exc: BaseException | None, traceback: object) -> None:
        try:
            self._leave(exc)
        except BaseException:
            self._leave(None)  # a signal, such as a soft time limit's, raised in the middle
            raise

    def _leave(self, exc: BaseException | None) -> None:
        detach(self._token)
        if self._span.is_recording():
            if isinstance(exc, Exception):
                fail_as_asked(self._span, exc, *self._on_exception)
            if self._end_on_exit:
                self._span.end()

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def again() -> CurrentSpan:
            return CurrentSpan(self._start, *self._on_exception, self._end_on_exit)

        if inspect.iscoroutinefunction(function):

            @wraps(function)
            async def traced_coroutine(*args: Any, **kwargs: Any) -> Any:
                with again():
                    return await function(*args, **kwargs)

            return traced_coroutine

        @wraps(function)
        def traced(*args: Any, **kwargs: Any) -> Any:
            with again():
                return function(*args, **kwargs)

        return traced
