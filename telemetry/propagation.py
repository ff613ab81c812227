"""How a context is written into headers and read from them: the one file that knows the formats.

W3C Trace Context Level 2 and W3C Baggage, over HTTP and through the queue alike. OpenTelemetry's
own propagators fall short of them: ``tracestate`` keys that Level 2 allows are refused and take the
whole list with them, a second ``traceparent`` goes unseen, baggage loses its properties and takes
``+`` for a space.
"""

import logging
import os
import re
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from functools import cache
from importlib.metadata import entry_points
from itertools import islice
from struct import Struct
from typing import Any
from urllib.parse import quote, unquote

from opentelemetry import baggage, trace
from opentelemetry.context import Context
from opentelemetry.propagators.textmap import (
    CarrierT,
    Getter,
    Setter,
    TextMapPropagator,
    default_getter,
    default_setter,
)
from opentelemetry.trace import (
    DEFAULT_TRACE_STATE,
    NonRecordingSpan,
    SpanContext,
    TraceFlags,
    TraceState,
)

from . import faults
from .current import get_current

__all__ = [
    "BAGGAGE",
    "LINKS",
    "RELATION",
    "SENT_AT",
    "SPAN_KEY",
    "TRACEPARENT",
    "TRACESTATE",
    "Baggage",
    "TraceContext",
    "arrived",
    "carried",
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
_W3C = (TRACEPARENT, TRACESTATE, BAGGAGE)
#: When the producer handed the message over: Unix time in seconds, as a decimal string.
SENT_AT = "queuehop-sent-at"
#: What the run must link to: traceparents, comma-separated.
LINKS = "queuehop-links"

#: A caller's own choice for one message: ``child`` or ``link``.
RELATION = "queuehop-relation"

#: The keys of baggage that may leave this process, comma-separated; all, if it is not set.
BAGGAGE_ALLOW = "QUEUEHOP_BAGGAGE_ALLOW"
PROPAGATORS = "OTEL_PROPAGATORS"

#: More header fields, or links, than this are not looked at.
_MAX_LINKS = 1024


def extract(carrier: Any, context: Context | None = None) -> Context:
    """Return the context that *carrier*, a mapping of headers, brings.

    It is added to *context*, an empty one if absent: nothing of what is current gets in. Names are
    matched whatever their case; values may be strings, bytes or lists of them, and anything else is
    as good as absent. Never raises.
    """
    context = Context() if context is None else context
    try:
        asked_for = _configured()
        if asked_for.plain and (alone := _lone_traceparent(carrier)) is not None:
            return _with_parent(context, parse_traceparent(alone))
        return asked_for.extract(_read(carrier, asked_for.wanted), context, _FOUND)
    except Exception:
        faults.report("read the context of a message")
        return context


def arrived(
    headers: Mapping[str, Any], names: Iterable[str] | None = _W3C
) -> tuple[SpanContext | None, Context]:
    """Return the remote span that a message's *headers* name, and the context that came with it.

    As ``extract``, but for names that are written as they should be. *names* are those that are
    looked at, None for all. Never raises.
    """
    parent = headers.get(TRACEPARENT)
    if (
        type(parent) is str
        and TRACESTATE not in headers
        and BAGGAGE not in headers
        and _configured().plain
    ):
        return parse_traceparent(parent), _NOTHING
    if names is not None:
        headers = {name: headers[name] for name in names if name in headers}
    if not headers:
        return None, _NOTHING
    context = extract(headers)
    span = trace.get_current_span(context).get_span_context()
    return span if span.is_valid else None, context


_NOTHING = Context()


def inject(carrier: MutableMapping[str, Any], context: Context | None = None) -> None:
    """Write *context*, the current one if absent, into *carrier*. Never raises."""
    try:
        asked_for = _configured()
        headers: dict[str, str] = {}
        if asked_for.plain and (alone := _lone_span(context)) is not None:
            headers[TRACEPARENT] = traceparent(alone)
        else:
            asked_for.inject(headers, context)
        for name, value in headers.items():
            carrier[name] = value
        # In a carrier that is used again, the old one would go on under the new traceparent.
        if TRACEPARENT in headers and TRACESTATE not in headers and TRACESTATE in carrier:
            del carrier[TRACESTATE]
    except Exception:
        faults.report("write the context into a message")


def carried(span: SpanContext, context: Context) -> Mapping[str, str]:
    """Return the headers that ``inject`` writes for *context*, of which *span* is the span.

    For those who know both: a message's headers, most of the time, are one ``traceparent``.
    """
    _, _, _, _, state, is_valid = span
    # An empty state is a mapping, whose length is asked in Python; most are this one.
    stateless = state is DEFAULT_TRACE_STATE or not state
    if is_valid and stateless and BAGGAGE_KEY not in context and _configured().plain:
        return {TRACEPARENT: traceparent(span)}
    carrier: dict[str, str] = {}
    inject(carrier, Context({**context, SPAN_KEY: NonRecordingSpan(span)}))
    return carrier


def from_environ(environ: Mapping[str, Any]) -> dict[str, Any]:
    """Return those headers of a WSGI *environ* that carry a context."""
    asked_for = _configured()
    if asked_for.wanted is None:
        return {
            name.removeprefix("HTTP_").replace("_", "-").lower(): value
            for name, value in environ.items()
            if name.startswith("HTTP_")
        }
    return {name: environ[key] for key, name in asked_for.in_environ if key in environ}


def propagator() -> TextMapPropagator:
    """Return what ``OTEL_PROPAGATORS`` asks for: ``tracecontext,baggage`` if it is not set.

    It raises nothing either, so that it may serve as OpenTelemetry's global one.
    """
    return _configured()


def reads_w3c_alone() -> bool:
    """Say whether a message's ``traceparent`` is all of its context where it stands alone."""
    return _configured().plain


def fields() -> frozenset[str]:
    """Return the names of the headers that are written."""
    return frozenset(_configured().fields)


class _Propagators(TextMapPropagator):
    """Several in a row. One that fails does not take the others with it."""

    def __init__(self, propagators: Sequence[TextMapPropagator]) -> None:
        self._propagators = propagators
        self._fields = {name for one in propagators for name in one.fields}
        ours = all(isinstance(one, TraceContext | Baggage) for one in propagators)
        #: The lower-case names to read. All, with a stranger: some read more than they write.
        self.wanted = frozenset(self._fields) if ours else None
        self.in_environ = [("HTTP_" + name.upper(), name) for name in self._fields]
        #: Whether a ``traceparent`` by itself is all that there is to read where it stands alone.
        self.plain = ours and TRACEPARENT in self._fields

    def extract(
        self,
        carrier: CarrierT,
        context: Context | None = None,
        getter: Getter[CarrierT] = default_getter,
    ) -> Context:
        context = Context() if context is None else context
        for one in self._propagators:
            try:
                context = one.extract(carrier, context, getter=getter)
            except Exception:
                faults.report(f"read headers by {type(one).__name__}")
        return context

    def inject(
        self,
        carrier: CarrierT,
        context: Context | None = None,
        setter: Setter[CarrierT] = default_setter,
    ) -> None:
        for one in self._propagators:
            try:
                one.inject(carrier, context, setter=setter)
            except Exception:
                faults.report(f"write headers by {type(one).__name__}")

    @property
    def fields(self) -> set[str]:
        return set(self._fields)


# Where os.environ has the dict that it has in CPython, that is asked: for a variable that is not
# set, which is most often so, an exception would go through four frames, for each message.
_ENVIRON: Any = getattr(os.environ, "_data", os.environ)
_SETTING: Any = PROPAGATORS if _ENVIRON is os.environ else os.environ.encodekey(PROPAGATORS)


def _configured() -> _Propagators:
    return _propagator(_ENVIRON.get(_SETTING, ""))


@cache
def _propagator(setting: str | bytes) -> _Propagators:
    setting = os.fsdecode(setting)
    names = [name for item in setting.lower().split(",") if (name := item.strip())]
    made = map(_named, dict.fromkeys(names or ("tracecontext", "baggage")))
    return _Propagators([one for one in made if one is not None])


def _named(name: str) -> TextMapPropagator | None:
    if name == "none":
        return None
    if name == "tracecontext":
        return TraceContext()
    if name == "baggage":
        return Baggage()
    try:
        entry = next(iter(entry_points(group="opentelemetry_propagator", name=name)), None)
        if entry is None:
            logger.warning("%s names %r, which is not installed; going without", PROPAGATORS, name)
            return None
        made: TextMapPropagator = entry.load()()
        _ = made.fields
        return made
    except Exception as exc:
        reason = type(exc).__name__
        logger.warning("%s names %r, which fails (%s); going without", PROPAGATORS, name, reason)
        return None


#: Headers of a message among which no other name of the formats can hide, in whatever case.
_BESIDE = frozenset({TRACEPARENT, SENT_AT, LINKS, RELATION})


def _lone_traceparent(carrier: Any) -> str | None:
    """Return the ``traceparent`` of most messages: a string, with nothing else to read by it.

    Saves them the search for names in every case and the propagators' rounds: half of the time.
    """
    if type(carrier) is dict and _BESIDE.issuperset(carrier):
        value = carrier.get(TRACEPARENT)
        return value if type(value) is str else None
    return None


def _lone_span(context: Context | None) -> SpanContext | None:
    """Return the span of *context* where its ``traceparent`` is all that there is to write."""
    if context is None:
        context = get_current()
    span = context.get(SPAN_KEY)
    if BAGGAGE_KEY in context or not isinstance(span, trace.Span):
        return None
    span_context = span.get_span_context()
    return span_context if span_context.is_valid and not span_context.trace_state else None


#: Where a context has its span, and where its baggage.
SPAN_KEY = next(iter(trace.set_span_in_context(trace.INVALID_SPAN, Context())))
BAGGAGE_KEY = next(iter(baggage.set_baggage("key", "value", Context())))


def _with_parent(context: Context, parent: SpanContext | None) -> Context:
    if parent is None:
        return context
    return Context({**context, SPAN_KEY: NonRecordingSpan(parent)})


def _read(carrier: Any, wanted: frozenset[str] | None) -> dict[str, list[str]]:
    """Return the headers of *carrier* that are *wanted*, by their lower-case names."""
    found: dict[str, list[str]] = {}
    # Werkzeug's headers and the standard library's have items, and are no mappings.
    items = getattr(carrier, "items", None)
    if items is None:
        return found
    for name, value in items():
        if isinstance(name, bytes):
            name = name.decode("latin-1")
        if not isinstance(name, str):
            continue
        name = name.lower()
        if (wanted is None or name in wanted) and (texts := _texts(value)):
            # The same name in two cases is two fields.
            found.setdefault(name, []).extend(texts)
    return found


def _texts(value: Any) -> list[str]:
    """Return the header fields that *value* is: one, several, or none."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, _BYTES):
        return [value.decode("latin-1")]
    if isinstance(value, _LISTS):
        return [
            item if isinstance(item, str) else item.decode("latin-1")
            for item in value[:_MAX_LINKS]
            if isinstance(item, _TEXT)
        ]
    return []


_BYTES, _TEXT, _LISTS = (bytes, bytearray), (str, bytes, bytearray), (list, tuple)


class _Found(Getter[Any]):
    """Gets from what ``_read`` returned."""

    def get(self, carrier: Any, key: str) -> list[str] | None:
        return carrier.get(key.lower())  # type: ignore[no-any-return]

    def keys(self, carrier: Any) -> list[str]:
        return list(carrier)


_FOUND = _Found()


class TraceContext(TextMapPropagator):
    """``traceparent`` and ``tracestate``: W3C Trace Context Level 2."""

    def extract(
        self,
        carrier: CarrierT,
        context: Context | None = None,
        getter: Getter[CarrierT] = default_getter,
    ) -> Context:
        """Return *context* with the remote parent that *carrier* names, if it names one."""
        context = Context() if context is None else context
        parent = parse_traceparent(getter.get(carrier, TRACEPARENT))
        if parent is None:
            return context
        if states := _texts(getter.get(carrier, TRACESTATE)):
            state = _TraceState.from_header(states)
            parent = SpanContext(parent.trace_id, parent.span_id, True, parent.trace_flags, state)
        return _with_parent(context, parent)

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
            if state := span_context.trace_state:
                setter.set(carrier, TRACESTATE, _format_tracestate(state))

    @property
    def fields(self) -> set[str]:
        """Return the names of the headers that are written."""
        return {TRACEPARENT, TRACESTATE}


# A higher version may go on after a dash, with what is not for us to understand. A comma there is
# where a server has joined two fields.
_TRACEPARENT = re.compile(
    r"[ \t]*+(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})"
    r"(-[^,]*)?+[ \t]*+"
)
#: The pattern of a usual one: of version 00, by itself, and of a trace that is sampled.
SAMPLED = r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f][13579bdf]"

_KNOWN_FLAGS = TraceFlags.SAMPLED | TraceFlags.RANDOM_TRACE_ID


def parse_traceparent(value: Any) -> SpanContext | None:
    """Return the remote span that a ``traceparent`` names, or None.

    None is for a malformed one, and for several: which is the parent cannot be told.
    """
    if type(value) is str and (usual := _parse_usual(value)) is not None:
        return usual
    if not isinstance(value, str):
        texts = _texts(value)
        if len(texts) != 1:
            return None
        value = texts[0]
    match = _TRACEPARENT.fullmatch(value)
    if match is None:
        return None
    version, trace_id, span_id, flags, more = match.groups()
    if more is not None and version == "00":
        return None
    known = TraceFlags(int(flags, 16) & _KNOWN_FLAGS)
    return SpanContext(int(trace_id, 16), int(span_id, 16), True, known)


#: A trace's id in two halves, a span's, and flags.
_IDS = Struct(">QQQB")
_FLAGS = [TraceFlags(flags) for flags in range(_KNOWN_FLAGS + 1)]


def _parse_usual(value: str) -> SpanContext | None:
    """Return what nearly every ``traceparent`` names, in a third of the time.

    None for one that is not of version 00, or has spaces around it, or is malformed.
    """
    try:
        version, trace_id, span_id, flags = value.split("-")
        digits = trace_id + span_id + flags
        data = bytes.fromhex(digits)
    except ValueError:
        return None
    # Digits are read in either case, and with spaces between them; only lower-case ones come back.
    if version != "00" or data.hex() != digits or (len(trace_id), len(data)) != (32, 25):
        return None
    high, low, span, known = _IDS.unpack(data)
    if not (span and (high or low)):
        return None
    return SpanContext(high << 64 | low, span, True, _FLAGS[known & _KNOWN_FLAGS])


#: Filled in by ``%``, which takes two thirds of the time of an f-string, for each message.
_VERSION_00 = "00-%032x-%016x-%02x"


def traceparent(span_context: SpanContext) -> str:
    """Return the ``traceparent`` of a span, version 00."""
    trace_id, span_id, _, flags, _, _ = span_context
    return _VERSION_00 % (trace_id, span_id, flags & _KNOWN_FLAGS)


def format_links(span_contexts: Iterable[SpanContext]) -> str:
    """Return spans as a list of traceparents: the valid ones, as many as are read again."""
    valid = (context for context in span_contexts if context.is_valid)
    return ",".join(map(traceparent, islice(valid, _MAX_LINKS)))


def parse_links(value: Any) -> list[SpanContext]:
    """Return the spans that a list of traceparents names, without what is malformed in it."""
    # A traceparent is 55 characters and a comma; what is far past the last one is not split.
    text = ",".join(_texts(value))[: _MAX_LINKS * 64]
    found = (parse_traceparent(one) for one in text.split(","))
    return list(islice((context for context in found if context is not None), _MAX_LINKS))


_MEMBER = re.compile(r"([a-z0-9][a-z0-9_\-*/@]{0,255})=([ -+\--<>-~]{0,255}[!-+\--<>-~])")
_MAX_MEMBERS = 32
#: 32 members of the longest kind, and room for white space: more is a mistake or worse.
_MAX_RECEIVED = _MAX_MEMBERS * 600
#: Past so many characters members go: first the long ones, then the last. Gunicorn and Apache
#: refuse a request with a header of more than 8190 bytes, name included.
_MAX_TRACESTATE = 8000
_LONG_MEMBER = 128


class _TraceState(TraceState):
    """A ``tracestate`` by Level 2's grammar, kept to the letter.

    The SDK's samplers hand it on as it is, and so does whoever changes it.
    """

    def __init__(self, entries: Iterable[tuple[str, str]] | None = None) -> None:
        super().__init__()
        self._dict = dict(entries or ())  # where the base class looks

    @classmethod
    def from_header(cls, header_list: Sequence[str]) -> TraceState:
        """Return the members of one or several header fields, none if any is malformed."""
        header = ",".join(header_list)
        members: dict[str, str] = {}
        count = 0
        if len(header) > _MAX_RECEIVED:
            return cls()
        for text in header.split(","):
            if not (text := text.strip(" \t")):
                continue
            match = _MEMBER.fullmatch(text)
            count += 1
            if match is None or count > _MAX_MEMBERS:
                return cls()
            # The first of two is the more recent: changed members move to the front.
            members.setdefault(*match.groups())
        return cls(members.items())

    def add(self, key: str, value: str) -> TraceState:
        """Return one with a new member in front, or the same where that cannot be."""
        return self if key in self else self.update(key, value)

    def update(self, key: str, value: str) -> TraceState:
        """Return one with the member in front, or the same where that cannot be.

        A 33rd member drives out the last.
        """
        if not (isinstance(key, str) and isinstance(value, str)):
            return self
        if _MEMBER.fullmatch(f"{key}={value}") is None:
            return self
        rest = [item for item in self.items() if item[0] != key]
        return _TraceState([(key, value), *rest[: _MAX_MEMBERS - 1]])

    def delete(self, key: str) -> TraceState:
        """Return one without the member."""
        return _TraceState(item for item in self.items() if item[0] != key)


def _format_tracestate(state: TraceState) -> str:
    header = state.to_header()
    excess = len(header) - _MAX_TRACESTATE
    if excess <= 0:
        return header
    members = header.split(",")
    for index in reversed(range(len(members))):
        if excess > 0 and len(members[index]) > _LONG_MEMBER:
            excess -= len(members.pop(index)) + 1
    while excess > 0:
        excess -= len(members.pop()) + 1
    return ",".join(members)


class Baggage(TextMapPropagator):
    """``baggage``: W3C Baggage, within its limits in both directions."""

    def extract(
        self,
        carrier: CarrierT,
        context: Context | None = None,
        getter: Getter[CarrierT] = default_getter,
    ) -> Context:
        """Return *context* with the baggage of *carrier*, without what is malformed in it."""
        context = Context() if context is None else context
        texts = _texts(getter.get(carrier, BAGGAGE))
        if not texts:
            return context
        room = _Room()
        for text in ",".join(texts).split(",", _MAX_LINKS)[:_MAX_LINKS]:
            text = text.strip(" \t")
            match = _BAGGAGE_MEMBER.fullmatch(text)
            if match is not None and room.takes(len(text)):
                key, raw, properties = match.groups()
                value = _BaggageValue(unquote(raw, errors="replace"))
                value.wire = raw + properties.replace(" ", "").replace("\t", "")
                context = baggage.set_baggage(key, value, context)
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
        room = _Room()
        left = 0
        for key, value in entries.items():
            if keys is not None and key not in keys:
                continue
            member = _format_member(key, value)
            if member is not None and room.takes(len(member)):
                members.append(member)
            else:
                left += 1
        if members:
            setter.set(carrier, BAGGAGE, ",".join(members))
        if left and _allow("baggage"):
            # Neither names nor values: they may be secret.
            logger.warning(
                "baggage: %d left behind, malformed or past %d members or %d bytes",
                left,
                _MAX_BAGGAGE_MEMBERS,
                _MAX_BAGGAGE,
            )

    @property
    def fields(self) -> set[str]:
        """Return the names of the headers that are written."""
        return {BAGGAGE}


_MAX_BAGGAGE, _MAX_BAGGAGE_MEMBERS = 8192, 64
_allow = faults.RateLimit()


class _Room:
    """What is left of the limits. A member that does not fit is left out, not the rest."""

    def __init__(self) -> None:
        self._bytes = _MAX_BAGGAGE + 1  # the first member has no comma before it
        self._members = _MAX_BAGGAGE_MEMBERS

    def takes(self, length: int) -> bool:
        if self._members == 0 or length + 1 > self._bytes:
            return False
        self._members -= 1
        self._bytes -= length + 1
        return True


class _BaggageValue(str):
    """A value that remembers how it was written, and with what properties."""

    __slots__ = ("wire",)
    wire: str


_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]++")
_OCTETS = r"[!#-+\--:<-\[\]-~]*+"
# Possessive throughout: a long row of spaces must not be tried in every way.
_BAGGAGE_MEMBER = re.compile(
    rf"({_TOKEN.pattern})[ \t]*+=[ \t]*+({_OCTETS})[ \t]*+"
    rf"((?:;[ \t]*+{_TOKEN.pattern}[ \t]*+(?:=[ \t]*+{_OCTETS}[ \t]*+)?+)*+)"
)
# What needs no percent sign before it. The percent sign does, and the plus sign, which
# OpenTelemetry's own propagator reads as a space.
_BAGGAGE_SAFE = "!#$&'()*-./:<=>?@[]^_`{|}~"


def _format_member(key: str, value: object) -> str | None:
    if not isinstance(key, str) or _TOKEN.fullmatch(key) is None:
        return None
    if isinstance(value, _BaggageValue):
        return f"{key}={value.wire}"
    try:
        return f"{key}={quote(str(value), safe=_BAGGAGE_SAFE, errors='replace')}"
    except Exception:  # a value of the application's own that cannot be written
        return None
