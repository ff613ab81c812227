"""The sender's side of one segment: a cursor for the spans, the measurements and the logs each."""

import contextlib
import os
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from ...tracing.record import RecordedLog
from ..outgoing import Origin, Outgoing, outgoing, outgoing_log, outgoing_span
from ..spool.directory import Acknowledged, SpoolDirectory
from ..spool.frames import DEFINITION
from ..spool.reader import SegmentReader

__all__ = ["Cursor", "Item", "Segment", "SharedChunks"]

#: Chunks, of all segments together, that wait for the other cursors.
LATEST = 16

#: Each chunk is read by so many.
CURSORS = 3


class Item(NamedTuple):
    """What a cursor delivers: a span, a measurement or a log record, and the offset behind it."""

    origin: Origin
    content: Any
    end: int


class Chunk(NamedTuple):
    """Records that were read at a *position*, *length* bytes of them.

    *size* is the length of the segment if it ended there, None if there is more of it.
    """

    items: list[tuple[Outgoing, int]]
    length: int
    size: int | None


class SharedChunk(NamedTuple):
    """A chunk that so many cursors have not read yet."""

    chunk: Chunk
    left: int


#: Chunks that one cursor has read and another has not, by segment and position.
SharedChunks = dict[tuple[str, int], SharedChunk]


class _Chunks:
    """The chunks of one segment. Each record is decoded and interpreted once for all cursors."""

    def __init__(self, fd: int, name: str, shared: SharedChunks, skip: int) -> None:
        """Records that end before *skip* are left out."""
        self.unreadable = 0
        self.error = ""
        self._reader = SegmentReader(fd, name)
        self._name = name
        self._shared = shared
        self._skip = skip
        self._seen = 0

    def read(self, position: int) -> Chunk:
        """Return the chunk at *position*."""
        key = self._name, position
        shared = self._shared.pop(key, None)
        if shared is None:
            shared = SharedChunk(self._read(position), CURSORS)
            if len(self._shared) >= LATEST:
                del self._shared[next(iter(self._shared))]  # the oldest
        chunk, left = shared
        if chunk.items and left > 1:  # where there were none, there may be some the next time
            self._shared[key] = SharedChunk(chunk, left - 1)
        return chunk

    def has(self, position: int) -> bool:
        """Return whether another cursor has read more, from *position* on."""
        return (self._name, position) in self._shared

    def _read(self, position: int) -> Chunk:
        try:
            read = self._reader.read(position)
        except OSError as exc:  # a disk that fails
            self.error = exc.strerror or str(exc)
            return Chunk([], 0, 0)
        items = []
        for frame in read.frames:
            end = position + frame.end
            try:
                if frame.kind != DEFINITION and end <= self._skip:
                    continue
                entry = self._reader.decode(frame, position)
                if entry is None:
                    continue
                content = entry.content
                if isinstance(content, bytes):
                    item = outgoing_span(entry.origin, content)
                elif isinstance(content, RecordedLog):
                    item = outgoing_log(entry.origin, content)
                else:
                    item = outgoing(entry.origin, content)
                items.append((item, end))
            except Exception:
                self.unreadable += end > self._seen
        self._seen = max(self._seen, position + read.length)
        return Chunk(items, read.length, read.size)


#: What a cursor takes of a record, None where it has nothing of the kind.
Select = Callable[[Outgoing], Any]


class Cursor:
    """Goes through what *select* finds in the records that end behind *acknowledged*."""

    def __init__(self, chunks: _Chunks, select: Select, acknowledged: int) -> None:
        self.acknowledged = acknowledged
        self.pending: deque[Item] = deque()
        self.position = 0
        self._chunks = chunks
        self._select = select
        self._size = 0

    @property
    def done(self) -> int:
        """How long the segment was when all in it was read and acknowledged; 0 before that.

        A torn frame at its end is never read, but it is known.
        """
        return self._size if self.acknowledged >= self.position and not self.pending else 0

    def fill(self, most: int) -> None:
        """Read until *most* items are pending or the segment ends."""
        while len(self.pending) < most and self._read():
            pass

    def drain(self) -> Iterator[Item]:
        """Yield all items to the end of the segment. That does not acknowledge them."""
        more = True
        while more:
            more = self._read()
            while self.pending:
                yield self.pending.popleft()

    def acknowledge(self, count: int) -> None:
        """Remove the first *count* items: they are delivered or dropped."""
        for _ in range(count):
            self.acknowledged = self.pending.popleft().end
        if not self.pending:
            self.acknowledge_all()

    def acknowledge_all(self) -> None:
        """Acknowledge everything that was read."""
        self.acknowledged = max(self.acknowledged, self.position)

    def _read(self) -> bool:
        chunk = self._chunks.read(self.position)
        for item, end in chunk.items:
            if end > self.acknowledged:
                content = self._select(item)
                if content is not None:
                    self.pending.append(Item(item.origin, content, end))
        self.position += chunk.length
        if chunk.size is None:
            return True
        self._size = chunk.size
        # The segment ended there when it was read, and another cursor may have read more since.
        return self._chunks.has(self.position)


class Segment:
    """One segment of *directory*, open for reading. *shared* is shared with the other segments."""

    def __init__(self, directory: SpoolDirectory, name: str, shared: SharedChunks) -> None:
        self.name = name
        self._directory = directory
        self._fd = directory.open_to_read(name)
        self._written_down = done = directory.acknowledged(name)
        self._chunks = _Chunks(self._fd, name, shared, min(done))
        self.spans = Cursor(self._chunks, lambda item: item.span, done.spans)
        self.measurements = Cursor(self._chunks, lambda item: item.measurement, done.measurements)
        self.logs = Cursor(self._chunks, lambda item: item.log, done.logs)

    @property
    def undelivered(self) -> int:
        """Bytes that hold undelivered spans or logs, or that were not read yet."""
        acknowledged = min(self.spans.acknowledged, self.logs.acknowledged)
        return max(0, os.fstat(self._fd).st_size - acknowledged)

    @property
    def written(self) -> float:
        """When it was last written to, in Unix time."""
        return os.fstat(self._fd).st_mtime

    def is_held(self) -> bool:
        """Return whether a process may still write to it."""
        return self._directory.is_held(self._fd)

    def take_unreadable(self) -> int:
        """Return how many records could not be read since the last call."""
        count, self._chunks.unreadable = self._chunks.unreadable, 0
        return count

    @property
    def error(self) -> str:
        """Return why the rest of it cannot be read, once what was read is delivered."""
        return "" if self.spans.pending or self.logs.pending else self._chunks.error

    def save(self) -> None:
        """Write down on disk how far the cursors are."""
        done = Acknowledged(
            self.spans.acknowledged, self.measurements.acknowledged, self.logs.acknowledged
        )
        if done != self._written_down:
            with contextlib.suppress(OSError):  # a full disk: the next time will do
                self._directory.acknowledge(self.name, done)
                self._written_down = done

    def remove_if_done(self) -> bool:
        """Remove it if all is delivered and no process can add to it. Return whether it is gone."""
        done = min(self.spans.done, self.measurements.done, self.logs.done)
        return bool(done) and self._directory.remove(self.name, self._fd, done)

    def give_up(self) -> tuple[int, int]:
        """Acknowledge all spans and logs in it, undelivered. Return how many there were of each."""
        spans, logs = (_give_up(cursor) for cursor in (self.spans, self.logs))
        self.save()
        return spans, logs

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)


def _give_up(cursor: Cursor) -> int:
    count = sum(1 for _ in cursor.drain())
    cursor.acknowledge_all()
    return count
