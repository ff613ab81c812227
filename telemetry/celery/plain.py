"""The fast path of a run: its message brings a traceparent and nothing else, and it succeeds.

Nothing of such a message is read in the process that runs the task, neither when the run begins nor
when it ends: its own words are kept, and the sender makes a span of them. Until then they are read
for whoever asks: a log line, a publish. A test holds what is received of it against what the other
way makes of the same.
"""

import re
from collections.abc import Mapping
from time import time_ns
from typing import Any

from celery import states
from opentelemetry.semconv._incubating.attributes.messaging_attributes import MESSAGING_MESSAGE_ID

from ..hop import NOTHING
from ..light import Later, Light, LightSpan, Shape, child_of
from ..propagation import (
    BAGGAGE,
    LINKS,
    RELATION,
    SAMPLED,
    SENT_AT,
    TRACEPARENT,
    TRACESTATE,
    parse_traceparent,
)
from ..series import Series
from ..spool.template import Template, parts
from .message import CELERY_GROUP_ID, CELERY_PARENT_ID, CELERY_ROOT_ID, CELERY_TASK_STATE
from .run import ALL_WAITS, RECEIVED_AT, Run, RunFacts

__all__ = ["begin_plain", "template_of"]

#: What a run is kept as: the traceparent and the ids of its message.
_WORDS = re.compile(SAMPLED + r"(?:\0[^\0]*){4}").fullmatch

_IDS = (MESSAGING_MESSAGE_ID, CELERY_ROOT_ID, CELERY_PARENT_ID, CELERY_GROUP_ID)

Waits = tuple[float, float, float]


def template_of(shape: Shape) -> Template | None:
    """Return the template of the runs of *shape*; None where the SDK must be asked."""
    try:
        return Template(shape, _IDS, ALL_WAITS, {CELERY_TASK_STATE: states.SUCCESS})
    except (TypeError, ValueError):
        return None


def begin_plain(
    light: Light, template: Template, series: Series, message: Mapping[str, Any]
) -> Run | None:
    """Start the run of a *message* that brings no more than its words; None for any other."""
    words = _words(message)
    if words is None or not light.children:
        return None
    start_time = time_ns()
    started = start_time / 1e9
    waits = _waits(message, started)
    if waits is None:
        return None
    span: PlainSpan = object.__new__(PlainSpan)
    span._light = light
    span._shape = shape = template.shape
    span._name = shape.name
    span._own = {}
    span._start_time = start_time
    span._pending = span._unclaimed = True
    span._id = light.new_id()
    span._template = template
    span._words = words
    span._message = message
    span._waits = waits
    return PlainRun(message["id"], span, NOTHING, series, waits, started)


def _words(message: Mapping[str, Any]) -> bytes | None:
    """Return the words of a *message* that says no more, and whose trace is sampled."""
    if TRACESTATE in message or BAGGAGE in message or LINKS in message or RELATION in message:
        return None
    get = message.get
    if get("retries") or get("eta"):
        return None
    root, parent, group = get("root_id") or "", get("parent_id") or "", get("group") or ""
    try:
        words = "\0".join((message[TRACEPARENT], message["id"], root, parent, group))
        return words.encode() if _WORDS(words) else None
    except (KeyError, TypeError, UnicodeEncodeError):
        return None


def _waits(message: Mapping[str, Any], started: float) -> Waits | None:
    """Return what ``waits.waits`` does, without what it has to consider of other messages."""
    sent, received = message.get(SENT_AT), message.get(RECEIVED_AT)
    if type(sent) is not str or type(received) is not float:
        return None
    try:
        waits = 0.0, received - float(sent), started - received
    except ValueError:
        return None
    return waits if 0.0 <= waits[1] <= received and waits[2] >= 0.0 else None


class PlainSpan(LightSpan):
    """The light span of a run: its *words* are read only if somebody asks."""

    __slots__ = ("_id", "_message", "_template", "_waits", "_words")

    _id: int
    _message: Mapping[str, Any]
    _template: Template
    _waits: Waits
    _words: bytes

    _facts = Later(lambda span: RunFacts(span._message, (*span._waits, False)))
    _parent = Later(lambda span: parse_traceparent(span._words[:55].decode()))
    _context = Later(lambda span: child_of(span._parent, span._id))
    _linked = Later(lambda span: (span._parent,))


class PlainRun(Run):
    """A run whose words are kept, if it succeeds and nothing was added to its span."""

    __slots__ = ()

    span: PlainSpan
    series: Series

    def end(self, state: str | None = None) -> None:
        """Count and time the run, and end the span, which says its *state*."""
        span, series = self.span, self.series
        usual = state == states.SUCCESS and span._name is span._shape.name and not span._own
        if not (usual and span._claim()):
            super().end(state)
            return
        span._end_time = end = time_ns()
        seconds = max(0.0, (end - span._start_time) / 1e9)
        own = parts(span._id, span._start_time, end, span._words)
        light = span._light
        measured = series, (1, seconds, *self.waits)
        light.keeper.keep_parts(span._template, own, light.provider.resource, measured)
