"""The directory of one destination: its segments, and the files by which processes find the sender.

The directory is this user's, with mode 0700, and no link; it is not used otherwise. Directories
that are missing above it are made with the same mode. Its files have mode 0600, and no link is
followed. Whatever else has the name of one of the files (a FIFO, a directory, a link) is an OSError
and not waited for.
"""

import contextlib
import errno
import fcntl
import os
import re
import select
import stat
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

__all__ = ["Acknowledged", "SenderStatus", "SpoolDirectory", "private_directory", "tree_of"]

_SEGMENT = ".spool"
_ACKNOWLEDGED = ".ack"
_OFFSETS = struct.Struct("<QQQ")

#: The name of the directory of a destination: see ``spool.sink``.
_NAME = re.compile("[0-9a-f]{16}")

#: Seconds between two log lines, of any process, about one thing.
LOG_INTERVAL = 60.0

_FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW

#: No file but a segment is longer.
_MOST = 64 * 1024


class Acknowledged(NamedTuple):
    """Up to which offset of a segment its spans, measurements and logs are delivered or dropped."""

    spans: int = 0
    measurements: int = 0
    logs: int = 0


class SenderStatus(NamedTuple):
    """What the sender reports about itself.

    The number of failed exports so far, and the error while they fail; the number of dropped spans
    so far, and the reason for the last of them; what in the directory is no file that it can read;
    what the collector says about metrics that it does not take; of log records the error, the
    number of dropped ones and the reason.
    """

    failures: int = 0
    error: str = ""
    dropped: int = 0
    reason: str = ""
    passed_over: str = ""
    metrics_error: str = ""
    log_error: str = ""
    dropped_logs: int = 0
    log_reason: str = ""


def tree_of(segment: str) -> str:
    """Return the tree of processes that writes the *segment* of that name."""
    return segment.partition(".")[0]


def private_directory(path: Path) -> Path:
    """Make *path*, private to this user, and return it. Raise OSError where it cannot be."""
    path.mkdir(mode=0o700, exist_ok=True)
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise PermissionError(f"{path} is not a directory of this user")
    if found.st_mode & 0o077:
        path.chmod(0o700)
    return path


