"""The headers of a Celery message that carry the trace, and where its protocol puts them."""

from collections.abc import Mapping
from typing import Any

from .baggage import BAGGAGE
from .traceparent import TRACEPARENT
from .tracestate import TRACESTATE

__all__ = [
    "BAGGAGE",
    "LINKS",
    "RELATION",
    "SENT_AT",
    "TRACEPARENT",
    "TRACESTATE",
    "trace_headers",
]

#: When the producer handed the message over: Unix time in seconds, as a decimal string.
SENT_AT = "queuehop-sent-at"
#: The spans that the run must link to: traceparents, comma-separated.
LINKS = "queuehop-links"
#: The caller's own choice for one message: ``child`` or ``link``.
RELATION = "queuehop-relation"

_NAMES = (TRACEPARENT, TRACESTATE, BAGGAGE, SENT_AT, LINKS, RELATION)


def trace_headers(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the headers of *message*, among them those that are named here.

    Protocol 2 has the headers of a message at its top level, protocol 1 in a table ``headers``.
    """
    if TRACEPARENT in message:  # nearly always
        return message
    found = {name: message[name] for name in _NAMES if name in message}
    table = message.get("headers")
    if not found and isinstance(table, Mapping):
        found = {name: table[name] for name in _NAMES if name in table}
    return found
