"""Append frames to a segment, each in one write.

A process, and those that it forks after it has set up, are a *tree*. They share a sequence of
segments, and the kernel appends each write as a whole. So a fork needs a hook only for the lock,
and for the frames that wait in memory while the disk is full.
"""

import errno
import fcntl
import os
import secrets
import threading
import time
from collections import deque

from ...config.settings import Spool
from ...tracing.faults import RateLimit, logger
from .directory import SpoolDirectory, tree_of
from .frames import LARGEST, Definition, frame, seed
from .watch import Watch

#: A segment has this part of the bytes that may wait, and of the seconds.
PART = 8

#: A segment has no more bytes than this.
LARGEST_SEGMENT = 4 * 1024 * 1024

#: Seconds between two checks of the open segment. If somebody removes it, what this process writes
#: until the next check is lost with it.
CHECK = 1.0

#: The least number of a descriptor. A daemon may close all descriptors and use their numbers again.
#: A write to a high number then fails, and does not go into another file.
HIGH = 256

#: The bytes of frames that may wait in memory while the disk is full.
LARGEST_WAITING = 4 * 1024 * 1024


class Writer:
    """Appends to segments in *directory*. Beyond the bounds of *spool*, it removes the oldest."""

    def __init__(self, directory: SpoolDirectory, watch: Watch, spool: Spool) -> None:
        self._directory = directory
        self._size = min(spool.max_bytes // PART, LARGEST_SEGMENT)
        self._age = spool.max_age / PART
        self._most = 2 * spool.max_bytes  # a sender, if there is one, allows half of this
        self._tree = secrets.token_hex(8)
        self._number = 0
        self._watch = watch
        self._may_log = RateLimit()
        self._begin()
        self._segment = self._open()
        os.register_at_fork(after_in_child=self._after_fork_in_child)

    def _begin(self) -> None:
        """Begin with nothing that waits, in a new process."""
        self._lock = threading.RLock()
        self._writing = False
        #: The frames that are not written yet, oldest first: definitions and payloads.
        self._waiting: deque[tuple[Definition, bytes]] = deque()
        self._bytes = 0  # of those payloads
        self._lost = self._logged = 0
        #: Why they wait, empty while the disk takes them.
        self._reason = ""

    def append(self, kind: bytes, definition: Definition, content: bytes) -> None:
        """Append a frame with *content*, and its *definition* if the segment lacks it.

        While the disk is full, frames wait in memory, within a bound. Raises ValueError if no
        collector accepts so large a content.
        """
        payload = kind + definition.id + content
        if len(payload) > LARGEST:
            raise ValueError(f"a collector does not accept {len(payload)} bytes")
        now = time.monotonic()
        with self._lock:
            # A finalizer or a signal handler may run in the middle of this thread's own write. That
            # write then appends this frame too.
            self._waiting.append((definition, payload))
            self._bytes += len(payload)
            self._write_waiting(now)
        if now >= self._watch.due:
            self._watch.look()

    def flush(self, timeout: float) -> bool:
        """Ask for the delivery of what this tree has written. Return whether it is all on disk.

        Waits until it is delivered, an export fails, or *timeout* seconds are over.
        """
        until = time.monotonic() + timeout
        with self._lock:
            self._segment.due = 0.0  # somebody may have removed it
            self._write_waiting(time.monotonic())
            on_disk = not self._waiting
        ends = self._ends()
        files = self._directory.sender_files
        failures = files.status().failures
        asked = False
        while any(self._is_undelivered(name, end) for name, end in ends.items()):
            if time.monotonic() >= until or files.status().failures != failures:
                break
            self._watch.ensure_sender()
            asked = asked or files.wake()
            time.sleep(0.01)
        return on_disk

    def finish(self) -> None:
        """Write the frames that wait. Log how many are lost because this process ends."""
        with self._lock:
            self._segment.due = 0.0
            self._write_waiting(time.monotonic())
        lost = len(self._waiting) + self._lost
        if self._reason and lost != self._logged:  # it runs at a shutdown and at the exit
            self._logged = lost
            logger.warning(
                "spans cannot be written to disk (%s): %d lost with this process",
                self._reason,
                lost,
            )

    @property
    def error(self) -> str:
        """Why frames wait in memory, empty if none does."""
        return f"spans cannot be written to disk: {self._reason}" if self._reason else ""

    def has_undelivered(self) -> bool:
        """Return whether a record of this tree is not delivered yet."""
        return any(self._is_undelivered(name, end) for name, end in self._ends().items())

    def segments(self) -> list[str]:
        """Return the names of the segments of this tree, the oldest first."""
        names = self._directory.segments()
        return sorted(name for name in names if tree_of(name) == self._tree)

    def _ends(self) -> dict[str, int]:
        return {name: self._directory.size(name) for name in self.segments()}

    def _is_undelivered(self, name: str, end: int) -> bool:
        return min(self._directory.acknowledged(name)) < end <= self._directory.size(name)

    def _write_waiting(self, now: float) -> None:
        """Write the frames that wait, unless this is in the middle of this thread's own write."""
        if self._writing:
            return
        waiting = self._waiting
        self._writing = True
        try:
            while waiting:
                definition, payload = waiting[0]
                try:
                    self._write(now, definition, payload)
                except OSError as exc:
                    self._segment.due = 0.0
                    if exc.errno == errno.EBADF:  # a daemon has closed the descriptor
                        continue
                    self._bound_waiting(exc)
                    return
                waiting.popleft()
                self._bytes -= len(payload)
            self._reason = ""
        finally:
            self._writing = False

    def _bound_waiting(self, exc: OSError) -> None:
        """Drop the oldest frames beyond the bound. Log *exc*, the reason, once a minute."""
        self._reason = exc.strerror or str(exc)
        while self._bytes > LARGEST_WAITING:
            self._bytes -= len(self._waiting.popleft()[1])
            self._lost += 1
        if self._may_log("full"):
            logger.warning(
                "spans cannot be written to disk (%s): %d in memory, %d lost; "
                "the application is unharmed",
                self._reason,
                len(self._waiting),
                self._lost,
            )

    def _write(self, now: float, definition: Definition, payload: bytes) -> None:
        """Write a frame, in a new segment if the last is full, too old or gone."""
        if now >= self._segment.due and not self._segment.check(now):
            self._segment.close()
            self._number += 1
            self._directory.make()
            self._segment = self._open()
            self._bound()
        self._segment.write(definition, payload)

    def _bound(self) -> None:
        """Remove the oldest segments, if no sender does."""
        removed = self._directory.bound(self._most)
        if removed and self._directory.sender_files.may_log("bound"):
            logger.warning(
                "dropped %d bytes of undelivered spans in %s: size limit reached",
                removed,
                self._directory.path,
            )

    def _open(self) -> "_Segment":
        name = f"{self._tree}.{self._number:06}"
        return _Segment(_high(self._directory.open_to_append(name)), name, self._size, self._age)

    def _after_fork_in_child(self) -> None:
        self._begin()  # the parent writes the frames that wait
        self._segment.due = 0.0  # a daemon closes descriptors after a fork


class _Segment:
    """A segment that this process has open, and the definitions that this process has written."""

    def __init__(self, fd: int, name: str, size: int, age: float) -> None:
        self._fd = fd
        self._seed = seed(name)
        self._size = size
        self._until = time.monotonic() + age
        self._defined: set[bytes] = set()
        self._opened = os.fstat(fd)
        self._room = 0
        #: Check it again at this time of the monotonic clock.
        self.due = 0.0

    def check(self, now: float) -> bool:
        """Return whether it is still there, has room and is not too old."""
        found = self._stat()
        if found is None or not found.st_nlink or now >= self._until:
            return False
        self._room = self._size - found.st_size
        if self._room > 0:
            self.due = now + CHECK
        return self._room > 0

    def _stat(self) -> os.stat_result | None:
        """Return its status. None if the descriptor is closed or that of another file."""
        try:
            found = os.fstat(self._fd)
        except OSError:
            return None
        return found if os.path.samestat(found, self._opened) else None

    def write(self, definition: Definition, payload: bytes) -> None:
        """Append a frame, after its definition if that is missing. Raises OSError."""
        if definition.id not in self._defined:
            self._append(definition.payload)
            self._defined.add(definition.id)
        self._append(payload)

    def _append(self, payload: bytes) -> None:
        data = frame(self._seed, payload)
        written = os.write(self._fd, data)
        if written < len(data):
            # The kernel wrote a part. The next call writes the rest, or raises the reason.
            written += os.write(self._fd, data[written:])
            if written < len(data):
                raise OSError(errno.EIO, f"{written} of {len(data)} bytes were written")
        self._room -= written
        if self._room <= 0:
            self.due = 0.0

    def close(self) -> None:
        if self._stat() is not None:
            os.close(self._fd)


def _high(fd: int) -> int:
    """Return *fd* with a high number, if the system allows it."""
    try:
        high = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, HIGH)
    except OSError:
        return fd
    os.close(fd)
    return high
