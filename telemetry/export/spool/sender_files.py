"""The files by which processes and their sender find each other: lock, wake-up, status."""

import contextlib
import fcntl
import os
import select
import stat
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import msgspec

from ..status import SignalStatus
from .private import open_private, opened, read_private

#: Seconds between two log lines, of any process, of one kind.
LOG_INTERVAL = 60.0


class SenderStatus(NamedTuple):
    """The sender's report. Its counts continue those of the sender before it."""

    #: How many exports have failed.
    failures: int = 0
    #: The segments that cannot be read, with the reason for each.
    unreadable: str = ""
    #: In the order of ``SIGNALS``.
    signals: tuple[SignalStatus, SignalStatus, SignalStatus] = (SignalStatus(),) * 3


class SenderFiles:
    """The sender's files in *directory*."""

    def __init__(self, directory: Path) -> None:
        self.lock_file = directory / "sender.lock"
        self._directory = directory
        self._wake = directory / "wake"
        self._status = directory / "status.json"
        self._counted = directory / "counted.json"
        self._stderr = directory / "sender.stderr"

    def lock(self) -> int | None:
        """Lock ``lock_file`` and return its descriptor. None if another process has the lock.

        The lock lasts until the descriptor, and each copy of it in other processes, is closed.
        """
        fd = open_private(self.lock_file, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            return None
        return fd

    def is_running(self) -> bool:
        """Return whether a sender runs."""
        lock = self.lock()
        if lock is not None:
            os.close(lock)
        return lock is None

    def is_locked_by(self, fd: int) -> bool:
        """Return whether *fd* is still the lock that other processes see."""
        try:
            return os.path.samestat(os.fstat(fd), os.lstat(self.lock_file))
        except OSError:
            return False

    def may_log(self, kind: str) -> bool:
        """Return whether no process has logged a line of this *kind* within a minute.

        A kind names a file, up to its colon: any text may follow that.
        """
        marker = self._directory / f"logged.{kind.partition(':')[0]}"
        with contextlib.suppress(OSError):
            if 0 <= time.time() - marker.stat().st_mtime < LOG_INTERVAL:
                return False
        with contextlib.suppress(OSError):
            os.close(open_private(marker, os.O_WRONLY | os.O_CREAT))
            os.utime(marker)
        return True

    def listen(self) -> list[int]:
        """Return the descriptor for ``wait``: none if another file is in its place."""
        with contextlib.suppress(FileExistsError):
            os.mkfifo(self._wake, 0o600)
        try:
            # Open for writing too: a FIFO without a writer is always ready to be read.
            return [open_private(self._wake, os.O_RDWR, stat.S_IFIFO)]
        except OSError:
            return []

    def wake(self) -> bool:
        """Ask the sender to deliver at once. Return whether one listens."""
        try:
            with opened(self._wake, os.O_WRONLY, stat.S_IFIFO) as fd:
                os.write(fd, b"!")
        except OSError as exc:
            return isinstance(exc, BlockingIOError)  # full of what other processes wrote
        return True

    def status(self) -> SenderStatus:
        """Return the last status that a sender wrote."""
        try:
            return msgspec.json.decode(read_private(self._status), type=SenderStatus)
        except (OSError, msgspec.DecodeError):
            return SenderStatus()

    def write_status(self, status: SenderStatus) -> None:
        """Replace the status. Raises OSError."""
        _replace(self._status, msgspec.json.encode(status))

    def counted(self) -> Counter[str]:
        """Return how many dropped items of each signal have been logged, by any process."""
        try:
            return Counter(msgspec.json.decode(read_private(self._counted), type=dict[str, int]))
        except (OSError, msgspec.DecodeError):
            return Counter()

    def write_counted(self, counted: Counter[str]) -> None:
        """Replace ``counted``, unless the disk is full."""
        with contextlib.suppress(OSError):
            _replace(self._counted, msgspec.json.encode(counted))

    def begin_stderr(self) -> str:
        """Return the path for the next sender's standard error: an empty file, or /dev/null."""
        try:
            os.close(open_private(self._stderr, os.O_WRONLY | os.O_CREAT | os.O_TRUNC))
        except OSError:
            return os.devnull
        return str(self._stderr)

    def crash(self) -> str:
        """Return the exception with which the last sender ended; empty if there was none."""
        try:
            text = read_private(self._stderr).decode("utf-8", "replace")
        except OSError:
            return ""
        lines = text.strip().splitlines()
        return lines[-1][:500] if "Traceback" in text else ""


def _replace(path: Path, content: bytes) -> None:
    """Replace the file at *path*, as a whole. Raises OSError."""
    fresh = path.with_suffix(".new")
    with opened(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) as fd:
        os.write(fd, content)
    fresh.replace(path)


def wait(listening: list[int], seconds: float) -> bool:
    """Wait *seconds* at most. Return whether a process called ``wake``."""
    ready, _, _ = select.select(listening, [], [], seconds)
    for fd in ready:
        with contextlib.suppress(BlockingIOError):
            while os.read(fd, 4096):
                pass
    return bool(ready)
