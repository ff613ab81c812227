"""Spans that are kept as their own words, and put together where they are sent.

Most runs say of themselves what their message says, in other words, and between two times. So the
process that runs tasks keeps the words as they came, and once for all such runs a template: what
they have in common, and what the words mean.
"""

import json
from collections.abc import Mapping, Sequence
from struct import Struct
from typing import Any

from opentelemetry.trace import SpanKind
from opentelemetry.util.types import AttributeValue

from .. import otlp
from ..light import Shape
from . import frames
from .frames import Definition

__all__ = ["Template", "parts"]

_pack = Struct(">QQQ").pack
_NUMBERS = Struct(">8sQQ")

#: The digits of a traceparent's trace and span.
_TRACE_ID, _SPAN_ID = slice(3, 35), slice(36, 52)


def parts(span_id: int, start_time: int, end_time: int, words: bytes) -> bytes:
    """Return what is one span's own. Times are in nanoseconds.

    *words* are separated by null characters: the ``traceparent`` of its parent, of version 00, then
    a string, or none, for each that its template wants.
    """
    return _pack(span_id, start_time, end_time) + words


class Template:
    """What spans have in common that are under a remote span and link to it.

    *strings* are the attributes that their words become, *doubles* those three that the last of the
    numbers beside them become, and *after* the attributes behind both. Raises TypeError or
    ValueError for what cannot be kept as JSON, or encoded without asking the SDK.
    """

    def __init__(
        self,
        shape: Shape,
        strings: Sequence[str],
        doubles: Sequence[str],
        after: Mapping[str, AttributeValue],
    ) -> None:
        if shape.head is None or shape.encoded is None:
            raise ValueError(f"{shape.name!r} is left to the SDK's encoder")
        self.shape = shape
        said: list[Any] = [shape.name, shape.kind.name, dict(shape.attributes)]
        self.definition: Definition = frames.define(
            json.dumps([*said, strings, doubles, after]).encode()
        )
        self._head = shape.head
        self._said = shape.encoded
        self._strings = [otlp.before_string(key) for key in strings]
        self._doubles = otlp.three_doubles(*doubles)
        self._after = otlp.encode_attributes(after)

    @classmethod
    def of(cls, content: bytes) -> "Template":
        """Return the template whose definition has that *content*."""
        name, kind, attributes, strings, doubles, after = json.loads(content)
        return cls(Shape(name, SpanKind[kind], attributes), strings, doubles, after)

    def fill(self, content: bytes) -> bytes:
        """Return the ``Span`` of numbers and what ``parts`` returned."""
        begin = frames.size_of_numbers(content)
        span_id, start_time, end_time = _NUMBERS.unpack_from(content, begin)
        traceparent, *words = content[begin + _NUMBERS.size :].split(b"\0")
        said = self._said
        for before, word in zip(self._strings, words, strict=True):
            if word:
                said += before[len(word)] + word
        said += self._doubles(frames.values(content[:begin])[-3:])
        said += self._after
        digits = traceparent.decode()
        return otlp.encode_child(
            bytes.fromhex(digits[_TRACE_ID]),
            span_id,
            bytes.fromhex(digits[_SPAN_ID]),
            self._head,
            start_time,
            end_time,
            said,
        )
