"""The format of a segment: frames, one after the other, each checked on its own.

A frame is a magic number, the length of its payload, a checksum and the payload. A payload is a
kind (one byte), the id of an origin (eight bytes) and the content. Numbers have the byte order of
the machine, which both writes and reads. A process that is killed while it writes leaves a torn
frame, and others go on behind it: a reader finds the next one by its magic number. The checksum
begins with a number of the segment's own, so that bytes in a payload cannot pass for a frame.
"""

import os
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
    "LOG",
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
#: The content is a log record.
LOG = b"\x04"

#: The largest payload in bytes: more than a collector accepts in one request.
LARGEST = 16 * 1024 * 1024

#: A payload of so few bytes is always checksummed.
_SHORT = 4096

_MAGIC = b"\x9aQH\x03"
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
    return crc32(os.fsencode(segment))  # somebody may have put a file of any name there


def frame(seed: int, payload: bytes) -> bytes:
    """Return one frame of a segment with *seed*."""
    return _header(_MAGIC, len(payload), crc32(payload, seed)) + payload


def unpack(seed: int, data: bytes, at_end: bool = True) -> Iterator[Frame]:
    """Yield the whole frames of *data* and pass over what is damaged.

    Offsets count from the beginning of *data*. *at_end* tells whether the file ends where *data*
    does: a frame that is not complete is then torn if a whole one follows its beginning.
    """
    search = _Search(seed, data)
    at = 0
    while (at := search.header(at)) >= 0:
        frame = search.frame(at)
        if frame is not None:
            yield frame
            at = frame.end
        elif search.is_unfinished(at) and not (at_end and search.any_behind(at)):
            return
        else:
            at += 1


class _Search:
    """Looks for frames in *data*. The time is proportional to the length, whatever is in there."""

    def __init__(self, seed: int, data: bytes) -> None:
        self._seed = seed
        self._data = data
        self._whole = -1  # where a frame is known to be
        #: Bytes that may be checksummed in vain. Damage seldom has a header, and forgery has many.
        #: A frame that is longer than what is left of them is damaged, if it is not short.
        self._budget = LARGEST + 64 * len(data)

    def header(self, at: int) -> int:
        """Return where the next header begins, -1 if there is none."""
        found = self._data.find(_MAGIC, at)
        return found if found + HEADER <= len(self._data) else -1

    def frame(self, at: int) -> Frame | None:
        _, length, checksum = _HEADER.unpack_from(self._data, at)
        begin = at + HEADER
        end = begin + length
        if end > len(self._data) or not _ID < length <= min(LARGEST, max(self._budget, _SHORT)):
            return None
        payload = self._data[begin:end]
        if crc32(payload, self._seed) != checksum:
            self._budget -= length
            return None
        return Frame(payload[:1], payload[1 : 1 + _ID], payload[1 + _ID :], end)

    def is_unfinished(self, at: int) -> bool:
        length: int = _HEADER.unpack_from(self._data, at)[1]
        return length <= LARGEST and at + HEADER + length > len(self._data)

    def any_behind(self, at: int) -> bool:
        """Return whether a whole frame follows."""
        if self._whole > at:
            return True
        while (at := self.header(at + 1)) >= 0:
            if self.frame(at) is not None:
                self._whole = at
                return True
        return False
