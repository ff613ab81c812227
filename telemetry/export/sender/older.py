"""Segments that older versions of queuehop left, in formats that this one cannot deliver."""

import contextlib
import os
import struct
from pathlib import Path
from typing import NamedTuple

from ..spool.directory import SpoolDirectory

#: A magic number, the length of the payload, a checksum, a kind.
_HEADER = struct.Struct("4sIIB")


class _Format(NamedTuple):
    """The kinds of frames that have a span, and how many bytes of the length the kind takes."""

    spans: frozenset[int]
    kind: int


_FORMATS = {
    b"\x9aQH\x01": _Format(frozenset({2, 4, 5, 6}), 0),  # formats 1 to 4
    **dict.fromkeys((b"\x9aQH\x02", b"\x9aQH\x03"), _Format(frozenset({2, 3}), 1)),  # 5 and 6
}


def count_older_spans(directory: SpoolDirectory) -> int:
    """Remove the segments of older formats beside *directory*. Return how many spans they had.

    If a process of an older version still writes to a segment, or delivers it, the segment stays.
    """
    count = 0
    for other in directory.others():
        with contextlib.suppress(OSError):
            if other.sender_files.is_running():
                continue
            for name in other.segments():
                with contextlib.suppress(OSError):
                    count += _remove(other, name)
    return count


def _remove(directory: SpoolDirectory, name: str) -> int:
    fd = directory.open_to_read(name)
    try:
        magic = os.pread(fd, 4, 0)
        if magic not in _FORMATS:
            return 0
        acknowledged = directory.acknowledged(name).spans
        count = _count(directory.segment(name), magic, acknowledged)
        return count if directory.remove(name, fd, os.fstat(fd).st_size) else 0
    finally:
        os.close(fd)


def _count(segment: Path, magic: bytes, acknowledged: int) -> int:
    data, older = segment.read_bytes(), _FORMATS[magic]
    count, at = 0, 0
    while (at := data.find(magic, at)) >= 0 and at + _HEADER.size <= len(data):
        _, length, _, kind = _HEADER.unpack_from(data, at)
        at += _HEADER.size + length - older.kind
        count += kind in older.spans and at > acknowledged
    return count
