"""The format of a segment: frames, one after the other, each checked on its own.

A frame is a magic number, the length of its payload, a checksum and a kind, little-endian, and the
payload. A process that is killed while it writes leaves a torn frame, and others go on behind it:
a reader finds the next one by its magic number. The checksum begins with a number of the segment's
own, so that bytes in a payload cannot pass for a frame.
"""

import struct
import zlib
from collections.abc import Iterator
from hashlib import blake2b
from typing import NamedTuple

__all__ = [
    "DEFINITION",
    "LARGEST",
    "MEASUREMENT",
    "SPAN",
    "Definition",
    "Frame",
    "define",
    "pack",
    "seed",
    "unpack",
]

#: What others refer to: 8 bytes of id, then the content.
DEFINITION = 1
#: The ids of its resource and scope, then a ``Span`` as a field of ``ScopeSpans``.
SPAN = 2
#: The ids of its resource and names, then a double for each name.
MEASUREMENT = 3

#: The largest payload in bytes: more than a collector takes in one request.
LARGEST = 16 * 1024 * 1024

_MAGIC = b"\x9aQH\x01"
_HEADER = struct.Struct("<4sIIB")

_KINDS = [bytes((kind,)) for kind in range(256)]

#: Bytes before a payload.
HEADER = _HEADER.size


class Definition(NamedTuple):
    """Bytes that many frames need; *id* is 8 bytes made from them."""

    id: bytes
    content: bytes


class Frame(NamedTuple):
    """One frame that was read; *end* is the offset behind it."""

    kind: int
    payload: bytes
    end: int


def define(content: bytes) -> Definition:
    """Return the definition of *content*."""
    return Definition(blake2b(content, digest_size=8).digest(), content)


def seed(segment: str) -> int:
    """Return the number with which the checksums of the *segment* of that name begin."""
    return zlib.crc32(segment.encode())


def pack(seed: int, kind: int, payload: bytes) -> bytes:
    """Return one frame."""
    return _HEADER.pack(_MAGIC, len(payload), _checksum(seed, kind, payload), kind) + payload


def unpack(seed: int, data: bytes, at_end: bool = True) -> Iterator[Frame]:
    """Yield the whole frames of *data*, passing over what is damaged.

    Offsets count from the beginning of *data*. *at_end* says that the file ends where *data* does:
    a frame that is not all there is then torn if a whole one stands behind its beginning.
    """
    at = 0
    while (at := data.find(_MAGIC, at)) >= 0 and at + _HEADER.size <= len(data):
        frame = _at(seed, data, at)
        if frame is not None:
            yield frame
            at = frame.end
        elif _unfinished(data, at) and not (at_end and _any_behind(seed, data, at)):
            return
        else:
            at += 1


def _at(seed: int, data: bytes, at: int) -> Frame | None:
    _, length, checksum, kind = _HEADER.unpack_from(data, at)
    begin = at + _HEADER.size
    end = begin + length
    if end > len(data) or length > LARGEST:
        return None
    payload = data[begin:end]
    return Frame(kind, payload, end) if _checksum(seed, kind, payload) == checksum else None


def _checksum(seed: int, kind: int, payload: bytes) -> int:
    return zlib.crc32(payload, zlib.crc32(_KINDS[kind], seed))


def _unfinished(data: bytes, at: int) -> bool:
    length: int = _HEADER.unpack_from(data, at)[1]
    return length <= LARGEST and at + _HEADER.size + length > len(data)


def _any_behind(seed: int, data: bytes, at: int) -> bool:
    while (at := data.find(_MAGIC, at + 1)) >= 0 and at + _HEADER.size <= len(data):
        if _at(seed, data, at) is not None:
            return True
    return False
