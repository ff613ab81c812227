"""The propagators that ``OTEL_PROPAGATORS`` names, as one."""

import os
from collections.abc import Sequence
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from opentelemetry.context import Context
from opentelemetry.environment_variables import OTEL_PROPAGATORS
from opentelemetry.propagators.textmap import (
    Getter,
    Setter,
    TextMapPropagator,
    default_getter,
    default_setter,
)

from ..tracing.faults import is_soft_time_limit, log_internal_error, logger
from ..tracing.interrupts import uninterrupted
from ..tracing.tracestate import TRACESTATE
from .baggage import BAGGAGE, Baggage
from .traceparent import TRACEPARENT, TraceContext


class Propagators(TextMapPropagator):
    """Several propagators, one after the other. If one fails, the others still run."""

    def __init__(self, propagators: Sequence[TextMapPropagator]) -> None:
        self._propagators = propagators
        self._fields = {name for one in propagators for name in one.fields}
        #: The headers that name a span.
        self.parent_fields = frozenset(self._fields - {BAGGAGE, TRACESTATE})
        w3c = all(isinstance(one, TraceContext | Baggage) for one in propagators)
        #: The headers to read, in lower case. None for all: a propagator of another library may
        #: read more headers than it writes.
        self.wanted = frozenset(self._fields) if w3c else None
        #: Their names in a WSGI environment, and their own names.
        self.in_environ = [("HTTP_" + name.upper(), name) for name in self._fields]
        #: Whether a ``traceparent`` without other headers is the whole context.
        self.traceparent_suffices = w3c and TRACEPARENT in self._fields

    def extract(
        self, carrier: Any, context: Context | None = None, getter: Getter[Any] = default_getter
    ) -> Context:
        """Return *context* with what each propagator reads from *carrier*."""
        context = Context() if context is None else context
        for one in self._propagators:
            try:
                context = one.extract(carrier, context, getter=getter)
            except Exception:
                log_internal_error(f"read headers by {type(one).__name__}")
        return context

    def inject(
        self, carrier: Any, context: Context | None = None, setter: Setter[Any] = default_setter
    ) -> None:
        """Let each propagator write *context*, by default the current one, into *carrier*."""
        for one in self._propagators:
            try:
                one.inject(carrier, context, setter=setter)
            except Exception:
                log_internal_error(f"write headers by {type(one).__name__}")

    @property
    def fields(self) -> set[str]:
        return set(self._fields)


@cache
@uninterrupted  # importlib.metadata swallows exceptions
def configured_propagators() -> Propagators:
    """Return the propagators that ``OTEL_PROPAGATORS`` names: by default W3C's two.

    The variable is read once a process. They never raise, so they may be OpenTelemetry's global
    propagator.
    """
    setting = os.environ.get(OTEL_PROPAGATORS, "")
    names = [name for item in setting.lower().split(",") if (name := item.strip())]
    made = map(_propagator, dict.fromkeys(names or ("tracecontext", "baggage")))
    return Propagators([one for one in made if one is not None])


def _propagator(name: str) -> TextMapPropagator | None:
    if name == "none":
        return None
    if name == "tracecontext":
        return TraceContext()
    if name == "baggage":
        return Baggage()
    try:
        entry = next(iter(entry_points(group="opentelemetry_propagator", name=name)), None)
        if entry is None:
            logger.warning(
                "%s names %r, which is not installed; ignoring it", OTEL_PROPAGATORS, name
            )
            return None
        made: TextMapPropagator = entry.load()()
        _ = made.fields
        return made
    except Exception as exc:
        if is_soft_time_limit(exc):
            raise
        logger.warning(
            "%s names %r, which cannot be loaded (%s); ignoring it",
            OTEL_PROPAGATORS,
            name,
            type(exc).__name__,
        )
        return None
