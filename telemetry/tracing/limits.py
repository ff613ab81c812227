"""Attributes and links as a span records them: values that OTLP has, within the SDK's limits."""

from typing import Any

from opentelemetry.attributes import BoundedAttributes
from opentelemetry.trace import SpanContext
from opentelemetry.util.types import Attributes

from ..config.sdk import SpanLimits
from .record import RecordedLink

#: Types of attribute values that need no cleaning.
_PLAIN = frozenset({str, float, bool})
_INT64 = 1 << 63


def recorded_link(
    context: SpanContext, attributes: Attributes, limits: SpanLimits
) -> RecordedLink | None:
    """Return a link as it is recorded, None if its context is invalid."""
    if not (context.is_valid or attributes or context.trace_state):
        return None
    cleaned, dropped = clean(attributes, limits.max_link_attributes, limits.max_attribute_length)
    return RecordedLink(
        context.trace_id.to_bytes(16, "big"),
        context.span_id,
        context.is_remote,
        cleaned,
        context.trace_state.to_header() if context.trace_state else "",
        dropped,
        int(context.trace_flags),
    )


def clean(
    attributes: Attributes, most: int | None, length: int | None
) -> tuple[dict[str, Any], int]:
    """Return *attributes* as OTLP can have them, and how many of them were dropped.

    Beyond *most* the oldest go. Strings are cut after *length* characters, and an integer beyond
    64 bits becomes a string.
    """
    if not attributes:
        return {}, 0
    bounded = BoundedAttributes(most, attributes, max_value_len=length)
    cleaned = {
        key: str(value) if type(value) is int and not -_INT64 <= value < _INT64 else value
        for key, value in bounded.items()
    }
    return cleaned, bounded.dropped


def is_plain(key: object, value: Any) -> bool:
    """Return whether an attribute needs no cleaning, as nearly all do."""
    kind = type(value)
    is_plain_value = kind in _PLAIN or (kind is int and -_INT64 <= value < _INT64)
    return is_plain_value and type(key) is str and key != ""


def exceeds(limit: int | None, added: int) -> bool:
    """Return whether a hop with *added* attributes or links could exceed *limit*."""
    return limit is not None and added + _OF_A_HOP > limit


#: No hop has more static attributes, facts and links than this.
_OF_A_HOP = 64
