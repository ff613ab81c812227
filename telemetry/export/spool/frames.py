"""The format of a segment: frames, one after the other, each checked on its own.

A frame is a magic number, the length of its payload, a checksum and the payload. A payload is a
kind (one byte), the id of an origin (eight bytes) and the content. Numbers have the byte order of
the machine, since one machine writes and reads them. If a process is killed while it writes, it
leaves a torn frame, and other processes append behind it: a reader finds the next frame by its
magic number. The checksum begins with a number that only this segment has, so bytes in a payload
cannot imitate a frame.
"""

import os
import struct
from collections.abc import Iterator
from hashlib import blake2b
from typing import NamedTuple
from zlib import crc32

#: The content is an origin. Other frames refer to it by its id.
DEFINITION = b"\x01"
#: The content is a record.
RECORD = b"\x02"
#: The content is a log record.
LOG = b"\x04"

#: The largest payload in bytes: more than a collector accepts in one request.
LARGEST = 16 * 1024 * 1024

#: A payload of so few bytes is always checksummed.
_SHORT = 4096

_MAGIC = b"\x9aQH\x04"
_HEADER = struct.Struct("4sII")
_header = _HEADER.pack

#: Bytes before a payload.
HEADER = _HEADER.size

#: Bytes of an id.
_ID = 8


class Definition(NamedTuple):
    """The id of an origin, and the payload that defines it."""

    id: bytes
    payload: bytes


class Frame(NamedTuple):
    """One frame that was read, and the offset behind it."""

    kind: bytes
    id: bytes
    content: bytes
    end: int


def define(content: bytes) -> Definition:
    """Return the definition of *content*, an origin as bytes. The id is a hash of them."""
    id = blake2b(content, digest_size=_ID).digest()
    return Definition(id, DEFINITION + id + content)


def seed(segment: str) -> int:
    """Return the number with which the checksums of the *segment* of that name begin."""
    return crc32(os.fsencode(segment))  # a file there may have any name


def frame(seed: int, payload: bytes) -> bytes:
    """Return one frame of a segment with *seed*."""
    return _header(_MAGIC, len(payload), crc32(payload, seed)) + payload


def unpack(seed: int, data: bytes, at_end: bool = True) -> Iterator[Frame]:
    """Yield the whole frames of *data*, and skip damaged ones.

    Offsets count from the beginning of *data*. *at_end* is whether the file ends where *data* does.
    If so, an incomplete frame counts as torn where a whole frame follows it.
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
    """Searches *data* for frames. The time is proportional to its length, whatever it contains."""

    def __init__(self, seed: int, data: bytes) -> None:
        self._seed = seed
        self._data = data
        self._whole = -1  # the offset of a whole frame
        #: How many bytes may still be checksummed without success. Damage seldom has a header, and
        #: a forgery has many. A frame that is longer than this, and not short, counts as damaged.
        self._budget = LARGEST + 64 * len(data)

    def header(self, at: int) -> int:
        """Return where the next header begins, -1 if there is none."""
        found = self._data.find(_MAGIC, at)
        return found if found + HEADER <= len(self._data) else -1

    def frame(self, at: int) -> Frame | None:
        """Return the frame whose header is *at*, None if it is damaged or incomplete."""
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
        """Return whether the frame whose header is *at* is longer than the data."""
        length: int = _HEADER.unpack_from(self._data, at)[1]
        return length <= LARGEST and at + HEADER + length > len(self._data)

    def any_behind(self, at: int) -> bool:
        """Return whether a whole frame begins behind *at*."""
        if self._whole > at:
            return True
        while (at := self.header(at + 1)) >= 0:
            if self.frame(at) is not None:
                self._whole = at
                return True
        return False
