"""What is current: OpenTelemetry's context, set and put back on every way out."""

import inspect
import os
from collections.abc import Callable
from contextvars import Token
from functools import cache, wraps
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context, attach, get_current
from opentelemetry.environment_variables import OTEL_PYTHON_CONTEXT
from opentelemetry.trace import Span

from .faults import log_internal_error
from .interrupts import cleans_up
from .record import ParentContext
from .span import HopSpan, fail_as_asked

__all__ = ["CurrentSpan", "attach", "detach", "get_current", "parent_in", "parent_of"]


def detach(token: Token[Context]) -> None:
    """Make current what was so before ``attach`` returned *token*. A second time does nothing.

    OpenTelemetry's own function would swallow the exception of a soft time limit.
    """
    if _has_other_context():
        otel_context.detach(token)
        return
    try:
        token.var.reset(token)
    except RuntimeError:  # used already
        pass
    except ValueError:
        log_internal_error("restore the context: the code inside ended in another one")


@cache
def _has_other_context() -> bool:
    """Return whether OpenTelemetry's context is somewhere else than in a context variable."""
    return os.environ.get(OTEL_PYTHON_CONTEXT, _DEFAULT) != _DEFAULT


_DEFAULT = "contextvars_context"


def parent_in(context: Context) -> ParentContext | None:
    """Return the span that is current in *context* as a parent, None if it has no valid one."""
    return parent_of(trace.get_current_span(context)) if context else None


def parent_of(span: Span) -> ParentContext | None:
    """Return *span* as the parent of another, None if its context is invalid."""
    if isinstance(span, HopSpan):
        return span.record.as_parent()
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
            self._token = attach(trace.set_span_in_context(self._span))
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
