"""The sender's side of one segment: a cursor for each kind of frame, and how far they are."""

import contextlib
import os
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from . import frames
from .place import Acknowledged, Place

__all__ = ["Cursor", "Item", "Segment"]

#: Bytes read at a time.
CHUNK = 1024 * 1024

_ID = 8


class Item(NamedTuple):
    """One frame's *content*, the contents of its *definitions* and the offset behind it."""

    definitions: tuple[bytes, ...]
    content: bytes
    end: int


class Cursor:
    """Reads frames of *kind*, with so many *definitions* each, that end behind *acknowledged*."""

    def __init__(self, fd: int, name: str, kind: int, definitions: int, acknowledged: int) -> None:
        self.unreadable = 0
        self.acknowledged = acknowledged
        self.pending: deque[Item] = deque()
        self._fd = fd
        self._seed = frames.seed(name)
        self._kind = kind
        self._definitions = definitions
        self._known: dict[bytes, bytes] = {}
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
            self.acknowledged = self.pending.popleft().end
        if not self.pending:
            self.acknowledge_all()

    def acknowledge_all(self) -> None:
        """Take all that was read for delivered."""
        self.acknowledged = max(self.acknowledged, self.position)

    def _read(self) -> bool:
        size = CHUNK
        while True:
            data = os.pread(self._fd, size, self.position)
            at_end = len(data) < size
            end = 0
            for frame in frames.unpack(self._seed, data, at_end):
                end = frame.end
                self._take(frame, self.position + end)
            if end or at_end:
                break
            if size > frames.LARGEST:  # nothing but damage
                end = size - frames.HEADER
                break
            size = frames.LARGEST + CHUNK
        self.position += end
        if at_end:
            self._size = self.position - end + len(data)
        return not at_end

    def _take(self, frame: frames.Frame, end: int) -> None:
        if frame.kind == frames.DEFINITION:
            self._known[frame.payload[:_ID]] = frame.payload[_ID:]
        elif frame.kind == self._kind and end > self.acknowledged:
            begin = self._definitions * _ID
            ids = [frame.payload[at : at + _ID] for at in range(0, begin, _ID)]
            try:
                definitions = tuple(self._known[id] for id in ids)
            except KeyError:
                self.unreadable += 1
                return
            self.pending.append(Item(definitions, frame.payload[begin:], end))


class Segment:
    """One segment of *place*, being read."""

    def __init__(self, place: Place, name: str) -> None:
        self.name = name
        self._place = place
        self._fd = place.open_to_read(name)
        done = place.acknowledged(name)
        self.spans = Cursor(self._fd, name, frames.SPAN, 2, done.spans)
        self.measurements = Cursor(self._fd, name, frames.MEASUREMENT, 2, done.measurements)
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
