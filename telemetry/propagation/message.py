"""The headers of a Celery message that carry the trace, and where its protocol puts them."""

from collections.abc import Mapping
from typing import Any

from .carrier import read_headers
from .configured import configured_propagators
from .traceparent import TRACEPARENT

#: When the producer handed the message over: Unix time in seconds, as a decimal string.
SENT_AT = "queuehop-sent-at"
#: The spans that the run must link to: traceparents, comma-separated.
LINKS = "queuehop-links"
#: The caller's own choice for one message: ``child`` or ``link``.
RELATION = "queuehop-relation"

_OURS = frozenset({SENT_AT, LINKS, RELATION})


def trace_headers(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the headers of *message*, among them those that carry the trace.

    Protocol 2 has the headers of a message at its top level, protocol 1 in a table ``headers``.
    There may be such a table beside the headers of protocol 2: another tracer's. Names match in any
    case, if none matches exactly.
    """
    if TRACEPARENT in message:  # nearly always
        return message
    fields = configured_propagators().fields
    table = message.get("headers")
    places = [message, table] if isinstance(table, Mapping) else [message]
    for headers in places:
        if not (_OURS | fields).isdisjoint(headers):
            return headers
    # Producers in other languages may write the names in another case.
    names = frozenset(map(str.lower, fields))
    for headers in places:
        if found := read_headers(headers, names):
            return {**headers, **found}
    return places[-1]
