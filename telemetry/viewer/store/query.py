"""Parse the text of the search field: words, ids, fields, bounds and attributes.

Parts are separated by spaces, and a trace must match all of them. Double quotes protect spaces, and
make a field exact: ``queue:"mail"``. ``queue:""`` is a message without a name of its queue.
"""

import re
from dataclasses import dataclass
from typing import Literal

from ..analysis.hops import LIVE_STATES

#: The fields of names, as in ``queue:mail``.
FIELDS = ("service", "task", "queue", "broker", "route", "exception")

#: The fields of a message. ``queue:""`` finds the messages without a name of their queue.
NAMES_OF_MESSAGES = ("broker", "queue", "task")

STATUSES = ("ok", "error", *LIVE_STATES, "broken", "revoked")

#: The states of runs, and of messages that could not be sent, which ``status:`` finds too.
CELERY_STATES = (
    *("success", "failure", "retry", "ignored", "expired", "rejected", "unknown", "revoked"),
    "unsent",
)

#: The length of each unit in nanoseconds. A number without a unit is in seconds.
_UNITS = {
    **{"ns": 1, "us": 1000, "µs": 1000, "ms": 10**6},
    **dict.fromkeys(("", "s", "sec", "secs", "second", "seconds"), 10**9),
    **dict.fromkeys(("m", "min", "mins", "minute", "minutes"), 60 * 10**9),
    **dict.fromkeys(("h", "hour", "hours"), 3600 * 10**9),
    **dict.fromkeys(("d", "day", "days"), 86_400 * 10**9),
}

#: The names that logs and other tools use for fields.
_ALIASES = {
    **dict.fromkeys(("trace_id", "traceid"), "trace"),
    **dict.fromkeys(("span_id", "spanid"), "span"),
    **{"task_id": "id", "state": "status"},
}

#: Words of other query languages. In quotes, they are searched for.
_OPERATORS = frozenset({"AND", "OR", "NOT", "&&", "||"})

LONGEST = 2_000

_DURATION = re.compile(r"(\d+(?:[.,]\d+)?|[.,]\d+)\s*([a-zµ]*)", re.I)
_BOUND = re.compile(r"([A-Za-z_.]+)\s*:?\s*(>=|<=|>|<)\s*(.*)", re.S)
_ATTRIBUTE = re.compile(r"([^\s=<>\"]+)=(.*)", re.S)
_TRACEPARENT = re.compile(
    r"(?:traceparent:\s*)?[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}", re.I
)
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.I)
#: A task with its id, as in the log of a worker.
_LOGGED = re.compile(rf"[^\s\[\]\"]*\[({_UUID.pattern})\]:?", re.I)
_BOUNDS = ("wait", "duration")
_TOKEN = re.compile(
    rf"(?:{'|'.join(_BOUNDS)})\s*:?\s*[<>]=?\s*"
    rf"(?:[\d.,]+\s+(?:{'|'.join(filter(None, _UNITS))})|[^\s\"]*)(?=\s|$)"
    r'|traceparent:\s*\S+|(?:"[^"]*"|[^\s"])+|"',
    re.I,
)


class QueryError(ValueError):
    """The text is not a valid search. *position* is the place, in characters from the start."""

    def __init__(self, position: int, message: str) -> None:
        super().__init__(message)
        self.position = position


@dataclass(frozen=True, slots=True)
class Word:
    """Part of any name, ignoring case, or an id, or its beginning."""

    text: str


@dataclass(frozen=True, slots=True)
class Id:
    """The id of a trace (or its beginning), of a span, or of a message."""

    kind: Literal["trace", "span", "message"]
    text: str


@dataclass(frozen=True, slots=True)
class Field:
    """Part of a name of one kind, or the whole name if *exact* (``""``: no name), or a status."""

    name: str
    text: str
    exact: bool = False


@dataclass(frozen=True, slots=True)
class Bound:
    """A comparison of a duration, in nanoseconds."""

    name: Literal["wait", "duration"]
    operator: str
    ns: int


@dataclass(frozen=True, slots=True)
class Attribute:
    """An attribute of a span, its resource or its events, with exactly this value."""

    key: str
    value: str


Part = Word | Id | Field | Bound | Attribute


