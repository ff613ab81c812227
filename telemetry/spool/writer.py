"""The application's side: what is to be kept is appended to a segment, in one write.

The processes of one *tree*, a process and those that it forks after it has set up, share a
sequence of segments: the kernel appends whole what each of them writes. So a fork needs no hook,
but for the lock and the little that waits in memory while the disk is full.
"""

import errno
import fcntl
import os
import secrets
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator

from ..faults import RateLimit, logger
from . import frames
from .append import append
from .frames import Head
from .place import Place, tree_of
from .segment import Cursor, Reader
from .watch import Watch

__all__ = ["Writer"]

#: The most bytes after which the next segment is begun.
LARGEST_SEGMENT = 4 * 1024 * 1024

#: Seconds for which a segment is written to without a look at it.
CHECK = 0.1

#: The least number of a descriptor: where others are closed, and their numbers used again, no write
#: meant for a segment goes elsewhere, but fails.
HIGH = 256

#: Bytes kept in memory while the disk is full.
BACKLOG = 4 * 1024 * 1024

#: How many segments hold what is the latest: the newest may just have been begun.
LATEST = 2

#: Leaves room for ids in the largest frame.
LARGEST_CONTENT = frames.LARGEST - 64


#: A frame that is to be written: what it begins with, and its content.
_Entry = tuple[Head, bytes]


class Writer:
    """Appends to segments in *place*, each of *size* bytes and *age* seconds at most.

    Beyond *most* bytes of all segments the oldest are removed.
    """

    def __init__(self, place: Place, size: int, age: float, most: int = sys.maxsize) -> None:
        self._place = place
        self._size = min(size, LARGEST_SEGMENT)
        self._age = age
        self._most = most
        self._tree = secrets.token_hex(8)
        self._number = 0
        self._lock = threading.RLock()
        self._writing = False
        self._backlog = _Backlog()
        self._watch = Watch(place)
        self._segment = self._open()
        os.register_at_fork(after_in_child=self._after_fork_in_child)

    def append(self, head: Head, content: bytes) -> None:
        """Keep a frame that begins with *head*, and its *content*.

        What a full disk does not take waits in memory, within a bound. Raises ValueError for what
        is too large for any collector.
        """
        if len(content) > LARGEST_CONTENT:
            raise ValueError(f"{len(content)} bytes are more than a collector takes")
        with self._lock:
            self._backlog.add((head, content))
            # What a finalizer, or a signal's handler, adds in the middle of this thread's own write
            # is left to that write.
            if self._writing:
                return
            now = time.monotonic()
            self._write_backlog(now)
        if now >= self._watch.due:
            self._watch.look()

    def flush(self, timeout: float) -> bool:
        """Have delivered what this tree wrote; say whether all of it is that, or kept on disk.

        Returns after *timeout* seconds, or as soon as the collector proves to be away.
        """
        until = time.monotonic() + timeout
        with self._lock:
            if not self._writing:  # else this is a signal's handler, in the middle of a write
                self._write_backlog(time.monotonic())
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

    def waits(self) -> bool:
        """Say whether something that this tree wrote is yet to be delivered."""
        return any(self._waits(name, end) for name, end in self._ends().items())

    def resume(self) -> None:
        """Have delivered what others left here and did not live to see delivered."""
        if any(self._place.size(name) for name in self._place.segments()):
            self._watch.ensure_sender()

    def kept(self) -> Iterator[bytes]:
        """Yield the latest spans of this tree, each a ``Span``."""
        for name in self._own()[-LATEST:]:
            fd = self._place.open_to_read(name)
            try:
                for item in Cursor(Reader(fd, name), frames.span_of, 0).drain():
                    yield item[1]
            finally:
                os.close(fd)

    def _own(self) -> list[str]:
        return sorted(name for name in self._place.segments() if tree_of(name) == self._tree)

    def _ends(self) -> dict[str, int]:
        return {name: self._place.size(name) for name in self._own()}

    def _waits(self, name: str, end: int) -> bool:
        return min(self._place.acknowledged(name)) < end <= self._place.size(name)

    def _write_backlog(self, now: float) -> None:
        backlog = self._backlog
        self._writing = True
        try:
            while backlog.entries:
                segment = self._segment
                if (now >= segment.due or segment.room <= 0) and not segment.look(now):
                    segment = self._begin_segment()
                segment.write(*backlog.entries[0])
                backlog.drop()
        except OSError as exc:
            self._segment.due = 0.0
            if exc.errno != errno.EBADF:
                backlog.bound(exc)
                return
        finally:
            self._writing = False
        if backlog.entries:  # a daemon has closed the descriptor
            self._write_backlog(now)

    def _begin_segment(self) -> "_Segment":
        self._segment.close()
        self._number += 1
        self._place.make()
        self._segment = self._open()
        self._bound()
        return self._segment

    def _bound(self) -> None:
        """Remove the oldest where nobody else does: a sender would long ago have done so."""
        removed = self._place.bound(self._most)
        if removed and self._place.may_tell("bound"):
            logger.warning(
                "%d bytes of spans were dropped, which nobody has delivered from %s",
                removed,
                self._place.directory,
            )

    def _open(self) -> "_Segment":
        name = f"{self._tree}.{self._number:06}"
        return _Segment(_high(self._place.open_to_append(name)), name, self._size, self._age)

    def _after_fork_in_child(self) -> None:
        self._lock = threading.RLock()
        self._writing = False
        self._segment.due = 0.0  # a daemon closes descriptors once it has forked
        self._backlog = _Backlog()  # what waits there is its parent's to write


