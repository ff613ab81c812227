"""One segment, as the sender reads it: a cursor for each signal, over the same chunks."""

import contextlib
import os
from collections.abc import Callable, Iterator
from operator import attrgetter
from typing import Any

from ..outgoing import FIELDS, outgoing
from ..spool.directory import Acknowledged, SpoolDirectory
from ..spool.frames import LOG
from ..spool.reader import Chunk, SegmentReader
from .delivery import Buffer, Source

#: The number of chunks that are in memory, of all segments together.
LATEST_CHUNKS = 16

#: The latest chunks, by segment and position, so that cursors share the interpreted records.
LatestChunks = dict[tuple[str, int], Chunk]


class Cursor(Buffer):
    """Reads *field* of the items that end behind *acknowledged*."""

    def __init__(self, read: Callable[[int], Chunk], field: str, acknowledged: int) -> None:
        super().__init__()
        self.acknowledged = acknowledged
        #: The kinds of the frames that were unreadable.
        self.unreadable: list[bytes] = []
        self._read_chunk = read
        self._field = attrgetter(field)
        self._position = 0
        self._size = 0

    @property
    def length_if_done(self) -> int:
        """The length of the segment, if all of it is read and acknowledged; else 0.

        It includes a torn frame at the end, which is never read.
        """
        return self._size if self.acknowledged >= self._position and not self.pending else 0

    def fill(self, most: int) -> None:
        while len(self.pending) < most and self._read():
            pass

    def drain(self) -> Iterator[Any]:
        yield from super().drain()
        while self._read():
            yield from super().drain()

    def acknowledge(self, count: int = 0) -> None:
        for _ in range(count):
            _, self.acknowledged = self.pending.popleft()
        if not self.pending:
            self.acknowledged = max(self.acknowledged, self._position)

    def _read(self) -> bool:
        chunk = self._read_chunk(self._position)
        self._position += chunk.length
        self._size = chunk.size
        for item, end in chunk.items:
            part = self._field(item)
            if part is not None and end > self.acknowledged:
                self.pending.append((part, end))
        self.unreadable += [kind for kind, end in chunk.unreadable if end > self.acknowledged]
        return chunk.length > 0


class Segment(Source):
    """The segment *name* of *directory*. *latest* is shared with the other segments.

    *before_save* is called before each change on disk of what is acknowledged.
    """

    def __init__(
        self,
        directory: SpoolDirectory,
        name: str,
        latest: LatestChunks,
        before_save: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__()
        self.name = name
        self._before_save = before_save
        self._directory = directory
        self._fd = directory.open_to_read(name)
        self._reader = SegmentReader(self._fd, name, outgoing)
        self._latest = latest
        self._error = ""
        self._saved = directory.acknowledged(name)
        self._acknowledged = min(self._saved)
        self._cursors = [
            Cursor(self._read, field, acknowledged)
            for field, acknowledged in zip(FIELDS.values(), self._saved, strict=True)
        ]
        self.waiting = dict(zip(FIELDS, self._cursors, strict=True))
        self._spans, self._measurements, self._logs = self._cursors

    def _read(self, position: int) -> Chunk:
        key = self.name, position
        chunk = self._latest.get(key)
        if chunk is not None:
            return chunk
        try:
            chunk = self._reader.read(position, self._acknowledged)
        except OSError as exc:  # a disk that fails
            self._error = exc.strerror or str(exc)
            return Chunk([], [], 0)
        if chunk.length:
            self._latest[key] = chunk
            if len(self._latest) > LATEST_CHUNKS:
                del self._latest[next(iter(self._latest))]  # the oldest
        return chunk

    @property
    def undelivered(self) -> int:
        """Bytes that hold undelivered spans or log records, or that are not read yet."""
        return self._behind(min(self._spans.acknowledged, self._logs.acknowledged))

    @property
    def unmeasured(self) -> int:
        """Bytes that hold undelivered measurements, or that are not read yet."""
        return self._behind(self._measurements.acknowledged)

    def _behind(self, offset: int) -> int:
        return max(0, os.fstat(self._fd).st_size - offset)

    @property
    def written_at(self) -> float:
        """The Unix time of the last write."""
        return os.fstat(self._fd).st_mtime

    @property
    def error(self) -> str:
        """Why the rest cannot be read, once everything that was read is delivered."""
        return "" if self._spans.pending or self._logs.pending else self._error

    def has_writer(self) -> bool:
        """Return whether a process may still write to it."""
        return self._directory.fd_has_writer(self._fd)

    def take_unreadable(self) -> tuple[int, int]:
        """Return how many spans and log records were unreadable since the last call."""
        spans = sum(kind != LOG for kind in self._spans.unreadable)
        logs = sum(kind == LOG for kind in self._logs.unreadable)
        self._spans.unreadable, self._logs.unreadable = [], []
        return spans, logs

    def save(self) -> None:
        acknowledged = Acknowledged(*(cursor.acknowledged for cursor in self._cursors))
        if acknowledged != self._saved:
            self._before_save()
            with contextlib.suppress(OSError):  # a full disk: the next call tries again
                self._directory.acknowledge(self.name, acknowledged)
                self._saved = acknowledged

    def remove_if_done(self) -> bool:
        """Remove it if all is delivered and no process can add to it. Return whether it is gone."""
        length = min(cursor.length_if_done for cursor in self._cursors)
        return length > 0 and self._directory.remove(self.name, self._fd, length)

    def give_up(self) -> tuple[int, int]:
        """Drop all spans and log records in it. Return how many there were of each."""
        return self.skip("TRACES"), self.skip("LOGS")

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)
