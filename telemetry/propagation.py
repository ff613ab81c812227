"""How a context is written into headers and read from them: the one file that knows the formats.

W3C Trace Context Level 2 and W3C Baggage, over HTTP and through the queue alike. OpenTelemetry's
own propagator falls short of the first in ``tracestate``: it refuses keys that Level 2 allows, and
drops single members where the Recommendation has the whole list dropped or kept.
"""

import logging
import os
import re
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from functools import cache
from importlib.metadata import entry_points
from typing import Any
from urllib.parse import quote, unquote

from opentelemetry import baggage, trace
from opentelemetry.context import Context
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.propagators.textmap import (
    CarrierT,
    Getter,
    Setter,
    TextMapPropagator,
    default_setter,
)
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState

from . import faults

__all__ = [
    "BAGGAGE",
    "LINKS",
    "SENT_AT",
    "TRACEPARENT",
    "TRACESTATE",
    "Baggage",
    "TraceContext",
    "extract",
    "fields",
    "format_links",
    "from_environ",
    "inject",
    "parse_links",
    "parse_traceparent",
    "propagator",
    "traceparent",
]

logger = logging.getLogger(__package__)

TRACEPARENT = "traceparent"
TRACESTATE = "tracestate"
BAGGAGE = "baggage"
#: When the producer handed the message over: Unix time in seconds, as a decimal string.
SENT_AT = "queuehop-sent-at"
#: What the run must link to: traceparents, comma-separated.
LINKS = "queuehop-links"

#: The keys of baggage that may leave this process, comma-separated; all, if it is not set.
BAGGAGE_ALLOW = "QUEUEHOP_BAGGAGE_ALLOW"
PROPAGATORS = "OTEL_PROPAGATORS"

_KNOWN_FLAGS = TraceFlags.SAMPLED | TraceFlags.RANDOM_TRACE_ID
_MAX_LINKS = 1024


def extract(carrier: Any, context: Context | None = None) -> Context:
    """Return the context that *carrier*, a mapping of headers, brings.

    It is added to *context*, an empty one if absent: nothing of what is current gets in. Names are
    matched whatever their case; values may be strings, bytes or lists of them, and anything else is
    as good as absent. Never raises.
    """
    context = Context() if context is None else context
    try:
        return propagator().extract(_read(carrier), context, _GETTER)
    except Exception:
        faults.report("read the context of a message")
        return context


def inject(carrier: MutableMapping[str, Any], context: Context | None = None) -> None:
    """Write *context*, the current one if absent, into *carrier*. Never raises."""
    try:
        propagator().inject(carrier, context)
    except Exception:
        faults.report("write the context into a message")


def from_environ(environ: Mapping[str, Any]) -> dict[str, Any]:
    """Return those headers of a WSGI *environ* that carry a context."""
    names = ((name, "HTTP_" + name.upper().replace("-", "_")) for name in fields())
    return {name: environ[key] for name, key in names if key in environ}


def propagator() -> TextMapPropagator:
    """Return what ``OTEL_PROPAGATORS`` asks for: ``tracecontext,baggage`` if it is not set."""
    return _propagator(os.environ.get(PROPAGATORS, ""))


def fields() -> frozenset[str]:
    """Return the names of the headers that are written and read."""
    return _fields(os.environ.get(PROPAGATORS, ""))


@cache
def _propagator(setting: str) -> TextMapPropagator:
    names = [name.strip() for name in (setting or "tracecontext,baggage").split(",")]
    made = [_named(name) for name in dict.fromkeys(names) if name and name != "none"]
    return CompositePropagator([one for one in made if one is not None])


@cache
def _fields(setting: str) -> frozenset[str]:
    return frozenset(_propagator(setting).fields)


def _named(name: str) -> TextMapPropagator | None:
    if name == "tracecontext":
        return TraceContext()
    if name == "baggage":
        return Baggage()
    try:
        (entry,) = entry_points(group="opentelemetry_propagator", name=name)
        made = entry.load()
        return made() if isinstance(made, type) else made  # type: ignore[no-any-return]
    except Exception:
        logger.warning("%s names %r, which is not installed; going without it", PROPAGATORS, name)
        return None


def _read(carrier: Any) -> dict[str, list[str]]:
    """Return the headers of *carrier* that matter, by their lower-case names."""
    wanted = fields()
    found: dict[str, list[str]] = {}
    if isinstance(carrier, Mapping):
        for name, value in carrier.items():
            if isinstance(name, bytes):
                name = name.decode("latin-1")
            if isinstance(name, str) and (name := name.lower()) in wanted:
                found.setdefault(name, []).extend(_texts(value))
    return found


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, bytes | bytearray):
        return [value.decode("latin-1")]
    if isinstance(value, list | tuple):
        return [
            text
            for item in value[:_MAX_LINKS]
            if isinstance(item, str | bytes)
            for text in _texts(item)
        ]
    return []


