"""Looking after the sender, from the processes that write."""

import os
import time
from collections.abc import Callable

from ...tracing.faults import logger
from . import spawn
from .directory import SpoolDirectory

__all__ = ["Watch"]

#: Seconds between two looks.
INTERVAL = 2.0

#: A sender that ends within so many seconds after its start, so many times in a row, fails.
SHORT_LIFE, SHORT_LIVES = 10.0, 3


class Watch:
    """Starts a sender where none runs, and logs what goes wrong with it.

    *give_up* is called with the reason once no sender can be started.
    """

    def __init__(self, directory: SpoolDirectory, give_up: Callable[[str], None]) -> None:
        self._directory = directory
        self._give_up = give_up
        #: The settings that the directory was made for. The application may remove a token later.
        self._environ = dict(os.environ)
        #: When to look next, on the monotonic clock.
        self.due = 0.0
        self._started = float("-inf")
        self._short_lives = 0
        status = directory.status()
        self._dropped, self._dropped_logs = status.dropped, status.dropped_logs
        self._passed_over = ""

    def look(self) -> None:
        """Look now."""
        self.due = time.monotonic() + INTERVAL
        # A sender that was just started has reported nothing yet, only the one before it.
        if not self.ensure_sender():
            self._log_status()

    def ensure_sender(self) -> bool:
        """Start a sender unless one runs. Return whether it was started."""
        try:
            lock = self._directory.lock_sender()
            if lock is None:
                return False
            try:
                self._start(lock)
            finally:
                os.close(lock)
        except (OSError, NotImplementedError) as exc:  # a system that cannot spawn like that
            self._give_up(f"no process can be started: {exc}")
        return True

    def _start(self, lock: int) -> None:
        short = time.monotonic() < self._started + SHORT_LIFE
        self._short_lives = self._short_lives + 1 if short else 0
        if self._short_lives >= SHORT_LIVES:
            self._give_up(self._directory.crash() or "it ends as soon as it is started")
            return
        spawn.start(self._directory, lock, self._environ)
        self._started = time.monotonic()

    def _log_status(self) -> None:
        status, may_log = self._directory.status(), self._directory.may_log
        if status.error and may_log("failure"):
            logger.warning("spans wait on disk: %s", status.error)
        if status.metrics_error and may_log("metrics"):
            logger.warning("metrics are not delivered: %s", status.metrics_error)
        if status.dropped > self._dropped and may_log("dropped"):
            logger.warning("dropped %d spans: %s", status.dropped - self._dropped, status.reason)
        self._dropped = status.dropped
        if status.log_error and status.log_error != status.error and may_log("log-failure"):
            logger.warning("log records wait on disk: %s", status.log_error)
        if status.dropped_logs > self._dropped_logs and may_log("dropped-logs"):
            dropped = status.dropped_logs - self._dropped_logs
            logger.warning("dropped %d log records: %s", dropped, status.log_reason)
        self._dropped_logs = status.dropped_logs
        if status.passed_over != self._passed_over and may_log("passed-over"):
            logger.warning(
                "these segments in %s cannot be read and are not delivered: %s; remove them",
                self._directory.directory,
                status.passed_over,
            )
        self._passed_over = status.passed_over
