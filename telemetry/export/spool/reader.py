"""Read a segment in chunks of whole frames. Each frame is a record with its origin."""

import os
from collections.abc import Iterator
from typing import NamedTuple

from msgspec import msgpack

from ...tracing.record import Record, RecordedLog, SpanTemplate, unpack, unpack_log
from ..outgoing import Origin
from . import frames
from .directory import SpoolDirectory

__all__ = ["Chunk", "Entry", "SegmentReader", "recent_records"]

#: Bytes read at a time.
CHUNK = 1024 * 1024

#: The latest records are in so many segments: the newest may just have been begun.
LATEST = 2

_origin = msgpack.Decoder(Origin).decode


class Entry(NamedTuple):
    """One record, or one encoded ``Span`` that could not be a record, and the offset behind it."""

    origin: Origin
    content: Record | RecordedLog | bytes
    end: int


class Chunk(NamedTuple):
    """Whole frames that were read at a *position*, and their *length* in bytes.

    *size* is the length of the segment if it ended there, None if there is more of it.
    """

    position: int
    frames: list[frames.Frame]
    length: int
    size: int | None


class SegmentReader:
    """Reads the segment *name*, open as *fd*."""

    def __init__(self, fd: int, name: str) -> None:
        self._fd = fd
        self._seed = frames.seed(name)
        self._origins: dict[bytes, Origin] = {}

    def read(self, position: int) -> Chunk:
        """Return the frames from *position* on, at least one unless there is none."""
        size = CHUNK
        while True:
            data = os.pread(self._fd, size, position)
            at_end = len(data) < size
            found = list(frames.unpack(self._seed, data, at_end))
            if found or at_end or size > frames.LARGEST:
                break
            size = frames.LARGEST + CHUNK
        damage = 0 if at_end else size - frames.HEADER
        length = found[-1].end if found else damage
        return Chunk(position, found, length, position + len(data) if at_end else None)

    def decode(self, frame: frames.Frame, position: int) -> Entry | None:
        """Return what a *frame* of a chunk at *position* holds. None for a definition.

        Raises where the frame, or its definition, is damaged or of an unknown kind. Definitions
        must be decoded first.
        """
        if frame.kind == frames.DEFINITION:
            self._origins[frame.id] = _origin(frame.content)
            return None
        origin = self._origins[frame.id]
        end = position + frame.end
        if frame.kind == frames.RECORD:
            return Entry(origin, unpack(frame.content), end)
        if frame.kind == frames.LOG:
            return Entry(origin, unpack_log(frame.content), end)
        if frame.kind == frames.ENCODED_SPAN:
            return Entry(origin, frame.content, end)
        raise ValueError(f"a frame of the unknown kind {frame.kind!r}")


def recent_records(
    directory: SpoolDirectory, segments: list[str]
) -> Iterator[tuple[SpanTemplate, Record]]:
    """Yield the latest records of *segments*, which are in order, the damaged ones left out."""
    for name in segments[-LATEST:]:
        try:
            fd = directory.open_to_read(name)
        except OSError:  # the sender has removed it
            continue
        try:
            yield from _records(SegmentReader(fd, name))
        finally:
            os.close(fd)


def _records(reader: SegmentReader) -> Iterator[tuple[SpanTemplate, Record]]:
    position, size = 0, None
    while size is None:
        chunk = reader.read(position)
        for frame in chunk.frames:
            if frame.kind == frames.LOG:
                continue
            try:
                entry = reader.decode(frame, position)
            except Exception:
                continue
            if entry is not None and isinstance(entry.content, Record):
                yield entry.origin.template, entry.content
        position, size = position + chunk.length, chunk.size
