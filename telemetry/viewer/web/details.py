"""A span and a log record in the format of the API, with all that they recorded."""

import base64
import math
import sqlite3
from collections.abc import Mapping
from typing import Any

from ...otlp.decode import ReceivedSpan
from ..analysis.rows import flags_of
from ..store.log_table import Stored
from ..store.read import linked_from, number_of, read_spans

#: The longest attribute value on the page, in characters. The download has the whole value.
LONGEST_VALUE = 65_536

#: The longest text of a log record in a tooltip, in characters.
LONGEST_TITLE = 200

#: The largest integer that JavaScript represents exactly.
LARGEST_NUMBER = 2**53 - 1


def to_bytes(hex_id: str) -> bytes:
    """Return an id as bytes, or no bytes if it is not hexadecimal."""
    try:
        return bytes.fromhex(hex_id)
    except ValueError:
        return b""


def tick(stored: Stored) -> dict[str, Any]:
    """Return what the timeline shows of a log record."""
    log = stored.log
    return {
        "time_ns": str(log.time_ns),
        "span_id": log.span_id,
        "severity": log.severity,
        "level": log.level,
        "text": log.text[:LONGEST_TITLE],
    }


def log_details(stored: Stored) -> dict[str, Any]:
    """Return the whole of a log record."""
    log = stored.log
    return {
        "id": stored.number,
        "time_ns": str(log.time_ns),
        "trace_id": log.trace_id,
        "span_id": log.span_id,
        "is_known": stored.is_known,
        "severity": log.severity,
        "level": log.level,
        "text": _plain(log.text),
        "logger": log.scope,
        "service": log.service,
        "attributes": _plain(log.attributes),
    }


def _linked(db: sqlite3.Connection, trace_id: str, span_id: str) -> dict[str, Any]:
    """Return whether the target of a link is stored, and its name and service."""
    number = number_of(db, trace_id)
    found = list(read_spans(db, number, to_bytes(span_id))) if number is not None else []
    return {
        "known": bool(found),
        "name": found[0].name if found else None,
        "service": found[0].service if found else None,
    }


def _linked_from(db: sqlite3.Connection, span: ReceivedSpan) -> list[dict[str, Any]]:
    return [
        {
            "trace_id": other.trace_id,
            "span_id": other.span_id,
            "name": other.name,
            "service": other.service,
            "later_ms": (other.start_ns - max(span.start_ns, span.end_ns)) / 1e6,
        }
        for other in linked_from(db, span.trace_id, span.span_id)
    ]


def span_details(db: sqlite3.Connection, span: ReceivedSpan) -> dict[str, Any]:
    """Return the whole of a span, with the names of the spans at both ends of its links."""
    attributes, events, links = span.dropped
    return {
        "span_id": span.span_id,
        "parent_span_id": span.parent_id,
        "name": span.name,
        "kind": span.kind,
        "service": span.service,
        "scope": span.scope,
        "start_ns": str(span.start_ns),
        "duration_ms": max(0, span.end_ns - span.start_ns) / 1e6,
        "status": span.status.lower(),
        "message": span.status_message,
        "attributes": _plain(span.attributes),
        "resource": _plain(span.resource),
        "events": [
            {
                "name": event.name,
                "offset_ms": (event.time_ns - span.start_ns) / 1e6,
                "attributes": _plain(event.attributes),
            }
            for event in span.events
        ],
        "links": [
            {
                "trace_id": link.trace_id,
                "span_id": link.span_id,
                "attributes": _plain(link.attributes),
                **_linked(db, link.trace_id, link.span_id),
            }
            for link in span.links
        ],
        "linked_from": _linked_from(db, span),
        "traceparent": f"00-{span.trace_id}-{span.span_id}-{flags_of(span):02x}",
        "dropped": {"attributes": attributes, "events": events, "links": links},
    }


def _plain(value: Any) -> Any:
    """Return *value* in types that JSON and JavaScript can represent."""
    match value:
        case Mapping():
            return {key: _plain(item) for key, item in value.items()}
        case list():
            return [_plain(item) for item in value]
        case bytes():
            return _plain(base64.b64encode(value).decode())
        case str() if len(value) > LONGEST_VALUE:
            return f"{value[:LONGEST_VALUE]}… ({len(value)} characters in all)"
        case bool():
            return value
        case int() if abs(value) > LARGEST_NUMBER:
            return str(value)
        case float() if not math.isfinite(value):
            return str(value)
    return value
