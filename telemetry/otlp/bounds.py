"""Limits on an export: its objects are counted before any of them is built.

An object may take two bytes of protobuf, and a request of 65 KB may unpack to 64 MB of them.
"""

from google.protobuf.descriptor import Descriptor

from .protobuf import walk

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
    objects = items = 0
    for number, (field, start, end) in enumerate(walk(body, message)):
        if number == MAX_FIELDS:
            raise TooLarge(f"the body has more than {MAX_FIELDS} fields")
        if field is None or field.message_type is None:
            continue
        objects += 1
        if objects > MAX_OBJECTS:
            raise TooLarge(f"the body has more than {MAX_OBJECTS} objects")
        if item := _ITEMS.get(field.message_type.name):
            items += 1
            if items > MAX_SPANS:
                raise TooLarge(f"the body has more than {MAX_SPANS} {item}s")
            if end - start > MAX_SPAN:
                raise TooLarge(f"the body has a {item} of more than {MAX_SPAN} bytes")
    return objects


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
