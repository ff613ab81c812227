"""The application's side: what is to be kept is appended to a segment, in one write.

The processes of one *tree*, a process and those that it forks after it has set up, share a
sequence of segments: the kernel appends whole what each of them writes. So a fork needs no hook,
but for the lock and the little that waits in memory while the disk is full.
"""

import errno
import os
import secrets
import threading
import time
from collections.abc import Iterator, Sequence
from itertools import accumulate

from ..faults import RateLimit, logger
from . import frames
from .frames import Definition
from .place import Place, tree_of
from .segment import Cursor, Reader
from .watch import Watch

__all__ = ["Writer"]

#: The most bytes after which the next segment is begun.
LARGEST_SEGMENT = 4 * 1024 * 1024

#: Bytes kept in memory while the disk is full.
BACKLOG = 4 * 1024 * 1024

#: Entries that are one write. There are more than two only after the disk was full.
TOGETHER = 16

#: How many segments hold what is the latest: the newest may just have been begun.
LATEST = 2

#: Leaves room for ids in the largest frame.
LARGEST_CONTENT = frames.LARGEST - 64


#: A frame that is to be written: its kind, its content, and the definitions that it needs.
_Entry = tuple[int, bytes, tuple[Definition, ...]]


class Writer:
    """Appends to segments in *place*, each of *size* bytes and *age* seconds at most."""

    def __init__(self, place: Place, size: int, age: float) -> None:
        self._place = place
        self._size = min(size, LARGEST_SEGMENT)
        self._age = age
        self._tree = secrets.token_hex(8)
        self._number = 0
        self._lock = threading.RLock()
        self._writing = False
        self._backlog = _Backlog()
        self._watch = Watch(place)
        self._segment = self._open()
        os.register_at_fork(after_in_child=self._after_fork_in_child)

    def append(
        self, kind: int, content: bytes, *definitions: Definition, more: bool = False
    ) -> None:
        """Keep a frame of *kind*: the ids of *definitions*, then *content*.

        With *more* the caller appends another at once, and both are one write. What a full disk
        does not take waits in memory, within a bound. Raises ValueError for what is too large for
        any collector.
        """
        if len(content) > LARGEST_CONTENT:
            raise ValueError(f"{len(content)} bytes are more than a collector takes")
        with self._lock:
            self._backlog.add((kind, content, definitions))
            # What a finalizer, or a signal's handler, adds in the middle of this thread's own write
            # is left to that write.
            if more or self._writing:
                return
            self._write_backlog()
        self._watch.look()

    def flush(self, timeout: float) -> bool:
        """Have delivered what this tree wrote; say whether all of it is that, or kept on disk.

        Returns after *timeout* seconds, or as soon as the collector proves to be away.
        """
        until = time.monotonic() + timeout
        with self._lock:
            self._write_backlog()
            kept = not self._backlog.entries
        waiting = self._ends()
        failures = self._place.status().failures
        asked = False
        while waiting := {name: end for name, end in waiting.items() if self._waits(name, end)}:
            if time.monotonic() >= until or self._place.status().failures != failures:
                break
            self._watch.ensure_sender()
            asked = asked or self._place.wake()
            time.sleep(0.01)
        return kept

    def resume(self) -> None:
        """Have delivered what others left here and did not live to see delivered."""
        if any(self._place.size(name) for name in self._place.segments()):
            self._watch.ensure_sender()

    def kept(self) -> Iterator[bytes]:
        """Yield the latest spans of this tree, each a field of ``ScopeSpans``."""
        for name in self._own()[-LATEST:]:
            fd = self._place.open_to_read(name)
            try:
                for item in Cursor(Reader(fd, name), frames.SPAN, 2, 0).drain():
                    yield item.content
            finally:
                os.close(fd)

    def _own(self) -> list[str]:
        return sorted(name for name in self._place.segments() if tree_of(name) == self._tree)

    def _ends(self) -> dict[str, int]:
        return {name: self._place.size(name) for name in self._own()}

    def _waits(self, name: str, end: int) -> bool:
        return min(self._place.acknowledged(name)) < end <= self._place.size(name)

    def _write_backlog(self) -> None:
        self._writing = True
        try:
            while entries := self._backlog.entries[:TOGETHER]:
                self._write(entries)
        except OSError as exc:
            self._backlog.bound(exc)
        finally:
            self._writing = False

    def _write(self, entries: list[_Entry]) -> None:
        if not self._segment.usable():
            self._segment.close()
            self._number += 1
            self._place.make()
            self._segment = self._open()
        written = self._segment.write(entries)
        self._backlog.drop(written)
        if written < len(entries):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _open(self) -> "_Segment":
        name = f"{self._tree}.{self._number:06}"
        return _Segment(self._place.open_to_append(name), name, self._size, self._age)

    def _after_fork_in_child(self) -> None:
        self._lock = threading.RLock()
        self._writing = False
        self._backlog = _Backlog()  # what waits there is its parent's to write


