"""Watch the sender, from the processes that write."""

import os
import time
from collections.abc import Callable

from ...config.exporter import NAMES, SIGNALS
from ...tracing.faults import logger
from . import spawn
from .directory import SpoolDirectory

__all__ = ["Watch"]

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
        self._sender = directory.sender
        self._give_up = give_up
        #: The settings that the directory is for. The application may remove a token later.
        self._environ = dict(os.environ)
        #: When to look next, on the monotonic clock.
        self.due = 0.0
        self._started = float("-inf")
        self._short_lives = 0
        # Segments that were unreadable before this process are logged once more.
        self._status = self._sender.status()._replace(unreadable="")

    def look(self) -> None:
        """Start a sender if none runs. If one runs, log its problems."""
        self.due = time.monotonic() + INTERVAL
        # The status of a sender that has just been started is that of the sender before it.
        if not self.ensure_sender():
            self._log_status()

    def ensure_sender(self) -> bool:
        """Start a sender unless one runs. Return whether none was running."""
        try:
            lock = self._sender.lock()
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
            self._give_up(self._sender.crash() or "it ends as soon as it is started")
            return
        spawn.start(self._directory, lock, self._environ)
        self._started = time.monotonic()

    def _log_status(self) -> None:
        before, self._status = self._status, self._sender.status()
        may_log = self._sender.may_log
        errors = {""}
        for signal, was, now in zip(SIGNALS, before.signals, self._status.signals, strict=True):
            name = NAMES[signal]
            # A collector that is down is one problem, not one for each signal.
            if now.error not in errors and may_log(f"{signal}.error"):
                logger.warning("%s are not delivered, and wait on disk: %s", name, now.error)
            errors.add(now.error)
            if now.dropped > was.dropped and may_log(f"{signal}.dropped"):
                logger.warning("dropped %d %s: %s", now.dropped - was.dropped, name, now.reason)
        unreadable = self._status.unreadable
        if unreadable != before.unreadable and may_log("unreadable"):
            logger.warning(
                "these segments in %s cannot be read and are not delivered: %s; remove them",
                self._directory.directory,
                unreadable,
            )
