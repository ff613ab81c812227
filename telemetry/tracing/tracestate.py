"""The ``tracestate`` header by the grammar of W3C Trace Context Level 2."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from opentelemetry.trace import TraceState

TRACESTATE = "tracestate"

_MEMBER = re.compile(r"([a-z0-9][a-z0-9_\-*/@]{0,255})=([ -+\--<>-~]{0,255}[!-+\--<>-~])")
_MAX_MEMBERS = 32
#: The longest header that is read: 32 members of the longest kind, and some white space.
_MAX_RECEIVED = _MAX_MEMBERS * 600
#: The longest header that is written. Gunicorn and Apache refuse a request with a header of more
#: than 8190 bytes, name included.
_MAX_TRACESTATE = 8000
#: Members longer than this are the first to be dropped from a header that is too long.
_LONG_MEMBER = 128


class HeaderTraceState(TraceState):
    """A ``tracestate`` that is written as it was read, but for white space and empty members.

    OpenTelemetry's ``TraceState`` knows an older grammar, so this class has every method itself
    and reads nothing of its base class. It has that base class because samplers and spans of the
    SDK take a ``TraceState`` only.
    """

    def __init__(self, entries: Iterable[tuple[str, str]] | None = None) -> None:
        """*entries* are well-formed members with different keys."""
        super().__init__()
        self.__members = dict(entries or ())

    @classmethod
    def from_header(cls, header_list: Sequence[str]) -> "HeaderTraceState":
        """Return the members of one or several header fields; none if one is malformed."""
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
            # Changed members move to the front, so the first of two is the more recent.
            members.setdefault(*match.groups())
        return cls(members.items())

    @classmethod
    def get_default(cls) -> "HeaderTraceState":
        return cls()

    def to_header(self) -> str:
        """Return the members as one header field."""
        return ",".join(f"{key}={value}" for key, value in self.__members.items())

    def add(self, key: str, value: str) -> TraceState:
        """Return a copy with the member in front; self if *key* exists or it is malformed."""
        return self if key in self.__members else self.update(key, value)

    def update(self, key: str, value: str) -> TraceState:
        """Return a copy with the member in front; self if the member is malformed.

        A 33rd member replaces the last.
        """
        if not (isinstance(key, str) and isinstance(value, str)):
            return self
        if _MEMBER.fullmatch(f"{key}={value}") is None:
            return self
        rest = [item for item in self.__members.items() if item[0] != key]
        return HeaderTraceState([(key, value), *rest[: _MAX_MEMBERS - 1]])

    def delete(self, key: str) -> TraceState:
        """Return a copy without the member of *key*."""
        return HeaderTraceState(item for item in self.__members.items() if item[0] != key)

    def __getitem__(self, key: str) -> str:
        return self.__members[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.__members)

    def __len__(self) -> int:
        return len(self.__members)

    # Not those of the base class, which read its members.
    __contains__, __eq__, get = Mapping.__contains__, Mapping.__eq__, Mapping.get
    keys, items, values = Mapping.keys, Mapping.items, Mapping.values

    def __repr__(self) -> str:
        return repr([f"{{key={key}, value={value}}}" for key, value in self.__members.items()])


def format_tracestate(state: TraceState) -> str:
    """Return *state* as a header of at most 8000 characters.

    A longer one loses whole members: first those of more than 128 characters, then any, each time
    from the end.
    """
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
