"""The application's own ``start_as_current_span``: a span that is current while a block runs."""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any

from opentelemetry.trace import Span

from .context import attach, detach, get_current, with_span
from .interrupts import cleans_up
from .span import fail_as_asked


class CurrentSpan:
    """``with CurrentSpan(start) as span``: a span that is current inside, or a decorator for it.

    Like the API's ``start_as_current_span``, with the same arguments.
    """

    def __init__(
        self,
        start: Callable[[], Span],
        record_exception: bool,
        set_status_on_exception: bool,
        end_on_exit: bool,
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
