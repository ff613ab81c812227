"""The format of a segment: frames, one after the other, each checked on its own.

A frame is a magic number, the length of its payload, a checksum and the payload. A payload is a
kind (one byte), the id of an origin (eight bytes) and the content. Numbers have the byte order of
the machine, which both writes and reads. A process that is killed while it writes leaves a torn
frame, and others go on behind it: a reader finds the next one by its magic number. The checksum
begins with a number of the segment's own, so that bytes in a payload cannot pass for a frame.
"""

import struct
from collections.abc import Iterator
from hashlib import blake2b
from typing import NamedTuple
from zlib import crc32

__all__ = [
    "DEFINITION",
    "ENCODED_SPAN",
    "HEADER",
    "LARGEST",
    "RECORD",
    "Definition",
    "Frame",
    "define",
    "frame",
    "seed",
    "unpack",
]

#: The content is an origin, which others refer to by its id.
DEFINITION = b"\x01"
#: The content is a record.
RECORD = b"\x02"
#: The content is a ``Span``, which could not be packed as a record.
ENCODED_SPAN = b"\x03"

#: The largest payload in bytes: more than a collector accepts in one request.
LARGEST = 16 * 1024 * 1024

_MAGIC = b"\x9aQH\x02"
_HEADER = struct.Struct("4sII")
_header = _HEADER.pack

#: Bytes before a payload.
HEADER = _HEADER.size

#: Bytes of an id.
_ID = 8


class Definition(NamedTuple):
    """An origin as bytes, with the id that is made from them."""

    id: bytes
    content: bytes

    def payload(self) -> bytes:
        """Return the payload of its frame."""
        return DEFINITION + self.id + self.content


class Frame(NamedTuple):
    """One frame that was read, and the offset behind it."""

    kind: bytes
    id: bytes
    content: bytes
    end: int


def define(content: bytes) -> Definition:
    """Return the definition of *content*."""
    return Definition(blake2b(content, digest_size=_ID).digest(), content)


def seed(segment: str) -> int:
    """Return the number with which the checksums of the *segment* of that name begin."""
    return crc32(segment.encode())


def frame(seed: int, payload: bytes) -> bytes:
    """Return one frame of a segment with *seed*."""
    return _header(_MAGIC, len(payload), crc32(payload, seed)) + payload


def unpack(seed: int, data: bytes, at_end: bool = True) -> Iterator[Frame]:
    """Yield the whole frames of *data* and pass over what is damaged.

    Offsets count from the beginning of *data*. *at_end* tells whether the file ends where *data*
    does: a frame that is not complete is then torn if a whole one follows its beginning.
    """
    at = 0
    while (at := data.find(_MAGIC, at)) >= 0 and at + HEADER <= len(data):
        frame = _at(seed, data, at)
        if frame is not None:
            yield frame
            at = frame.end
        elif _is_unfinished(data, at) and not (at_end and _any_behind(seed, data, at)):
            return
        else:
            at += 1


def _at(seed: int, data: bytes, at: int) -> Frame | None:
    _, length, checksum = _HEADER.unpack_from(data, at)
    begin = at + HEADER
    end = begin + length
    if end > len(data) or not _ID < length <= LARGEST:
        return None
    payload = data[begin:end]
    if crc32(payload, seed) != checksum:
        return None
    return Frame(payload[:1], payload[1 : 1 + _ID], payload[1 + _ID :], end)


def _is_unfinished(data: bytes, at: int) -> bool:
    length: int = _HEADER.unpack_from(data, at)[1]
    return length <= LARGEST and at + HEADER + length > len(data)


def _any_behind(seed: int, data: bytes, at: int) -> bool:
    while (at := data.find(_MAGIC, at + 1)) >= 0 and at + HEADER <= len(data):
        if _at(seed, data, at) is not None:
            return True
    return False
