"""Where the segments of one destination are, and what else stands beside them.

Everything is private to the user: directories 0700, files 0600, no link is followed.
"""

import contextlib
import errno
import fcntl
import json
import os
import re
import select
import stat
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

__all__ = ["Acknowledged", "Place", "Status", "private_directory", "tree_of"]

_SEGMENT = ".spool"
_ACKNOWLEDGED = ".ack"
_OFFSETS = struct.Struct("<QQ")

#: How the directory of a destination is called: see ``spool.export``.
_NAME = re.compile("[0-9a-f]{16}")

#: Seconds between two lines in the log about one thing.
TOLD_EVERY = 60.0

_FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW


class Acknowledged(NamedTuple):
    """Up to which offset of a segment its spans and its measurements are delivered or dropped."""

    spans: int = 0
    measurements: int = 0


class Status(NamedTuple):
    """What the sender says of itself.

    How many deliveries have failed so far, and the error while they do; how many spans were
    dropped so far, and why the last of them.
    """

    failures: int = 0
    error: str = ""
    dropped: int = 0
    reason: str = ""


def tree_of(segment: str) -> str:
    """Return which tree of processes writes the *segment* of that name."""
    return segment.partition(".")[0]


def private_directory(path: Path) -> Path:
    """Make *path* and return it; raise OSError unless it is a directory of this user alone."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise PermissionError(f"{path} is not a directory of this user")
    if found.st_mode & 0o077:
        path.chmod(0o700)
    return path


class Place:
    """The directory of one destination."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._lock = directory / "sender.lock"
        self._wake = directory / "wake"
        self._status = directory / "status.json"

    def make(self) -> None:
        """Make the directory; raise OSError where it cannot be written in."""
        # What is there already may be another's, /var/spool for one, and is left as it is.
        self.directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        private_directory(self.directory)
        if not os.access(self.directory, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self.directory))

    def is_abandoned(self, since: float) -> bool:
        """Say whether nothing here was written after *since*, in Unix time, and no sender runs.

        False for what is no place of this user's: in /var/spool there is cron.
        """
        if not (_NAME.fullmatch(self.directory.name) and self._lock.is_file()):
            return False
        if os.lstat(self.directory).st_uid != os.geteuid():
            return False
        if any(self.segment(name).stat().st_mtime >= since for name in self.segments()):
            return False
        if self.directory.stat().st_mtime >= since:
            return False
        return not self.has_sender()

    def segment(self, name: str) -> Path:
        return self.directory / (name + _SEGMENT)

    def segments(self) -> list[str]:
        """Return the names of the segments, the longest unwritten first."""
        found = []
        with contextlib.suppress(FileNotFoundError), os.scandir(self.directory) as entries:
            for entry in entries:
                if entry.name.endswith(_SEGMENT):
                    with contextlib.suppress(FileNotFoundError):
                        written = entry.stat(follow_symlinks=False).st_mtime_ns
                        found.append((written, entry.name.removesuffix(_SEGMENT)))
        return [name for _, name in sorted(found)]

    def open_to_append(self, name: str) -> int:
        """Open the segment *name*, and hold it: it is not removed until the descriptor is closed.

        A forked child shares the hold.
        """
        while True:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | _FLAGS
            fd = os.open(self.segment(name), flags, 0o600)
            fcntl.flock(fd, fcntl.LOCK_SH)
            if os.fstat(fd).st_nlink:
                return fd
            # The sender removed it between the two.
            os.close(fd)

    def size(self, name: str) -> int:
        """Return the bytes of the segment *name*, 0 if it is gone."""
        try:
            return self.segment(name).stat().st_size
        except OSError:
            return 0

    def open_to_read(self, name: str) -> int:
        return os.open(self.segment(name), os.O_RDONLY | _FLAGS)

    def is_held(self, fd: int) -> bool:
        """Say whether somebody may still write to the segment open as *fd*."""
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
        fcntl.flock(fd, fcntl.LOCK_UN)
        return False

    def is_written(self, name: str) -> bool:
        """Say whether somebody may still write to the segment *name*."""
        try:
            fd = self.open_to_read(name)
        except OSError:
            return False
        try:
            return self.is_held(fd)
        finally:
            os.close(fd)

    def remove(self, name: str, fd: int, seen: int) -> bool:
        """Remove the segment *name*, open as *fd*, unless it is held or goes on behind *seen*."""
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        removed = os.fstat(fd).st_size <= seen
        if removed:
            self.segment(name).unlink(missing_ok=True)
            (self.directory / (name + _ACKNOWLEDGED)).unlink(missing_ok=True)
        fcntl.flock(fd, fcntl.LOCK_UN)
        return removed

    def bound(self, most: int) -> int:
        """Remove the oldest segments that nobody writes to while all are more than *most* bytes.

        Returns how many bytes went.
        """
        sizes = {name: self.size(name) for name in self.segments()}
        excess = before = sum(sizes.values()) - most
        for name, size in sizes.items():
            if excess <= 0:
                break
            with contextlib.suppress(OSError):
                fd = self.open_to_read(name)
                try:
                    excess -= size if self.remove(name, fd, size) else 0
                finally:
                    os.close(fd)
        return before - excess

    def acknowledged(self, name: str) -> Acknowledged:
        """Return how far the segment *name* is delivered."""
        try:
            data = (self.directory / (name + _ACKNOWLEDGED)).read_bytes()
            return Acknowledged(*_OFFSETS.unpack(data))
        except (OSError, struct.error):
            return Acknowledged()

    def acknowledge(self, name: str, offsets: Acknowledged) -> None:
        """Keep that the segment *name* is delivered as far as *offsets*."""
        flags = os.O_WRONLY | os.O_CREAT | _FLAGS
        fd = os.open(self.directory / (name + _ACKNOWLEDGED), flags, 0o600)
        try:
            os.pwrite(fd, _OFFSETS.pack(*offsets), 0)
        finally:
            os.close(fd)

    # The sender

    def claim(self) -> int | None:
        """Take the right to be the sender; None where somebody has it.

        It is had as long as the descriptor, or a copy of it in another process, is open.
        """
        fd = os.open(self._lock, os.O_RDWR | os.O_CREAT | _FLAGS, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            return None
        return fd

    def has_sender(self) -> bool:
        """Say whether somebody has the claim."""
        claim = self.claim()
        if claim is not None:
            os.close(claim)
        return claim is None

    def claimed_by(self, fd: int) -> bool:
        """Say whether *fd* is still the claim that others see."""
        try:
            return os.path.samestat(os.fstat(fd), os.lstat(self._lock))
        except OSError:
            return False

    def may_tell(self, what: str) -> bool:
        """Say whether a minute has passed since any process was told so about *what*."""
        marker = self.directory / f"told.{what}"
        with contextlib.suppress(OSError):
            if 0 <= time.time() - marker.stat().st_mtime < TOLD_EVERY:
                return False
        with contextlib.suppress(OSError):
            os.close(os.open(marker, os.O_WRONLY | os.O_CREAT | _FLAGS, 0o600))
            os.utime(marker)
        return True

    @contextlib.contextmanager
    def woken(self) -> Iterator["Wake"]:
        """Listen for those who call ``wake``."""
        with contextlib.suppress(FileExistsError):
            os.mkfifo(self._wake, 0o600)
        # Open for writing too: a FIFO without a writer is always ready to be read.
        fd = os.open(self._wake, os.O_RDWR | os.O_NONBLOCK | _FLAGS)
        try:
            yield Wake(fd)
        finally:
            os.close(fd)

    def wake(self) -> bool:
        """Ask the sender to deliver at once; say whether there is one that listens."""
        try:
            fd = os.open(self._wake, os.O_WRONLY | os.O_NONBLOCK | _FLAGS)
        except OSError:
            return False
        with contextlib.suppress(BlockingIOError):  # full of what others have asked
            os.write(fd, b"!")
        os.close(fd)
        return True

    def status(self) -> Status:
        """Return what the sender said last."""
        try:
            said = json.loads(self._status.read_bytes())
            return Status(
                int(said["failures"]), str(said["error"]), int(said["dropped"]), str(said["reason"])
            )
        except (OSError, ValueError, KeyError, TypeError):
            return Status()

    def say(self, status: Status) -> None:
        """Keep what the sender says."""
        fresh = self._status.with_suffix(".new")
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _FLAGS, 0o600)
        try:
            os.write(fd, json.dumps(status._asdict()).encode())
        finally:
            os.close(fd)
        fresh.replace(self._status)


class Wake:
    """The sender's end of ``Place.wake``."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def wait(self, seconds: float) -> bool:
        """Wait to be woken, *seconds* at most; say whether it was so."""
        ready, _, _ = select.select([self._fd], [], [], max(0.0, seconds))
        with contextlib.suppress(BlockingIOError):
            while ready and os.read(self._fd, 4096):
                pass
        return bool(ready)
