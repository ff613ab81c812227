"""Find traces by attribute: a Bloom filter for each trace, in columns that SQL can test.

The filter of a trace's ``key=value`` pairs is 1024 bits in sixteen integers. A search reads only
the traces whose filter has all bits of the pair.
"""

import sqlite3
from collections.abc import Iterable, Iterator
from functools import lru_cache
from hashlib import blake2b
from typing import Any

from ...otlp.decode import Attributes, ReceivedSpan
from .read import spans_with

#: The number of 64-bit columns, and of the bits that one pair sets.
WORDS, HASHES = 16, 4

#: A trace with more pairs matches every filter: its own would be full.
MOST_PAIRS = 1500

FULL = (-1,) * WORDS


def pairs_of(span: ReceivedSpan) -> Iterator[tuple[str, str]]:
    """Yield the attributes of a span, its resource and its events, each value as a string."""
    for attributes in (span.attributes, span.resource, *(e.attributes for e in span.events)):
        yield from _pairs(attributes)


def _pairs(attributes: Attributes) -> Iterator[tuple[str, str]]:
    for key, value in attributes.items():
        for item in value if isinstance(value, list) else (value,):
            if (text := _as_text(item)) is not None:
                yield key, text


def _as_text(value: Any) -> str | None:
    match value:
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case int() | float():
            return str(value)
    return None


@lru_cache(maxsize=65_536)
def bits_of(key: str, value: str) -> tuple[tuple[int, int], ...]:
    """Return the bits of a pair: the column and the position of each."""
    digest = blake2b(f"{key}={value}".encode(errors="replace"), digest_size=2 * HASHES).digest()
    halves = (int.from_bytes(digest[at : at + 2], "big") for at in range(0, 2 * HASHES, 2))
    return tuple((half >> 6 & WORDS - 1, half & 63) for half in halves)


def write_attributes(db: sqlite3.Connection, trace: int, spans: Iterable[ReceivedSpan]) -> None:
    """Replace the filter of *trace*."""
    pairs = {pair for span in spans for pair in pairs_of(span)}
    words = [0] * WORDS
    for key, value in pairs if len(pairs) <= MOST_PAIRS else ():
        for word, bit in bits_of(key, value):
            words[word] |= 1 << bit
    marks = ", ".join("?" * (WORDS + 1))
    values = FULL if len(pairs) > MOST_PAIRS else map(_signed, words)
    db.execute(f"INSERT OR REPLACE INTO attributes VALUES ({marks})", (trace, *values))


def is_possible(key: str, value: str) -> str:
    """Return the SQL condition on ``attributes`` that a trace may have the pair."""
    masks = [0] * WORDS
    for word, bit in bits_of(key, value):
        masks[word] |= 1 << bit
    return " AND ".join(
        f"w{word} & {_signed(mask)} = {_signed(mask)}" for word, mask in enumerate(masks) if mask
    )


def _signed(word: int) -> int:
    """Return 64 bits as a signed integer, the type of SQLite."""
    return word - 2**64 if word >= 2**63 else word


def has_attribute(db: sqlite3.Connection, trace: int, key: str, value: str) -> bool:
    """Return whether a span of *trace* has the pair."""
    return any((key, value) in pairs_of(span) for span in spans_with(db, trace, key))