class SpoolDirectory:
    """The directory of one destination."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.sender_lock = directory / "sender.lock"
        self._wake = directory / "wake"
        self._status = directory / "status.json"
        self._sender_stderr = directory / "sender.stderr"

    def make(self) -> None:
        """Make the directory. Raise OSError where this user cannot write in it."""
        # What is there already may be another's, /var/spool for one, and is left as it is.
        for parent in reversed(self.directory.parents):
            if not parent.exists():
                parent.mkdir(mode=0o700, exist_ok=True)
        private_directory(self.directory)
        if not os.access(self.directory, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self.directory))

    def is_ours(self) -> bool:
        """Return whether this is the directory of a destination, and of this user."""
        if not (_NAME.fullmatch(self.directory.name) and self.sender_lock.is_file()):
            return False
        found = os.lstat(self.directory)
        return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()

    def is_abandoned(self, since: float) -> bool:
        """Return whether nothing was written here after *since* (Unix time) and no sender runs."""
        if any(self.segment(name).stat().st_mtime >= since for name in self.segments()):
            return False
        if self.directory.stat().st_mtime >= since:
            return False
        return not self.has_sender()

    def segment(self, name: str) -> Path:
        return self.directory / (name + _SEGMENT)

    def segments(self) -> list[str]:
        """Return the names of the segments, the least recently written first."""
        return self.scan()[0]

    def others(self) -> list["SpoolDirectory"]:
        """Return the other directories of destinations beside this one, and of this user.

        There may be more that is not ours: /var/spool holds that of cron.
        """
        try:
            paths = list(self.directory.parent.iterdir())
        except OSError:  # /var/spool, where it may be entered and not listed
            return []
        found = []
        for path in paths:
            other = SpoolDirectory(path)
            with contextlib.suppress(OSError):
                if path != self.directory and other.is_ours():
                    found.append(other)
        return found

    def scan(self) -> tuple[list[str], list[str]]:
        """Return ``segments()``, and the names of what is named like a segment and is no file."""
        found: list[tuple[int, str]] = []
        others: list[str] = []
        with contextlib.suppress(FileNotFoundError), os.scandir(self.directory) as entries:
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
            fd = _open(self.segment(name), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            fcntl.flock(fd, fcntl.LOCK_SH)
            if os.fstat(fd).st_nlink:
                return fd
            # The sender removed it between the two.
            os.close(fd)

    def size(self, name: str) -> int:
        """Return the bytes of the segment *name*, 0 if it is gone."""
        try:
            return os.lstat(self.segment(name)).st_size
        except OSError:
            return 0

    def open_to_read(self, name: str) -> int:
        """Open the segment *name*. Raise OSError where that is no file that this user can read."""
        return _open(self.segment(name), os.O_RDONLY)

    def is_held(self, fd: int) -> bool:
        """Return whether a process may still write to the segment open as *fd*."""
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
        fcntl.flock(fd, fcntl.LOCK_UN)
        return False

    def is_written(self, name: str) -> bool:
        """Return whether a process may still write to the segment *name*."""
        try:
            fd = self.open_to_read(name)
        except OSError:
            return False
        try:
            return self.is_held(fd)
        finally:
            os.close(fd)

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
                (self.directory / (name + _ACKNOWLEDGED)).unlink(missing_ok=True)
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
            data = _read(self.directory / (name + _ACKNOWLEDGED))
            offsets = [offset for (offset,) in struct.iter_unpack("<Q", data)]
            return Acknowledged(*offsets)  # of two in older formats
        except (OSError, struct.error, TypeError):
            return Acknowledged()

    def acknowledge(self, name: str, offsets: Acknowledged) -> None:
        """Write down that the segment *name* is delivered as far as *offsets*."""
        fd = _open(self.directory / (name + _ACKNOWLEDGED), os.O_WRONLY | os.O_CREAT)
        try:
            os.pwrite(fd, _OFFSETS.pack(*offsets), 0)
        finally:
            os.close(fd)

    # The sender

    def begin_stderr(self) -> str:
        """Return the path for the next sender's standard error, an empty file or /dev/null."""
        try:
            os.close(_open(self._sender_stderr, os.O_WRONLY | os.O_CREAT | os.O_TRUNC))
        except OSError:
            return os.devnull
        return str(self._sender_stderr)

    def lock_sender(self) -> int | None:
        """Lock ``sender_lock`` and return its descriptor. None where another process has it.

        The lock lasts until the descriptor, and each copy of it in other processes, is closed.
        """
        fd = _open(self.sender_lock, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            return None
        return fd

    def has_sender(self) -> bool:
        """Return whether a sender runs."""
        lock = self.lock_sender()
        if lock is not None:
            os.close(lock)
        return lock is None

    def is_locked_by(self, fd: int) -> bool:
        """Return whether *fd* is still the lock that other processes see."""
        try:
            return os.path.samestat(os.fstat(fd), os.lstat(self.sender_lock))
        except OSError:
            return False

    def may_log(self, subject: str) -> bool:
        """Return whether no process has logged a line about *subject* within a minute."""
        marker = self.directory / f"logged.{subject}"
        with contextlib.suppress(OSError):
            if 0 <= time.time() - marker.stat().st_mtime < LOG_INTERVAL:
                return False
        with contextlib.suppress(OSError):
            os.close(_open(marker, os.O_WRONLY | os.O_CREAT))
            os.utime(marker)
        return True

    @contextlib.contextmanager
    def listen(self) -> Iterator["WakeUps"]:
        """Listen for processes that call ``wake``. Nobody is heard if that is not a FIFO."""
        with contextlib.suppress(FileExistsError):
            os.mkfifo(self._wake, 0o600)
        try:
            # Open for writing too: a FIFO without a writer is always ready to be read.
            fd = _open(self._wake, os.O_RDWR, stat.S_IFIFO)
        except OSError:
            yield WakeUps(None)
            return
        try:
            yield WakeUps(fd)
        finally:
            os.close(fd)

    def wake(self) -> bool:
        """Ask the sender to deliver at once. Return whether one listens."""
        try:
            fd = _open(self._wake, os.O_WRONLY, stat.S_IFIFO)
        except OSError:
            return False
        with contextlib.suppress(BlockingIOError):  # full of what other processes wrote
            os.write(fd, b"!")
        os.close(fd)
        return True

    def status(self) -> SenderStatus:
        """Return the last status that the sender wrote."""
        try:
            status = msgspec.json.decode(_read(self._status), type=SenderStatus)
        except (OSError, msgspec.DecodeError):
            return SenderStatus()
        return status

    def crash(self) -> str:
        """Return the exception with which the last sender ended, empty if it ended as it should."""
        try:
            text = _read(self._sender_stderr).decode("utf-8", "replace")
        except OSError:
            return ""
        lines = text.strip().splitlines()
        return lines[-1][:500] if "Traceback" in text else ""

    def write_status(self, status: SenderStatus) -> None:
        """Write what the sender reports about itself."""
        fresh = self._status.with_suffix(".new")
        fd = _open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            os.write(fd, msgspec.json.encode(status))
        finally:
            os.close(fd)
        fresh.replace(self._status)


def _open(path: Path, flags: int, kind: int = stat.S_IFREG) -> int:
    """Open *path*, which must be a file, or of another *kind*. Raise OSError if it is not."""
    fd = os.open(path, flags | os.O_NONBLOCK | _FLAGS, 0o600)
    if stat.S_IFMT(os.fstat(fd).st_mode) != kind:
        os.close(fd)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return fd


def _read(path: Path) -> bytes:
    fd = _open(path, os.O_RDONLY)
    try:
        return os.read(fd, _MOST)
    finally:
        os.close(fd)


class WakeUps:
    """The sender's end of ``SpoolDirectory.wake``."""

    def __init__(self, fd: int | None) -> None:
        self._fd = fd

    def wait(self, seconds: float) -> bool:
        """Wait *seconds* at most. Return whether a process called ``wake``."""
        if self._fd is None:
            time.sleep(max(0.0, seconds))
            return False
        ready, _, _ = select.select([self._fd], [], [], max(0.0, seconds))
        with contextlib.suppress(BlockingIOError):
            while ready and os.read(self._fd, 4096):
                pass
        return bool(ready)
