"""Find spans of one trace by a text."""

import sqlite3
from collections.abc import Iterator

from ...otlp.decode import ReceivedSpan
from .attributes import pairs_of
from .read import bodies
from .span_decoding import decode_spans

#: The characters of numbers, true and false, which protobuf does not store as text.
NOT_AS_TEXT = frozenset("0123456789.+-truefalsinna")


def spans_like(db: sqlite3.Connection, number: int, text: str) -> list[str]:
    """Return the ids of the spans of a trace that contain *text*, ignoring case.

    The search reads the name, the service, the status message, the names of events, and the
    ``key=value`` of each attribute of the span, its resource and its events.
    """
    wanted = text.casefold()
    # Exclude most spans by their bytes, which contain every string unchanged, but no numbers.
    needles = [p.encode() for p in wanted.split("=") if p.isascii() and not set(p) <= NOT_AS_TEXT]
    if not wanted:
        return []
    found = (
        (source, body)
        for source, body in bodies(db, number)
        if all(needle in body.lower() or needle in source.lower() for needle in needles)
    )
    spans = decode_spans(found)
    return [span.span_id for span in spans if any(wanted in t.casefold() for t in _texts(span))]


def _texts(span: ReceivedSpan) -> Iterator[str]:
    yield from (span.name, span.service, span.status_message)
    yield from (event.name for event in span.events)
    yield from (f"{key}={value}" for key, value in pairs_of(span))
