"""The format of a segment: frames, one after the other, each checked on its own.

A frame is a magic number, the length of its payload, a checksum and a kind, and the payload.
Numbers are as the machine has them: it is one that writes and reads. A process that is killed while
it writes leaves a torn frame, and others go on behind it: a reader finds the next one by its magic
number. The checksum begins with a number of the segment's own, so that bytes in a payload cannot
pass for a frame.
"""

import struct
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from typing import NamedTuple
from zlib import crc32

__all__ = [
    "DEFINITION",
    "LARGEST",
    "MEASURED_PARTS",
    "MEASURED_SPAN",
    "MEASUREMENT",
    "PARTS",
    "SPAN",
    "Definition",
    "Frame",
    "Head",
    "Part",
    "begin",
    "define",
    "frame",
    "measurement_of",
    "numbers",
    "pack",
    "seed",
    "size_of_numbers",
    "span_of",
    "unpack",
    "values",
]

#: Bytes of an id.
ID = 8

#: What others refer to: its id, then the content.
DEFINITION = 1
#: The ids of its resource and scope, then a ``Span``.
SPAN = 2
#: The ids of its resource and names, how many doubles, and these, one for each name.
MEASUREMENT = 3
#: Both at once: the ids of both, how many doubles, these, and the ``Span``.
MEASURED_SPAN = 4
#: The ids of its resource, scope and template, how many doubles, these, and the parts of a span.
PARTS = 5
#: The same, with the ids of its resource and names behind those: the doubles are measured.
MEASURED_PARTS = 6

#: The largest payload in bytes: more than a collector takes in one request.
LARGEST = 16 * 1024 * 1024

_MAGIC = b"\x9aQH\x01"
_HEADER = struct.Struct("4sIIB")
_header = _HEADER.pack

_KINDS = [bytes((kind,)) for kind in range(256)]

#: Bytes before a payload.
HEADER = _HEADER.size


class Definition(NamedTuple):
    """Bytes that many frames need; *id* is made from them."""

    id: bytes
    content: bytes


class Head:
    """What frames of one *kind* begin with that refer to the same *definitions*.

    Compared by identity.
    """

    __slots__ = ("definitions", "ids", "kind")

    def __init__(self, kind: int, *definitions: Definition) -> None:
        self.kind = kind
        self.definitions = definitions
        self.ids = b"".join([each.id for each in definitions])


#: One frame that was read: its kind, its payload and the offset behind it.
Frame = tuple[int, bytes, int]

#: What one reader wants of a frame: the ids of definitions, and a content.
Part = tuple[bytes, bytes]


#: How many numbers, and these. More than 15 are not measured together.
_NUMBERS = [struct.Struct(f"{1 + count}d") for count in range(16)]

_COUNT = _NUMBERS[0]


def numbers(values: Sequence[float]) -> bytes:
    """Return *values*, 15 at most, as they stand in a frame."""
    count = len(values)
    return _NUMBERS[count].pack(count, *values)


def values(content: bytes) -> tuple[float, ...]:
    """Return the values of what ``numbers`` returned."""
    return _NUMBERS[len(content) // 8 - 1].unpack(content)[1:]


def size_of_numbers(content: bytes) -> int:
    """Return the size of what ``numbers`` returned, with which *content* begins."""
    (count,) = _COUNT.unpack_from(content)
    return 8 + 8 * int(count)


def span_of(kind: int, payload: bytes) -> Part | None:
    """Return the resource and scope of the span in a frame, and the span; None if there is none.

    Where it is yet to be put together, they are the resource, scope and template, and what
    ``Template.fill`` takes.
    """
    if kind == MEASURED_PARTS:
        return payload[: 3 * ID], payload[5 * ID :]
    if kind == MEASURED_SPAN:
        rest = payload[4 * ID :]
        return payload[: 2 * ID], rest[size_of_numbers(rest) :]
    if kind == SPAN:
        return payload[: 2 * ID], payload[2 * ID :]
    if kind == PARTS:
        return payload[: 3 * ID], payload[3 * ID :]
    return None


def measurement_of(kind: int, payload: bytes) -> Part | None:
    """Return the resource and names of what was measured, and the numbers; None if nothing was."""
    if kind == MEASUREMENT:
        return payload[: 2 * ID], payload[2 * ID :]
    if kind not in (MEASURED_SPAN, MEASURED_PARTS):
        return None
    begin = (5 if kind == MEASURED_PARTS else 4) * ID
    numbers = payload[begin:]
    return payload[begin - 2 * ID : begin], numbers[: size_of_numbers(numbers)]


def define(content: bytes) -> Definition:
    """Return the definition of *content*."""
    return Definition(blake2b(content, digest_size=ID).digest(), content)


def seed(segment: str) -> int:
    """Return the number with which the checksums of the *segment* of that name begin."""
    return crc32(segment.encode())


def begin(seed: int, head: Head) -> int:
    """Return with what the checksum of each frame of *head* begins."""
    return crc32(head.ids, crc32(_KINDS[head.kind], seed))


def frame(begun: int, head: Head, content: bytes) -> bytes:
    """Return one frame of *head*, for which ``begin`` returned *begun*, and its *content*."""
    ids = head.ids
    size = len(ids) + len(content)
    return _header(_MAGIC, size, crc32(content, begun), head.kind) + ids + content


def pack(seed: int, kind: int, payload: bytes) -> bytes:
    """Return one frame of any kind, whose *payload* is all there."""
    head = Head(kind)
    return frame(begin(seed, head), head, payload)


def unpack(seed: int, data: bytes, at_end: bool = True) -> Iterator[Frame]:
    """Yield the whole frames of *data*, passing over what is damaged.

    Offsets count from the beginning of *data*. *at_end* says that the file ends where *data* does:
    a frame that is not all there is then torn if a whole one stands behind its beginning.
    """
    at = 0
    while (at := data.find(_MAGIC, at)) >= 0 and at + HEADER <= len(data):
        frame = _at(seed, data, at)
        if frame is not None:
            yield frame
            at = frame[2]
        elif _unfinished(data, at) and not (at_end and _any_behind(seed, data, at)):
            return
        else:
            at += 1


def _at(seed: int, data: bytes, at: int) -> Frame | None:
    _, length, checksum, kind = _HEADER.unpack_from(data, at)
    begin = at + HEADER
    end = begin + length
    if end > len(data) or length > LARGEST:
        return None
    payload = data[begin:end]
    if crc32(payload, crc32(_KINDS[kind], seed)) != checksum:
        return None
    return kind, payload, end


def _unfinished(data: bytes, at: int) -> bool:
    length: int = _HEADER.unpack_from(data, at)[1]
    return length <= LARGEST and at + HEADER + length > len(data)


def _any_behind(seed: int, data: bytes, at: int) -> bool:
    while (at := data.find(_MAGIC, at + 1)) >= 0 and at + HEADER <= len(data):
        if _at(seed, data, at) is not None:
            return True
    return False
