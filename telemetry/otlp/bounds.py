"""What an export may become: its objects are counted before any of them is built.

Two bytes of protobuf may be an object, and a request of 65 KB may unpack to 64 MB of them.
"""

from functools import cache

from google.protobuf.descriptor import Descriptor

__all__ = ["MAX_IMPORTED", "MAX_OBJECTS", "Malformed", "TooLarge", "check_json", "check_protobuf"]

#: The most objects of one export: spans, attributes, their values, and whatever else is nested.
MAX_OBJECTS = 300_000

#: The most fields of one export, in protobuf. Counting them takes time too.
MAX_FIELDS = 4 * MAX_OBJECTS

#: The most of a file that a person opens.
MAX_IMPORTED = 1_000_000

#: The most spans, or log records, among them. A collector's batch has 8,192, unless it is told
#: otherwise.
MAX_SPANS = 50_000

#: The largest span or log record in bytes: as much as most servers of gRPC take in one request.
MAX_SPAN = 4 * 1024 * 1024

#: The objects of a shorter body are not counted. Each has two bytes at least.
_SMALL = 256 * 1024

_ONE = {"Span": "a span", "LogRecord": "a log record"}
_PLURAL = {"Span": "spans", "LogRecord": "log records"}

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5


class Malformed(ValueError):
    """The body is not OTLP; the message names the error."""


class TooLarge(ValueError):
    """The body, or what it becomes, is larger than the limit."""


def check_protobuf(body: bytes, message: Descriptor) -> int:
    """Return how many objects *body*, a *message*, has. Raise TooLarge if those are too many.

    Those of a small body are not counted, and a malformed body is left to the parser.
    """
    if len(body) <= _SMALL:
        return 0
    try:
        return _count(body, message)
    except IndexError:
        return 0


def _count(body: bytes, message: Descriptor) -> int:
    objects = spans = fields = 0
    nested = [(0, len(body), message)]
    while nested:
        at, end, kind = nested.pop()
        types = _types(kind)
        while at < end:
            fields += 1
            if fields > MAX_FIELDS:
                raise TooLarge(f"the body has more than {MAX_FIELDS} fields")
            tag, at = _varint(body, at)
            wire = tag & 7
            if wire == _LENGTH:
                length, at = _varint(body, at)
                field = types.get(tag >> 3)
                if field is not None:
                    objects += 1
                    if objects > MAX_OBJECTS:
                        raise TooLarge(f"the body has more than {MAX_OBJECTS} objects")
                    if field.name in ("Span", "LogRecord"):
                        spans += 1
                        if spans > MAX_SPANS:
                            raise TooLarge(
                                f"the body has more than {MAX_SPANS} {_PLURAL[field.name]}"
                            )
                        if length > MAX_SPAN:
                            raise TooLarge(
                                f"the body has {_ONE[field.name]} of more than {MAX_SPAN} bytes"
                            )
                    if length:
                        nested.append((at, at + length, field))
                at += length
            elif wire == _VARINT:
                _, at = _varint(body, at)
            elif wire in (_FIXED64, _FIXED32):
                at += 8 if wire == _FIXED64 else 4
            else:
                return objects
    return objects


def _varint(body: bytes, at: int) -> tuple[int, int]:
    """Return the variable-length integer at *at*, and the offset behind it.

    Raises IndexError where there is none: protobuf's have ten bytes at most.
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
    """Return the types of the fields of *message* that are messages, by their numbers."""
    return {
        number: field.message_type
        for number, field in message.fields_by_number.items()
        if field.message_type is not None
    }


def check_json(body: bytes, most: int = MAX_OBJECTS) -> int:
    """Return about how many values *body*, in JSON, has.

    Raise TooLarge if it has more than *most* objects, or three times as many other values.
    """
    objects = body.count(b"{") + body.count(b"[")
    if objects > most:
        raise TooLarge(f"the body has more than {most} objects")
    values = objects + body.count(b",")
    if values > 3 * most:
        raise TooLarge(f"the body has more than {3 * most} values")
    return values