def parse_query(text: str) -> list[Part]:
    """Return the parts of *text*. Raises QueryError with the position and the problem."""
    if len(text) > LONGEST:
        raise QueryError(LONGEST, f"a search can have at most {LONGEST} characters")
    if text.count('"') % 2:
        raise QueryError(text.rindex('"'), 'this quote is not closed: add a "')
    parts: list[Part] = []
    for found in _TOKEN.finditer(text):
        parts += _part(found[0], found.start())
    return parts


def _part(token: str, position: int) -> list[Part]:
    bare = token.replace('"', "")
    if not bare:
        raise QueryError(position, "there is nothing between the quotes")
    if token.startswith('"'):
        return [Word(bare)]
    if token in _OPERATORS:
        raise QueryError(
            position,
            f'{token} is not supported: a trace must match all parts. The word is "{token}"',
        )
    if found := _TRACEPARENT.fullmatch(token):
        return [Id("trace", found[1].lower()), Id("span", found[2].lower())]
    if _UUID.fullmatch(token):
        return [Id("message", token)]
    if found := _LOGGED.fullmatch(token):
        return [Id("message", found[1])]
    if re.fullmatch(r"[0-9a-fA-F]{32}", token):
        return [Id("trace", token.lower())]
    if re.fullmatch(r"[0-9a-fA-F]{16}", token):
        return [Id("span", token.lower())]
    name, colon, value = token.partition(":")
    field = _ALIASES.get(name.lower(), name.lower())
    if colon and field in (*FIELDS, "call", "log", "status", "trace", "span", "id"):
        return [_field(field, value, position + len(name) + 1)]
    if found := _BOUND.fullmatch(token):
        known = found[1].lower()
        if known in _BOUNDS:
            at = position + found.start(3)
            ns = _nanoseconds(found[3].replace('"', ""), at)
            return [Bound("wait" if known == "wait" else "duration", found[2], ns)]
        if found[3][:1].isdigit():
            raise QueryError(
                position, f"{found[1]} cannot be compared; wait and duration can: wait>2s"
            )
    if colon and field in _BOUNDS:
        raise QueryError(position, f"compare {field} with > or <: {field}>{value or '2s'}")
    if found := _ATTRIBUTE.fullmatch(token):
        value = found[2].replace('"', "")
        if found[1].endswith("!"):
            raise QueryError(position, "!= is not supported: a search cannot exclude traces")
        if not value:
            raise QueryError(position + len(token), f"write the value after {found[1]}=")
        known = _ALIASES.get(found[1].lower(), found[1].lower())
        if known in _BOUNDS:
            raise QueryError(position, f"compare {known} with > or <: {known}>{value}")
        if known in ("trace", "span") or (known == "id" and _UUID.fullmatch(value)):
            return [_field(known, value, position + len(found[1]) + 1)]
        if known in (*FIELDS, "status"):
            return [_field(known, f'"{value}"', position + len(found[1]) + 1)]
        return [Attribute(found[1], value)]
    return [Word(bare)]


def _field(name: str, value: str, position: int) -> Part:
    bare = value.replace('"', "")
    if value and not bare and name in NAMES_OF_MESSAGES:
        return Field(name, "", exact=True)
    if not bare:
        raise QueryError(position, f"write what to look for after {name}:")
    if name == "id":
        return Id("message", bare)
    if name in ("trace", "span"):
        longest = 32 if name == "trace" else 16
        if not re.fullmatch(rf"[0-9a-fA-F]{{1,{longest}}}", bare):
            raise QueryError(position, f"the id of a {name} has up to {longest} hexadecimal digits")
        if name == "span" and len(bare) < longest:
            raise QueryError(position, f"the id of a span has {longest} hexadecimal digits")
        return Id("trace" if name == "trace" else "span", bare.lower())
    if name == "status" and bare.lower() not in (*STATUSES, *CELERY_STATES):
        known = ", ".join(dict.fromkeys((*STATUSES, *CELERY_STATES)))
        raise QueryError(position, f"unknown status {bare[:40]!r}: use one of {known}")
    return Field(name, bare.lower() if name == "status" else bare, value.startswith('"'))


def _nanoseconds(text: str, position: int) -> int:
    found = _DURATION.fullmatch(text.strip())
    unit = _UNITS.get(found[2].lower()) if found else None
    if found is None or unit is None:
        what = f"{text[:40]!r} is not a duration" if text.strip() else "write a duration here"
        raise QueryError(position, f"{what}: for example 200ms, 1.5s or 2min")
    return min(round(float(found[1].replace(",", ".")) * unit), 2**63 - 1)
