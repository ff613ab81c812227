"""What older versions of queuehop left in their format, which this one cannot deliver."""

import contextlib
import os
import struct
from pathlib import Path

from ..spool.directory import SpoolDirectory

__all__ = ["count_older_spans"]

#: Formats 1 to 4: a magic number, the length of the payload, a checksum, a kind.
_MAGIC = b"\x9aQH\x01"
_HEADER = struct.Struct("4sIIB")
#: The kinds of frames that held a span.
_SPANS = frozenset({2, 4, 5, 6})


def count_older_spans(directory: SpoolDirectory) -> int:
    """Remove the segments of older formats beside *directory*. Return the spans in them.

    Segments that a process of an older version still writes to, or delivers, stay.
    """
    count = 0
    for other in directory.others():
        with contextlib.suppress(OSError):
            if other.has_sender():
                continue
            for name in other.segments():
                with contextlib.suppress(OSError):
                    count += _remove(other, name)
    return count


def _remove(directory: SpoolDirectory, name: str) -> int:
    fd = directory.open_to_read(name)
    try:
        if os.pread(fd, len(_MAGIC), 0) != _MAGIC:
            return 0
        count = _count(directory.segment(name), directory.acknowledged(name).spans)
        return count if directory.remove(name, fd, os.fstat(fd).st_size) else 0
    finally:
        os.close(fd)


def _count(segment: Path, acknowledged: int) -> int:
    data = segment.read_bytes()
    count, at = 0, 0
    while (at := data.find(_MAGIC, at)) >= 0 and at + _HEADER.size <= len(data):
        _, length, _, kind = _HEADER.unpack_from(data, at)
        at += _HEADER.size + length
        count += kind in _SPANS and at > acknowledged
    return count
