"""Limits on an export: its objects are counted before any of them is built.

An object may take two bytes of protobuf, and a request of 65 KB may unpack to 64 MB of them.
"""

from functools import cache

from google.protobuf.descriptor import Descriptor

__all__ = [
    "FIXED32", "FIXED64", "LENGTH", "MAX_IMPORTED", "MAX_OBJECTS", "VARINT", "Malformed",
    "TooLarge", "check_json", "check_protobuf", "read_varint",
]  # fmt: skip

#: The most objects of one export: spans, attributes, their values, and everything else nested.
MAX_OBJECTS = 300_000

#: The most fields of one export, in protobuf. Counting them takes time too.
MAX_FIELDS = 4 * MAX_OBJECTS

#: The most objects of a file that a person opens.
MAX_IMPORTED = 1_000_000

#: The most spans or log records among them. A collector's batch has 8,192 by default.
MAX_SPANS = 50_000

#: The most bytes of a span or log record. Most gRPC servers accept as much in one request.
MAX_SPAN = 4 * 1024 * 1024

#: The objects of a shorter body are not counted. Each takes at least two bytes.
_SMALL = 256 * 1024

_ITEMS = {"Span": "span", "LogRecord": "log record"}

#: The wire types of protobuf.
VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5


class Malformed(ValueError):
    """The body is not OTLP; the message names the error."""


class TooLarge(ValueError):
    """The body, or what it becomes, is larger than the limit."""


def check_protobuf(body: bytes, message: Descriptor) -> int:
    """Return the number of objects in *body*, a *message*. Raise TooLarge if it is too high.

    Return 0 for a small body, and for a malformed one, which the parser will refuse.
    """
    if len(body) <= _SMALL:
        return 0
    try:
        return _count(body, message)
    except IndexError:
        return 0


def _count(body: bytes, message: Descriptor) -> int:
    objects = items = fields = 0
    nested = [(0, len(body), message)]
    while nested:
        at, end, kind = nested.pop()
        types = _types(kind)
        while at < end:
            fields += 1
            if fields > MAX_FIELDS:
                raise TooLarge(f"the body has more than {MAX_FIELDS} fields")
            tag, at = read_varint(body, at)
            wire = tag & 7
            if wire == LENGTH:
                length, at = read_varint(body, at)
                field = types.get(tag >> 3)
                if field is not None:
                    objects += 1
                    if objects > MAX_OBJECTS:
                        raise TooLarge(f"the body has more than {MAX_OBJECTS} objects")
                    if item := _ITEMS.get(field.name):
                        items += 1
                        if items > MAX_SPANS:
                            raise TooLarge(f"the body has more than {MAX_SPANS} {item}s")
                        if length > MAX_SPAN:
                            raise TooLarge(f"the body has a {item} of more than {MAX_SPAN} bytes")
                    if length:
                        nested.append((at, at + length, field))
                at += length
            elif wire == VARINT:
                _, at = read_varint(body, at)
            elif wire in (FIXED64, FIXED32):
                at += 8 if wire == FIXED64 else 4
            else:
                return objects
    return objects


def read_varint(body: bytes, at: int) -> tuple[int, int]:
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
def _types(message: Descriptor) -> dict[int, Descriptor]:
    """Return the type of each field of *message* that is a message, by its number."""
    return {
        number: field.message_type
        for number, field in message.fields_by_number.items()
        if field.message_type is not None
    }


def check_json(body: bytes, most: int = MAX_OBJECTS) -> int:
    """Return an estimate of the number of values in *body*, which is JSON.

    Raise TooLarge if it has more than *most* objects, or three times as many values.
    """
    objects = body.count(b"{") + body.count(b"[")
    if objects > most:
        raise TooLarge(f"the body has more than {most} objects")
    values = objects + body.count(b",")
    if values > 3 * most:
        raise TooLarge(f"the body has more than {3 * most} values")
    return values
