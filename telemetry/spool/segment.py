"""The sender's side of one segment: a cursor for each kind of frame, and how far they are."""

import contextlib
import os
from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

from . import frames
from .place import Acknowledged, Place
from .template import Template

__all__ = ["Cursor", "Item", "Latest", "Reader", "Segment"]

#: Bytes read at a time.
CHUNK = 1024 * 1024


#: How many chunks, of all segments together, wait for the other cursor.
LATEST = 16

#: What makes the span of a frame's content.
Fill = Callable[[bytes], bytes]

#: The contents of a frame's definitions, its own content and the offset behind it.
Item = tuple[tuple[bytes, ...], bytes, int]


class Chunk(NamedTuple):
    """What was read at a *position*: whole frames, and how far they go.

    *size* is how long the segment was if it ended there, None if there is more of it.
    """

    position: int
    frames: list[frames.Frame]
    length: int
    size: int | None


#: Chunks that were read, by the segment's name and their position in it.
Latest = dict[tuple[str, int], Chunk]


class Reader:
    """Reads the segment *name*, open as *fd*, in chunks. The *latest* it has ready once more.

    So a second cursor that comes the same way as the first costs no reading. *latest* may be shared
    with the readers of other segments.
    """

    def __init__(self, fd: int, name: str, latest: Latest | None = None) -> None:
        self._fd = fd
        self._name = name
        self._seed = frames.seed(name)
        self._latest = {} if latest is None else latest

    def read(self, position: int) -> Chunk:
        """Return the frames from *position* on, at least one unless there is none."""
        chunk = self._latest.pop((self._name, position), None)
        if chunk is None:
            chunk = self._read(position)
            if chunk.frames:  # where there were none, there may be some the next time
                if len(self._latest) >= LATEST:
                    del self._latest[next(iter(self._latest))]  # the oldest
                self._latest[self._name, position] = chunk
        return chunk

    def has(self, position: int) -> bool:
        """Say whether the frames from *position* on are ready."""
        return (self._name, position) in self._latest

    def _read(self, position: int) -> Chunk:
        size = CHUNK
        while True:
            data = os.pread(self._fd, size, position)
            at_end = len(data) < size
            found = list(frames.unpack(self._seed, data, at_end))
            if found or at_end or size > frames.LARGEST:
                break
            size = frames.LARGEST + CHUNK
        damage = 0 if at_end else size - frames.HEADER
        length = found[-1][2] if found else damage
        return Chunk(position, found, length, position + len(data) if at_end else None)


#: What a cursor takes of a frame, by its kind and payload.
Select = Callable[[int, bytes], frames.Part | None]


class Cursor:
    """Goes through what *select* finds in the frames that end behind *acknowledged*."""

    def __init__(self, reader: Reader, select: Select, acknowledged: int) -> None:
        self.unreadable = 0
        self.acknowledged = acknowledged
        self.pending: deque[Item] = deque()
        self._reader = reader
        self._select = select
        #: The content of each definition by its id; two that come together by theirs, and what
        #: fills the template that comes with them, if one does.
        self._known: dict[bytes, bytes] = {}
        self._together: dict[bytes, tuple[tuple[bytes, ...], Fill | None]] = {}
        self.position = 0
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
        """Yield all items to the end of the segment. They are not acknowledged by it."""
        more = True
        while more:
            more = self._read()
            while self.pending:
                yield self.pending.popleft()

    def acknowledge(self, count: int) -> None:
        """Take away the first *count* items: they are delivered, or never will be."""
        for _ in range(count):
            self.acknowledged = self.pending.popleft()[2]
        if not self.pending:
            self.acknowledge_all()

    def acknowledge_all(self) -> None:
        """Take all that was read for delivered."""
        self.acknowledged = max(self.acknowledged, self.position)

    def _read(self) -> bool:
        chunk = self._reader.read(self.position)
        for kind, payload, end in chunk.frames:
            self._take(kind, payload, chunk.position + end)
        self.position += chunk.length
        if chunk.size is None:
            return True
        self._size = chunk.size
        # It ended there when it was read, which may be a while ago: the other cursor knows more.
        return self._reader.has(self.position)

    def _take(self, kind: int, payload: bytes, end: int) -> None:
        if kind == frames.DEFINITION:
            self._known[payload[: frames.ID]] = payload[frames.ID :]
        elif end > self.acknowledged:
            try:
                item = self._item(kind, payload, end)
            except Exception:  # what it needs is damaged
                self.unreadable += 1
            else:
                if item is not None:
                    self.pending.append(item)

    def _item(self, kind: int, payload: bytes, end: int) -> Item | None:
        part = self._select(kind, payload)
        if part is None:
            return None
        ids, content = part
        definitions, fill = self._together.get(ids) or self._look_up(ids)
        return definitions, content if fill is None else fill(content), end

    def _look_up(self, ids: bytes) -> tuple[tuple[bytes, ...], Fill | None]:
        each = [ids[at : at + frames.ID] for at in range(0, len(ids), frames.ID)]
        first, second, *template = [self._known[id] for id in each]
        fill = Template.of(*template).fill if template else None
        found = self._together[ids] = (first, second), fill
        return found


class Segment:
    """One segment of *place*, being read; *latest* is shared with the others."""

    def __init__(self, place: Place, name: str, latest: Latest) -> None:
        self.name = name
        self._place = place
        self._fd = place.open_to_read(name)
        done = place.acknowledged(name)
        reader = Reader(self._fd, name, latest)
        self.spans = Cursor(reader, frames.span_of, done.spans)
        self.measurements = Cursor(reader, frames.measurement_of, done.measurements)
        self._kept = done

    @property
    def undelivered(self) -> int:
        """Bytes that hold spans yet to be delivered, or have not been looked at."""
        return max(0, os.fstat(self._fd).st_size - self.spans.acknowledged)

    @property
    def written(self) -> float:
        """When it was last written to, in Unix time."""
        return os.fstat(self._fd).st_mtime

    def is_held(self) -> bool:
        """Say whether somebody may still write to it."""
        return self._place.is_held(self._fd)

    def keep(self) -> None:
        """Keep on disk how far the cursors are."""
        done = Acknowledged(self.spans.acknowledged, self.measurements.acknowledged)
        if done != self._kept:
            with contextlib.suppress(OSError):  # a full disk: the next time will do
                self._place.acknowledge(self.name, done)
                self._kept = done

    def remove_if_done(self) -> bool:
        """Remove it, if all is delivered and nobody can add to it."""
        done = min(self.spans.done, self.measurements.done)
        return bool(done) and self._place.remove(self.name, self._fd, done)

    def give_up(self) -> int:
        """Take the spans in it for delivered; return how many there were."""
        count = sum(1 for _ in self.spans.drain())
        self.spans.acknowledge_all()
        self.keep()
        return count

    def close(self) -> None:
        os.close(self._fd)