class _Segment:
    """One that this process has open, and the definitions known to stand in it."""

    def __init__(self, fd: int, name: str, size: int, age: float) -> None:
        self._fd = fd
        self._seed = frames.seed(name)
        self._size = size
        self._until = time.monotonic() + age
        #: What an entry begins with, by its definitions, once these are written.
        self._ids: dict[tuple[Definition, ...], bytes] = {}
        found = os.fstat(fd)
        self._identity = found.st_dev, found.st_ino

    def usable(self) -> bool:
        """Say whether it is still there, with room and not too old.

        Asked before each write: a daemon that closes every descriptor may have the number reused.
        """
        found = self._stat()
        return (
            found is not None
            and found.st_nlink > 0
            and found.st_size < self._size
            and time.monotonic() < self._until
        )

    def _stat(self) -> os.stat_result | None:
        try:
            found = os.fstat(self._fd)
        except OSError:
            return None
        return found if (found.st_dev, found.st_ino) == self._identity else None

    def write(self, entries: Sequence[_Entry]) -> int:
        """Append *entries*, each with the definitions that it needs; return how many fitted.

        Raises OSError where none did.
        """
        parts: list[bytes] = []
        lasts: list[int] = []  # of each entry, its last part
        new: dict[tuple[Definition, ...], bytes] = {}
        for kind, content, definitions in entries:
            ids = self._ids.get(definitions)
            if ids is None:
                ids = new[definitions] = b"".join(each.id for each in definitions)
                parts += self._define(definitions)
            lasts.append(len(parts))
            parts.append(frames.pack(self._seed, kind, ids + content))
        data = b"".join(parts)
        written = os.write(self._fd, data)
        if written < len(data):
            ends = list(accumulate(map(len, parts)))
            return sum(ends[last] <= written for last in lasts)
        self._ids.update(new)
        return len(entries)

    def _define(self, definitions: tuple[Definition, ...]) -> list[bytes]:
        return [
            frames.pack(self._seed, frames.DEFINITION, each.id + each.content)
            for each in definitions
        ]

    def close(self) -> None:
        if self._stat() is not None:
            os.close(self._fd)


class _Backlog:
    """What is yet to be written, oldest first."""

    def __init__(self) -> None:
        self.entries: list[_Entry] = []
        self._bytes = 0
        self._lost = 0
        self._allow = RateLimit()

    def add(self, entry: _Entry) -> None:
        self.entries.append(entry)
        self._bytes += len(entry[1])

    def drop(self, count: int) -> None:
        """Forget the oldest *count*."""
        for _, content, _ in self.entries[:count]:
            self._bytes -= len(content)
        del self.entries[:count]

    def bound(self, exc: OSError) -> None:
        """Keep what there is room for, and say once a minute why it is here."""
        while self._bytes > BACKLOG:
            self.drop(1)
            self._lost += 1
        if self._allow("full"):
            logger.warning(
                "spans cannot be kept on disk (%s): %d wait in memory, %d are lost; "
                "the application is unharmed",
                exc.strerror or exc,
                len(self.entries),
                self._lost,
            )
