"""Protobuf that is not parsed yet: walk through its fields, and repair its strings.

Some SDKs send strings that are not UTF-8, and the Collector accepts them. The parser refuses the
whole export for one of them, with all of its other spans.
"""

import codecs
from collections.abc import Iterator
from functools import cache

from google.protobuf.descriptor import Descriptor, FieldDescriptor

#: The wire types of protobuf. The two of a group have no content: its fields follow.
_VARINT, _LENGTH, _GROUP = 0, 2, (3, 4)

#: The bytes of the wire types that have a fixed length.
_FIXED = {1: 8, 5: 4}

_QUESTION_MARKS = "queuehop.question-marks"


def walk(body: bytes, message: Descriptor) -> Iterator[tuple[FieldDescriptor | None, int, int]]:
    """Yield each field of *body*, a *message*, and of its nested messages: type, start and end.

    The type is None if it is neither a string nor a message. Raises IndexError if *body* is
    malformed.
    """
    nested = [(0, len(body), message)]
    while nested:
        at, end, kind = nested.pop()
        types = _types(kind)
        while at < end:
            tag, at = _varint(body, at)
            wire, field, start = tag & 7, None, at
            if wire == _LENGTH:
                length, start = _varint(body, at)
                field, at = types.get(tag >> 3), start + length
                if at > end:
                    raise IndexError
                if length and field is not None and field.message_type is not None:
                    nested.append((start, at, field.message_type))
            elif wire == _VARINT:
                _, at = _varint(body, at)
            elif wire in _FIXED:
                at += _FIXED[wire]
            elif wire not in _GROUP:
                raise IndexError
            yield field, start, at


def _varint(body: bytes, at: int) -> tuple[int, int]:
    """Return the varint at *at*, and the offset behind it.

    Raises IndexError if there is none. A varint of protobuf has ten bytes at most.
    """
    byte = body[at]
    if byte < 0x80:
        return byte, at + 1
    value, shift = byte & 0x7F, 7
    while byte >= 0x80:
        if shift > 63:
            raise IndexError
        at += 1
        byte = body[at]
        value |= (byte & 0x7F) << shift
        shift += 7
    return value, at + 1


@cache
def _types(message: Descriptor) -> dict[int, FieldDescriptor]:
    """Return the fields of *message* that are strings or messages, by their numbers."""
    return {
        number: field
        for number, field in message.fields_by_number.items()
        if field.type in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_MESSAGE)
    }


def with_utf8(body: bytes, message: Descriptor) -> bytes:
    """Return *body*, a *message*, with ``?`` for each byte of its strings that is not UTF-8.

    Its length stays, and so do the lengths in it. A malformed *body* is returned as it is.
    """
    repaired = bytearray(body)
    try:
        for field, start, end in walk(body, message):
            if field is not None and field.message_type is None:
                repaired[start:end] = body[start:end].decode(errors=_QUESTION_MARKS).encode()
    except IndexError:
        return body
    return bytes(repaired)


def _question_marks(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return "?" * (error.end - error.start), error.end


codecs.register_error(_QUESTION_MARKS, _question_marks)