class _Segment:
    """One that this process has open, and the heads whose definitions are known to stand in it."""

    def __init__(self, fd: int, name: str, size: int, age: float) -> None:
        self._fd = fd
        self._seed = frames.seed(name)
        self._size = size
        self._until = time.monotonic() + age
        #: With what their checksums begin.
        self._begun: dict[Head, int] = {}
        found = os.fstat(fd)
        self._identity = found.st_dev, found.st_ino
        #: When to look at it again: a time of the monotonic clock, and after so many bytes.
        self.due = 0.0
        self.room = 0

    def look(self, now: float) -> bool:
        """Say whether it is still there, with room and not too old.

        A daemon closes every descriptor, and the number may be another's then.
        """
        found = self._stat()
        if found is None or not found.st_nlink or now >= self._until:
            return False
        self.due = now + CHECK
        self.room = self._size - found.st_size
        return self.room > 0

    def _stat(self) -> os.stat_result | None:
        try:
            found = os.fstat(self._fd)
        except OSError:
            return None
        return found if (found.st_dev, found.st_ino) == self._identity else None

    def write(self, head: Head, content: bytes) -> None:
        """Append a frame, with the definitions that it needs. Raises OSError where it cannot."""
        known = self._begun.get(head)
        begun = frames.begin(self._seed, head) if known is None else known
        data = frames.frame(begun, head, content)
        if known is None:
            data = self._define(head) + data
        self.room -= len(data)
        append(self._fd, data)
        self._begun[head] = begun

    def _define(self, head: Head) -> bytes:
        return b"".join(
            [
                frames.pack(self._seed, frames.DEFINITION, each.id + each.content)
                for each in head.definitions
            ]
        )

    def close(self) -> None:
        if self._stat() is not None:
            os.close(self._fd)


def _high(fd: int) -> int:
    """Return *fd* under a high number, where there may be one."""
    try:
        high = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, HIGH)
    except OSError:
        return fd
    os.close(fd)
    return high


class _Backlog:
    """What is yet to be written, oldest first."""

    def __init__(self) -> None:
        self.entries: deque[_Entry] = deque()
        self._bytes = 0
        self._lost = 0
        self._allow = RateLimit()

    def add(self, entry: _Entry) -> None:
        self.entries.append(entry)
        self._bytes += len(entry[1])

    def drop(self) -> None:
        """Forget the oldest."""
        self._bytes -= len(self.entries.popleft()[1])

    def bound(self, exc: OSError) -> None:
        """Keep what there is room for, and say once a minute why it is here."""
        while self._bytes > BACKLOG:
            self.drop()
            self._lost += 1
        if self._allow("full"):
            logger.warning(
                "spans cannot be kept on disk (%s): %d wait in memory, %d are lost; "
                "the application is unharmed",
                exc.strerror or exc,
                len(self.entries),
                self._lost,
            )
