"""The directory of one destination, and its segments.

The directory belongs to this user alone and contains nothing else. If parents of it are missing,
they are made with the same mode. If one of the names that are used here is not a regular file, but
a FIFO, a directory or a link, opening it raises OSError and never waits.
"""

import contextlib
import errno
import fcntl
import os
import re
import stat
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from .private import open_private, opened, private_directory, read_private
from .sender_files import SenderFiles

_SEGMENT = ".spool"
_ACKNOWLEDGED = ".ack"
_OFFSETS = struct.Struct("<QQQ")

#: The name of the directory of a destination: see ``spool.disk_sink``.
_NAME = re.compile("[0-9a-f]{16}")


class Acknowledged(NamedTuple):
    """The offset up to which each signal of a segment is delivered or dropped."""

    spans: int = 0
    measurements: int = 0
    logs: int = 0


def tree_of(segment: str) -> str:
    """Return the tree of processes that writes *segment*, a name."""
    return segment.partition(".")[0]


class SpoolDirectory:
    """The directory of one destination."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.sender_files = SenderFiles(path)

    def make(self) -> None:
        """Make the directory. Raises OSError if this user cannot write in it."""
        # A parent that exists may belong to the system, such as /var/spool, and is left as it is.
        for parent in reversed(self.path.parents):
            if not parent.exists():
                parent.mkdir(mode=0o700, exist_ok=True)
        private_directory(self.path)
        if not os.access(self.path, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self.path))

    def is_ours(self) -> bool:
        """Return whether this is the directory of a destination, and of this user."""
        if not (_NAME.fullmatch(self.path.name) and self.sender_files.lock_file.is_file()):
            return False
        found = os.lstat(self.path)
        return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()

    def is_abandoned(self, since: float) -> bool:
        """Return whether nothing was written here after *since* (Unix time) and no sender runs."""
        if any(self.segment(name).stat().st_mtime >= since for name in self.segments()):
            return False
        if self.path.stat().st_mtime >= since:
            return False
        return not self.sender_files.is_running()

    def segment(self, name: str) -> Path:
        """Return the path of the segment *name*."""
        return self.path / (name + _SEGMENT)

    def segments(self) -> list[str]:
        """Return the names of the segments, the least recently written first."""
        return self.scan()[0]

    def others(self) -> Iterator["SpoolDirectory"]:
        """Yield the other directories of this user's destinations.

        The parent may contain directories of others: /var/spool has cron's.
        """
        try:
            paths = list(self.path.parent.iterdir())
        except OSError:  # the user may enter it, and not list it
            return
        for path in paths:
            other = SpoolDirectory(path)
            with contextlib.suppress(OSError):
                if path != self.path and other.is_ours():
                    yield other

    def scan(self) -> tuple[list[str], list[str]]:
        """Return ``segments()``, and the names of those that are not regular files."""
        found: list[tuple[int, str]] = []
        others: list[str] = []
        with contextlib.suppress(FileNotFoundError), os.scandir(self.path) as entries:
            for entry in entries:
                if not entry.name.endswith(_SEGMENT):
                    continue
                name = entry.name.removesuffix(_SEGMENT)
                with contextlib.suppress(FileNotFoundError):
                    status = entry.stat(follow_symlinks=False)
                    if stat.S_ISREG(status.st_mode):
                        found.append((status.st_mtime_ns, name))
                    else:
                        others.append(name)
        return [name for _, name in sorted(found)], others

    def open_to_append(self, name: str) -> int:
        """Open the segment *name*, and hold it: it is not removed until the descriptor is closed.

        A forked child shares the hold.
        """
        while True:
            fd = open_private(self.segment(name), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            fcntl.flock(fd, fcntl.LOCK_SH)
            if os.fstat(fd).st_nlink:
                return fd
            # The sender has removed it between the two calls.
            os.close(fd)

    def size(self, name: str) -> int:
        """Return the bytes of the segment *name*, 0 if it is gone."""
        try:
            return os.lstat(self.segment(name)).st_size
        except OSError:
            return 0

    def open_to_read(self, name: str) -> int:
        """Open the segment *name*. Raises OSError if it is not a file that this user can read."""
        return open_private(self.segment(name), os.O_RDONLY)

    def fd_has_writer(self, fd: int) -> bool:
        """Return whether a process may still write to the segment open as *fd*."""
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
        fcntl.flock(fd, fcntl.LOCK_UN)
        return False

    def has_writer(self, name: str) -> bool:
        """Return whether a process may still write to the segment *name*."""
        try:
            with opened(self.segment(name), os.O_RDONLY) as fd:
                return self.fd_has_writer(fd)
        except OSError:
            return False

    def remove(self, name: str, fd: int, seen: int) -> bool:
        """Remove the segment *name*, open as *fd*, unless it is held or longer than *seen*."""
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        removed = False
        if os.fstat(fd).st_size <= seen:
            with contextlib.suppress(OSError):  # a directory that became read-only
                self.segment(name).unlink(missing_ok=True)
                removed = True
            with contextlib.suppress(OSError):
                self._acknowledged(name).unlink(missing_ok=True)
        fcntl.flock(fd, fcntl.LOCK_UN)
        return removed

    def bound(self, most: int) -> int:
        """Remove the oldest segments that no process writes to, until *most* bytes are left.

        Returns the number of bytes removed.
        """
        sizes = {name: self.size(name) for name in self.segments()}
        excess = before = sum(sizes.values()) - most
        for name, size in sizes.items():
            if excess <= 0:
                break
            with contextlib.suppress(OSError), opened(self.segment(name), os.O_RDONLY) as fd:
                excess -= size if self.remove(name, fd, size) else 0
        return before - excess

    def acknowledged(self, name: str) -> Acknowledged:
        """Return how much of the segment *name* is delivered or dropped."""
        try:
            data = read_private(self._acknowledged(name))
            # Older formats have two offsets.
            return Acknowledged(*(offset for (offset,) in struct.iter_unpack("<Q", data)))
        except (OSError, struct.error, TypeError):
            return Acknowledged()

    def acknowledge(self, name: str, offsets: Acknowledged) -> None:
        """Write that the segment *name* is delivered or dropped up to *offsets*."""
        with opened(self._acknowledged(name), os.O_WRONLY | os.O_CREAT) as fd:
            os.pwrite(fd, _OFFSETS.pack(*offsets), 0)

    def _acknowledged(self, name: str) -> Path:
        return self.path / (name + _ACKNOWLEDGED)
