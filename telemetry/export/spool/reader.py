"""Read a segment in chunks. Each record is converted together with its origin."""

import os
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from msgspec import msgpack

from ...tracing.record import Record, SpanTemplate, unpack, unpack_log
from ..outgoing import AnyRecord, Origin
from . import frames
from .directory import SpoolDirectory

#: Bytes read at a time.
CHUNK = 1024 * 1024

#: The number of segments with the latest records. The newest may be empty.
LATEST_SEGMENTS = 2

_decode_origin = msgpack.Decoder(Origin).decode

#: The decoders of a content, by the kind of its frame.
_DECODERS: dict[bytes, Callable[[bytes], AnyRecord]] = {
    frames.RECORD: unpack,
    frames.LOG: unpack_log,
}


class Chunk(NamedTuple):
    """The records in *length* bytes of a segment, each with the offset behind it."""

    items: list[tuple[Any, int]]
    #: The kinds of the frames that are damaged or unknown, each with the offset behind it.
    unreadable: list[tuple[bytes, int]]
    #: 0 at the end of the segment.
    length: int
    #: The length of the segment, at its end.
    size: int = 0


class SegmentReader:
    """Reads the segment *name*, open as *fd*. It applies *convert* to each record."""

    def __init__(self, fd: int, name: str, convert: Callable[[Origin, AnyRecord], Any]) -> None:
        self._fd = fd
        self._seed = frames.seed(name)
        self._convert = convert
        self._origins: dict[bytes, Origin] = {}

    def read(self, position: int, acknowledged: int = 0) -> Chunk:
        """Return the chunk at *position*, without the records that end at or before *acknowledged*.

        The definition of an origin is ahead of its records, so begin at 0.
        """
        size = CHUNK
        while True:
            data = os.pread(self._fd, size, position)
            at_end = len(data) < size
            found = list(frames.unpack(self._seed, data, at_end))
            if found or at_end or size > frames.LARGEST:
                break
            size = frames.LARGEST + CHUNK
        if not found:
            # Without a whole frame in so many bytes, they are damaged, unless more may follow.
            length = 0 if at_end else size - frames.HEADER
            return Chunk([], [], length, position + len(data) if at_end else 0)
        items, unreadable = [], []
        # An exception that a signal raises right after a write makes the writer write again.
        records: set[tuple[bytes, bytes]] = set()
        for frame in found:
            end = position + frame.end
            try:
                if frame.kind == frames.DEFINITION:
                    self._origins[frame.id] = _decode_origin(frame.content)
                elif end > acknowledged and (frame.id, frame.content) not in records:
                    record = _DECODERS[frame.kind](frame.content)
                    items.append((self._convert(self._origins[frame.id], record), end))
                    if frame.kind == frames.RECORD:
                        records.add((frame.id, frame.content))
            except Exception:
                unreadable.append((frame.kind, end))
        return Chunk(items, unreadable, found[-1].end)


def recent_records(
    directory: SpoolDirectory, segments: list[str]
) -> Iterator[tuple[SpanTemplate, Record]]:
    """Yield the latest records of *segments*, which are in order. Damaged records are left out."""
    for name in segments[-LATEST_SEGMENTS:]:
        try:
            fd = directory.open_to_read(name)
        except OSError:  # the sender has removed it
            continue
        try:
            reader = SegmentReader(fd, name, lambda origin, record: (origin.template, record))
            position = 0
            while (chunk := reader.read(position)).length:
                yield from (item for item, _ in chunk.items if isinstance(item[1], Record))
                position += chunk.length
        finally:
            os.close(fd)
