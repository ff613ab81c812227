"""Watch the sender, from the processes that write."""

import os
import time
from collections import Counter
from collections.abc import Callable

from ...config.exporter import with_absolute_paths
from ...tracing.faults import logger
from ..status import log_status
from . import spawn
from .directory import SpoolDirectory

#: Seconds between two looks.
INTERVAL = 2.0

#: A sender has failed if it ends within this many seconds after its start, this often in a row.
SHORT_LIFE, SHORT_LIVES = 10.0, 3


class Watch:
    """Starts a sender if none runs, and logs its problems.

    *give_up* is called with the reason once no sender can be started.
    """

    def __init__(self, directory: SpoolDirectory, give_up: Callable[[str], None]) -> None:
        self._directory = directory
        self._files = directory.sender_files
        self._give_up = give_up
        #: The settings that the directory is for. The application may remove a token later.
        self._environ = with_absolute_paths(os.environ)
        #: When to look next, on the monotonic clock.
        self.due = 0.0
        self._started = float("-inf")
        self._short_lives = 0
        #: How many dropped items of each signal have been logged, by any process.
        self._counted: Counter[str] = Counter()
        #: The unreadable segments that this process has logged.
        self._unreadable = ""

    def look(self) -> None:
        """Start a sender if none runs. If one runs, log its problems."""
        self.due = time.monotonic() + INTERVAL
        # The status of a sender that has just been started is that of the sender before it.
        if not self.ensure_sender():
            self._log_status()

    def ensure_sender(self) -> bool:
        """Start a sender unless one runs. Return whether none was running."""
        try:
            lock = self._files.lock()
            if lock is None:
                return False
            try:
                self._start(lock)
            finally:
                os.close(lock)
        except (OSError, NotImplementedError) as exc:  # the system lacks an option of posix_spawn
            self._give_up(f"no process can be started: {exc}")
        return True

    def _start(self, lock: int) -> None:
        short = time.monotonic() < self._started + SHORT_LIFE
        self._short_lives = self._short_lives + 1 if short else 0
        if self._short_lives >= SHORT_LIVES:
            self._give_up(self._files.crash() or "it ends as soon as it is started")
            return
        spawn.start(self._directory, lock, self._environ)
        self._started = time.monotonic()

    def _log_status(self) -> None:
        status, may_log = self._files.status(), self._files.may_log
        counted = self._files.counted()
        self._counted |= counted  # the larger number of each: a full disk does not take new ones
        log_status("on disk", status.signals, self._counted, may_log)
        if self._counted != counted:
            self._files.write_counted(self._counted)
        unreadable = status.unreadable
        if unreadable not in ("", self._unreadable) and may_log("unreadable"):
            self._unreadable = unreadable
            logger.warning(
                "these segments in %s cannot be read and are not delivered: %s; remove them",
                self._directory.path,
                unreadable,
            )
