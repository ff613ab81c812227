"""Repair strings of protobuf that are not UTF-8: some SDKs send them, the Collector accepts them.

The parser refuses the whole export for one of them, with all of its other spans.
"""

import codecs
from collections.abc import Iterator
from functools import cache

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from .bounds import FIXED32, FIXED64, LENGTH, VARINT, read_varint

__all__ = ["with_utf8"]

_QUESTION_MARKS = "queuehop.question-marks"


def _question_marks(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return "?" * (error.end - error.start), error.end


codecs.register_error(_QUESTION_MARKS, _question_marks)


def with_utf8(body: bytes, message: Descriptor) -> bytes:
    """Return *body*, a *message*, with ``?`` for each byte of its strings that is not UTF-8.

    Its length stays, and so do the lengths in it. A malformed *body* is returned as it is.
    """
    repaired = bytearray(body)
    try:
        for start, end in _strings(body, message):
            repaired[start:end] = body[start:end].decode(errors=_QUESTION_MARKS).encode()
    except IndexError:
        return body
    return bytes(repaired)


def _strings(body: bytes, message: Descriptor) -> Iterator[tuple[int, int]]:
    """Yield the start and end of each string in *body*. Raises IndexError if it is malformed."""
    nested = [(0, len(body), message)]
    while nested:
        at, end, kind = nested.pop()
        fields = _fields(kind)
        while at < end:
            tag, at = read_varint(body, at)
            wire = tag & 7
            if wire == LENGTH:
                length, at = read_varint(body, at)
                field = fields.get(tag >> 3)
                if at + length > end:
                    raise IndexError
                if field is not None and field.message_type is not None:
                    nested.append((at, at + length, field.message_type))
                elif field is not None:
                    yield at, at + length
                at += length
            elif wire == VARINT:
                _, at = read_varint(body, at)
            elif wire in (FIXED64, FIXED32):
                at += 8 if wire == FIXED64 else 4
            else:
                raise IndexError


@cache
def _fields(message: Descriptor) -> dict[int, FieldDescriptor]:
    """Return the fields of *message* that are strings or messages, by their numbers."""
    return {
        number: field
        for number, field in message.fields_by_number.items()
        if field.type in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_MESSAGE)
    }
