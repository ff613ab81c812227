"""One attempt at a task: its span, what is said of it, and how the code inside of it finds it."""

import time
from collections.abc import Mapping
from contextvars import Token
from dataclasses import dataclass
from typing import Any, ClassVar

from opentelemetry.context import Context
from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE
from opentelemetry.trace import Span
from opentelemetry.util.types import AttributeValue

from .. import otlp
from ..current import get_current
from ..hop import error_type, fail, finish
from ..propagation import SENT_AT, SPAN_KEY
from ..series import Measured, Series, series
from .message import CELERY_TASK_STATE, Facts
from .waits import PREFETCH, QUEUE, SCHEDULED, SKEWED, Waits, parse_eta, parse_time, waits

__all__ = ["ALL_WAITS", "RECEIVED_AT", "Run", "RunFacts", "current_run", "waited"]

#: When the worker's main process took the message; from there to the child, never on the wire.
RECEIVED_AT = "queuehop-received-at"

#: Where the code inside of a run finds it: in the context, which follows threads and greenlets.
_IN_CONTEXT = "queuehop-run"


@dataclass(slots=True)
class Run:
    """One attempt at the task of *id*: its span, and the *context* that its message brought.

    *series* is None where a run is not measured; *waits* are the last of its values.
    """

    id: object
    span: Span
    context: Context
    series: Series | None
    waits: tuple[float, ...]
    started: float
    token: Token[Context] | None = None
    #: Where it stands while it lasts, under ``_ON_REQUEST``: the attributes of ``task.request``.
    request: dict[str, Any] | None = None

    def inside(self) -> Context:
        """Return the context that its code runs in."""
        return Context({**self.context, SPAN_KEY: self.span, _IN_CONTEXT: self})

    def fail(self, exc: BaseException) -> None:
        """Mark the run as failed by *exc*."""
        fail(self.span, exc)
        if self.series is not None:
            attributes = {**self.series.attributes, ERROR_TYPE: error_type(exc)}
            self.series = series(self.series.names, attributes)

    def end(self, state: str | None = None) -> None:
        """Count and time the run, and end the span, which says its *state* if that is known."""
        if state is not None:
            self.span.set_attribute(CELERY_TASK_STATE, state)
        measured: Measured | None = None
        if self.series is not None:
            measured = self.series, (1, max(0.0, time.time() - self.started), *self.waits)
        finish(self.span, measured)


def current_run() -> Run | None:
    """Return the run that the caller is inside of."""
    run = get_current().get(_IN_CONTEXT)
    return run if isinstance(run, Run) else None


class RunFacts(Facts):
    """What is said of one run alone: of its message, and how long that waited; None if unknown."""

    __slots__ = ("_skewed", "names", "values")

    keys: ClassVar[frozenset[str]] = frozenset({*Facts.keys, SCHEDULED, QUEUE, PREFETCH, SKEWED})

    #: The waits that are known, and their seconds.
    names: tuple[str, ...]
    values: tuple[float, ...]

    def __init__(self, message: Mapping[str, Any], waits: Waits | None) -> None:
        self.headers = message
        if waits is None:
            self.names, self.values, self._skewed = (), (), False
        else:
            scheduled, queue, prefetch, skewed = waits
            self._skewed = skewed
            if queue is None:
                self.names, self.values = _UNSENT, (scheduled, prefetch)
            else:
                self.names, self.values = ALL_WAITS, (scheduled, queue, prefetch)

    def attributes(self) -> dict[str, AttributeValue]:
        waits = dict(zip(self.names, self.values, strict=True))
        skewed = {SKEWED: True} if self._skewed else {}
        return {**super().attributes(), **waits, **skewed}

    def encoded(self) -> bytes:
        encoded = Facts.encoded(self)
        if self.names is ALL_WAITS:
            encoded += _encode_waits(self.values)
        elif self.names:
            encoded += otlp.encode_attributes(dict(zip(self.names, self.values, strict=True)))
        if self._skewed:
            encoded += otlp.encode_attributes({SKEWED: True})
        return encoded


ALL_WAITS, _UNSENT = (SCHEDULED, QUEUE, PREFETCH), (SCHEDULED, PREFETCH)
_encode_waits = otlp.three_doubles(*ALL_WAITS)


def waited(message: Mapping[str, Any], own: Mapping[str, Any], started: float) -> Waits:
    """Return how long *message* waited until it *started*; *own* are those of its headers ours."""
    eta = message.get("eta")
    return waits(
        parse_time(own.get(SENT_AT)),
        parse_eta(eta) if eta else None,
        parse_time(message.get(RECEIVED_AT)),
        started,
    )