class _ReadGetter(Getter[Any]):
    """Gets from what ``_read`` returned."""

    def get(self, carrier: Any, key: str) -> list[str] | None:
        return carrier.get(key.lower()) or None

    def keys(self, carrier: Any) -> list[str]:
        return list(carrier)


_GETTER = _ReadGetter()


class TraceContext(TextMapPropagator):
    """``traceparent`` and ``tracestate``: W3C Trace Context Level 2."""

    fields = {TRACEPARENT, TRACESTATE}  # noqa: RUF012

    def extract(
        self,
        carrier: CarrierT,
        context: Context | None = None,
        getter: Getter[CarrierT] = _GETTER,
    ) -> Context:
        """Return *context* with the remote parent that *carrier* names, if it names one."""
        context = Context() if context is None else context
        parents = getter.get(carrier, TRACEPARENT)
        # More than one is as bad as none: which is the parent cannot be told.
        if not parents or len(parents) != 1:
            return context
        parent = parse_traceparent(parents[0])
        if parent is None:
            return context
        if states := getter.get(carrier, TRACESTATE):
            parent = SpanContext(
                parent.trace_id, parent.span_id, True, parent.trace_flags, _parse_tracestate(states)
            )
        return trace.set_span_in_context(NonRecordingSpan(parent), context)

    def inject(
        self,
        carrier: CarrierT,
        context: Context | None = None,
        setter: Setter[CarrierT] = default_setter,
    ) -> None:
        """Write the span of *context*, the current one if absent, into *carrier*."""
        span_context = trace.get_current_span(context).get_span_context()
        if span_context.is_valid:
            setter.set(carrier, TRACEPARENT, traceparent(span_context))
            if span_context.trace_state:
                setter.set(carrier, TRACESTATE, _format_tracestate(span_context.trace_state))


# Higher versions may go on after a dash; what they add is not for us to understand.
_TRACEPARENT = re.compile(
    r"[ \t]*(?!ff)(?P<version>[0-9a-f]{2})-(?P<trace>(?!0{32})[0-9a-f]{32})"
    r"-(?P<span>(?!0{16})[0-9a-f]{16})-(?P<flags>[0-9a-f]{2})(?P<more>-.*)?[ \t]*",
    re.DOTALL,
)


def parse_traceparent(text: Any) -> SpanContext | None:
    """Return the remote span that a ``traceparent`` names, or None if it is malformed."""
    match = _TRACEPARENT.fullmatch(text) if isinstance(text, str) else None
    if match is None or (match["more"] is not None and match["version"] == "00"):
        return None
    flags = TraceFlags(int(match["flags"], 16) & _KNOWN_FLAGS)
    return SpanContext(int(match["trace"], 16), int(match["span"], 16), True, flags)


def traceparent(span_context: SpanContext) -> str:
    """Return the ``traceparent`` of a span, version 00."""
    flags = span_context.trace_flags & _KNOWN_FLAGS
    return f"00-{span_context.trace_id:032x}-{span_context.span_id:016x}-{flags:02x}"


def format_links(span_contexts: Iterable[SpanContext]) -> str:
    """Return spans as a list of traceparents."""
    return ",".join(map(traceparent, span_contexts))


def parse_links(value: Any) -> list[SpanContext]:
    """Return the spans that a list of traceparents names, without what is malformed in it."""
    found = (
        parse_traceparent(one)
        for text in _texts(value)
        for one in text.split(",", _MAX_LINKS)[:_MAX_LINKS]
    )
    return [context for context in found if context is not None]


_MEMBER = re.compile(
    r"(?P<key>[a-z0-9][a-z0-9_\-*/@]{0,255})=(?P<value>[ -+\--<>-~]{0,255}[!-+\--<>-~])"
)
_MAX_MEMBERS = 32
#: Past so many characters members go: first the long ones, then the last.
_MAX_TRACESTATE = 8192
_LONG_MEMBER = 128


