"""The ``baggage`` header: W3C Baggage, within its limits in both directions."""

import os
import re
from collections.abc import Callable, Iterable, Iterator
from operator import itemgetter
from typing import Any, TypeVar
from urllib.parse import quote, unquote

from opentelemetry import baggage
from opentelemetry.context import Context
from opentelemetry.propagators.textmap import (
    Getter,
    Setter,
    TextMapPropagator,
    default_getter,
    default_setter,
)

from ..tracing.faults import RateLimit, log_internal_error, logger
from .carrier import header_values

Member = TypeVar("Member")

BAGGAGE = "baggage"

#: The key of all baggage in a context.
IN_CONTEXT = next(iter(baggage.set_baggage("", "", Context())))

#: The keys of baggage that may leave this process, comma-separated; all if it is not set.
BAGGAGE_ALLOW = "QUEUEHOP_BAGGAGE_ALLOW"

_MAX_BYTES, _MAX_MEMBERS = 8192, 64
#: The number of malformed members that a header may have; the rest is not read.
_MAX_RECEIVED_MEMBERS = 1024

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]++")
_OCTETS = r"[!#-+\--:<-\[\]-~]*+"
# Every quantifier is possessive: a long row of spaces must not be tried in every way.
_MEMBER = re.compile(
    rf"({_TOKEN.pattern})[ \t]*+=[ \t]*+({_OCTETS})[ \t]*+"
    rf"((?:;[ \t]*+{_TOKEN.pattern}[ \t]*+(?:=[ \t]*+{_OCTETS}[ \t]*+)?+)*+)"
)
# The characters that are not percent-encoded. The percent sign is, and the plus sign, which
# OpenTelemetry's own propagator reads as a space.
_SAFE = "!#$&'()*-./:<=>?@[]^_`{|}~"

_allow = RateLimit()


class Baggage(TextMapPropagator):
    """``baggage``: W3C Baggage."""

    def extract(
        self, carrier: Any, context: Context | None = None, getter: Getter[Any] = default_getter
    ) -> Context:
        """Return *context* with the well-formed baggage of *carrier*."""
        context = Context() if context is None else context
        values = header_values(getter.get(carrier, BAGGAGE))
        if not values:
            return context
        members = ",".join(values).split(",", _MAX_RECEIVED_MEMBERS)[:_MAX_RECEIVED_MEMBERS]
        matches = (_MEMBER.fullmatch(member.strip(" \t")) for member in members)
        for match in _fitting(filter(None, matches), itemgetter(0)):
            key, encoded, properties = match.groups()
            value = _ReceivedValue(unquote(encoded, errors="replace"))
            value.encoded = encoded + properties.replace(" ", "").replace("\t", "")
            context = baggage.set_baggage(key, value, context)
        return context

    def inject(
        self, carrier: Any, context: Context | None = None, setter: Setter[Any] = default_setter
    ) -> None:
        """Write the baggage of *context* that may leave this process into *carrier*."""
        entries = baggage.get_all(context)
        if not entries:
            return
        allowed = os.environ.get(BAGGAGE_ALLOW)
        keys = None if allowed is None else {key.strip() for key in allowed.split(",")}
        members = [
            _format_member(key, value)
            for key, value in entries.items()
            if keys is None or key in keys
        ]
        written = list(_fitting(filter(None, members), str))
        if written:
            setter.set(carrier, BAGGAGE, ",".join(written))
        dropped = len(members) - len(written)
        if dropped and _allow("baggage"):
            # Neither names nor values: they may be secret.
            logger.warning(
                "dropped %d members of baggage: malformed, or past %d members or %d bytes",
                dropped,
                _MAX_MEMBERS,
                _MAX_BYTES,
            )

    @property
    def fields(self) -> set[str]:
        return {BAGGAGE}


def merge_baggage(theirs: Any, ours: str) -> str:
    """Return the members of two headers as one, within W3C's limits.

    *theirs* is in the header already: its members come first, and win over ours of the same key.
    """
    members: dict[str, str] = {}
    for text in ",".join([*header_values(theirs), ours]).split(",", _MAX_RECEIVED_MEMBERS):
        if member := text.strip(" \t"):
            members.setdefault(member.partition("=")[0].rstrip(" \t"), member)
    return ",".join(_fitting(members.values(), str))


def _fitting(members: Iterable[Member], text_of: Callable[[Member], str]) -> Iterator[Member]:
    """Yield the *members* that fit within the two limits. One that does not leaves room."""
    room = _MAX_BYTES + 1  # the first member has no comma before it
    count = 0
    for member in members:
        length = len(text_of(member)) + 1
        if count < _MAX_MEMBERS and length <= room:
            count, room = count + 1, room - length
            yield member


class _ReceivedValue(str):
    """A value, and how its header wrote it: encoding and properties."""

    __slots__ = ("encoded",)
    encoded: str


def _format_member(key: str, value: object) -> str | None:
    if not isinstance(key, str) or _TOKEN.fullmatch(key) is None:
        return None
    if isinstance(value, _ReceivedValue):
        return f"{key}={value.encoded}"
    try:
        return f"{key}={quote(str(value), safe=_SAFE, errors='replace')}"
    except Exception:  # an object of the application whose str() fails
        log_internal_error("write an item of baggage")
        return None
