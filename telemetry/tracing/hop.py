"""One hop, one ``with``: started, current while it lasts, failed or ended on every way out."""

import traceback
from collections.abc import Sequence
from contextvars import Token
from typing import Any, ClassVar, Generic, Self, TypeVar

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.semconv.attributes.exception_attributes import (
    EXCEPTION_MESSAGE,
    EXCEPTION_STACKTRACE,
)
from opentelemetry.trace import INVALID_SPAN, NonRecordingSpan, Span, Status, StatusCode

from .context import NO_CONTEXT, SPAN, attach, detach, get_current, parent_in, with_span
from .faults import log_internal_error
from .foreign import ForeignSpan
from .interrupts import cleans_up
from .provider import HopTracerProvider
from .record import Facts, Parent, RecordedLink, SpanTemplate
from .span import HopSpan, error_type, exception_message

F = TypeVar("F", bound=Facts)


class Hop(Generic[F]):
    """One hop: its span, and the facts that are filled in until it ends.

    Either ``with Hop(template, facts) as span``, which an exception fails and passes on, or
    ``start`` and ``end`` side by side. Whatever tracing raises is logged, and the span then records
    nothing.
    """

    #: The key under which the code inside finds the hop in its context, if it needs to.
    key: ClassVar[str] = ""

    span: Span = INVALID_SPAN
    #: The links of the span, for a ``with``.
    links: Sequence[RecordedLink] = ()
    #: Texts that an exception may quote and a span must not.
    secrets: Sequence[str] = ()
    #: Describes and ends the span, if another provider has made it.
    _foreign: ForeignSpan | None = None
    #: Restores the context from before ``attach``.
    token: Token[Context] | None = None

    def __init__(self, template: SpanTemplate, facts: F) -> None:
        self.template = template
        self.facts = facts

    def start(
        self,
        parent: Parent | None,
        context: Context = NO_CONTEXT,
        links: Sequence[RecordedLink] = (),
        start_time: int | None = None,
        id_bits: int = 0,
    ) -> Span:
        """Start the span under *parent*, at *start_time* in Unix nanoseconds or now.

        *context* is for a sampler that the application has set. *id_bits* are 128 random bits for
        the span's ids, drawn by the provider if absent. Another library's provider draws its own.
        """
        try:
            provider = trace.get_tracer_provider()
            if isinstance(provider, HopTracerProvider):
                self.span = provider.start(
                    self.template, self.facts, parent, context, links, start_time, id_bits
                )
            else:
                self._foreign = ForeignSpan(
                    provider, self.template, self.facts, parent, context, links, start_time
                )
                self.span = self._foreign.span
        except Exception:
            log_internal_error("start a span")
            self.span = NonRecordingSpan(parent.span_context()) if parent else INVALID_SPAN
        return self.span

    @classmethod
    def current(cls) -> Self | None:
        """Return the innermost hop of this class around the current context."""
        hop: Any = get_current().get(cls.key)
        return hop  # type: ignore[no-any-return]

    def attach(self, context: Context) -> None:
        """Make the span current, in *context*, until ``detach``."""
        if self.key:
            self.token = attach(Context({**context, SPAN: self.span, self.key: self}))
        else:
            self.token = attach(with_span(self.span, context))

    def detach(self) -> None:
        """Restore the context from before ``attach``. A second call does nothing."""
        detach(self.token)

    def fail(self, exc: BaseException) -> None:
        """Mark the span as failed by *exc*: status ERROR, ``error.type``, one exception event."""
        self.facts.error = error_type(exc)
        self.set_error(type(exc).__name__)
        self.record_exception(exc)

    def set_error(self, description: str | None = None) -> None:
        """Set the status ERROR."""
        try:
            self.span.set_status(Status(StatusCode.ERROR, description))
        except Exception:
            log_internal_error("set a status")

    def record_exception(self, exc: BaseException) -> None:
        """Add the event of *exc* and leave the status alone."""
        try:
            if not self.secrets:
                self.span.record_exception(exc)
                return
            message = exception_message(exc)
            stacktrace = "".join(traceback.format_exception(exc))
            for secret in self.secrets:
                message, stacktrace = message.replace(secret, "…"), stacktrace.replace(secret, "…")
            cleared = {EXCEPTION_MESSAGE: message, EXCEPTION_STACKTRACE: stacktrace}
            self.span.record_exception(exc, attributes=cleared)
        except Exception:  # a message or a traceback that cannot be formatted
            log_internal_error("describe an exception")

    def end(self) -> None:
        """End the span with its facts. A second call does nothing."""
        span = self.span
        try:
            if isinstance(span, HopSpan):
                span.end_once()
            elif (foreign := self._foreign) is not None:
                self._foreign = None
                foreign.end()
        except Exception:
            log_internal_error("end a span")

    def describe(self) -> None:
        """Set the facts on another provider's span. A ``HopSpan`` reads them itself."""
        try:
            if self._foreign is not None:
                self._foreign.describe()
        except Exception:
            log_internal_error("describe a hop")

    def __enter__(self) -> Span:
        context = get_current()
        try:
            self.start(parent_in(context), context, self.links)
            self.attach(context)
        except BaseException as exc:
            self.__exit__(type(exc), exc, None)  # a signal, such as a soft time limit's
            attach(context)
            raise
        return self.span

    @cleans_up
    def __exit__(self, kind: object, exc: BaseException | None, traceback: object) -> None:
        try:
            self._leave(exc)
        except BaseException:
            self._leave(None)  # a signal that was raised in the middle
            raise

    def _leave(self, exc: BaseException | None) -> None:
        self.detach()
        if exc is not None:
            self.fail(exc)
        self.end()