class _TraceState(TraceState):
    """A ``tracestate`` by Level 2's grammar, kept to the letter."""

    def __init__(self, members: Mapping[str, str]) -> None:
        super().__init__()
        self._dict = dict(members)

    def add(self, key: str, value: str) -> TraceState:
        """Return one with a new member in front, or the same where that cannot be."""
        return self if key in self._dict else self.update(key, value)

    def update(self, key: str, value: str) -> TraceState:
        """Return one with the member changed and in front, or the same where that cannot be."""
        rest = {name: kept for name, kept in self._dict.items() if name != key}
        if len(rest) >= _MAX_MEMBERS or not _MEMBER.fullmatch(f"{key}={value}"):
            return self
        return _TraceState({key: value, **rest})

    def delete(self, key: str) -> TraceState:
        """Return one without the member."""
        return _TraceState({name: kept for name, kept in self._dict.items() if name != key})


def _parse_tracestate(headers: Sequence[str]) -> TraceState | None:
    """Return the members of one or several headers; None where any of them is malformed."""
    text = ",".join(headers)
    if len(text) > _MAX_MEMBERS * 600:
        return None
    members: dict[str, str] = {}
    for member in text.split(","):
        member = member.strip(" \t")
        if not member:
            continue
        match = _MEMBER.fullmatch(member)
        if match is None:
            return None
        # One entry a key: the first is the most recent.
        members.setdefault(match["key"], match["value"])
    return _TraceState(members) if 0 < len(members) <= _MAX_MEMBERS else None


def _format_tracestate(state: TraceState) -> str:
    header = state.to_header()
    if len(header) <= _MAX_TRACESTATE:
        return header
    members = [f"{key}={value}" for key, value in state.items()]
    excess = len(header) - _MAX_TRACESTATE
    for index in reversed(range(len(members))):
        if excess > 0 and len(members[index]) > _LONG_MEMBER:
            excess -= len(members.pop(index)) + 1
    while excess > 0:
        excess -= len(members.pop()) + 1
    return ",".join(members)


class Baggage(TextMapPropagator):
    """``baggage``: W3C Baggage, within its limits in both directions."""

    fields = {BAGGAGE}  # noqa: RUF012

    def extract(
        self,
        carrier: CarrierT,
        context: Context | None = None,
        getter: Getter[CarrierT] = _GETTER,
    ) -> Context:
        """Return *context* with the baggage of *carrier*, without what is malformed in it."""
        context = Context() if context is None else context
        room, members = _MAX_BAGGAGE, 0
        for text in ",".join(getter.get(carrier, BAGGAGE) or ()).split(",", _MAX_LINKS):
            room -= len(text) + 1
            if room < 0 or members == _MAX_BAGGAGE_MEMBERS:
                break
            match = _BAGGAGE_MEMBER.fullmatch(text)
            if match is not None:
                value = _BaggageValue(unquote(match["value"], errors="replace"))
                value.properties = match["properties"] or ""
                context = baggage.set_baggage(match["key"], value, context)
                members += 1
        return context

    def inject(
        self,
        carrier: CarrierT,
        context: Context | None = None,
        setter: Setter[CarrierT] = default_setter,
    ) -> None:
        """Write the baggage of *context* that may leave this process."""
        entries = baggage.get_all(context)
        if not entries:
            return
        allowed = os.environ.get(BAGGAGE_ALLOW)
        keys = None if allowed is None else {key.strip() for key in allowed.split(",")}
        members: list[str] = []
        room = _MAX_BAGGAGE
        for key, value in entries.items():
            if (keys is not None and key not in keys) or not _TOKEN.fullmatch(key):
                continue
            properties = getattr(value, "properties", "")
            member = f"{key}={quote(str(value), safe=_BAGGAGE_SAFE)}{properties}"
            if len(member) + 1 <= room and len(members) < _MAX_BAGGAGE_MEMBERS:
                room -= len(member) + 1
                members.append(member)
        if members:
            setter.set(carrier, BAGGAGE, ",".join(members))


class _BaggageValue(str):
    """A value that remembers the properties it came with."""

    __slots__ = ("properties",)
    properties: str


_MAX_BAGGAGE, _MAX_BAGGAGE_MEMBERS = 8192, 64
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_OCTETS = r"[!#-+\--:<-\[\]-~]*"
_BAGGAGE_MEMBER = re.compile(
    rf"[ \t]*(?P<key>{_TOKEN.pattern})[ \t]*=[ \t]*(?P<value>{_OCTETS})[ \t]*"
    rf"(?P<properties>(?:;[ \t]*{_TOKEN.pattern}[ \t]*(?:=[ \t]*{_OCTETS}[ \t]*)?)*)"
)
# The octets that need no percent sign before them; the percent sign does.
_BAGGAGE_SAFE = "!#$&'()*+-./:<=>?@[]^_`{|}~"
