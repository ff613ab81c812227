"""Looking after the sender, now and then, from the processes that write."""

import os
import time

from ..faults import logger
from . import spawn
from .place import Place

__all__ = ["Watch"]

#: Seconds between two looks.
INTERVAL = 2.0

#: A sender that ends sooner than so many seconds after its start, so many times in a row, is left.
SHORT_LIFE, SHORT_LIVES = 10.0, 3


class Watch:
    """Starts a sender where there is none, and says in the application's log what troubles it."""

    def __init__(self, place: Place) -> None:
        self._place = place
        #: The settings for which the place was made; the application may take a token away later.
        self._environ = dict(os.environ)
        #: When to look next, on the monotonic clock.
        self.due = 0.0
        self._next_start = 0.0
        self._started = float("-inf")
        self._short_lives = 0
        self._dropped = place.status().dropped

    def look(self) -> None:
        """Look, now."""
        self.due = time.monotonic() + INTERVAL
        # One that has just been started has said nothing yet, only the one before it.
        if not self.ensure_sender():
            self._tell()

    def ensure_sender(self) -> bool:
        """Start a sender unless there is one; say whether it was started."""
        if time.monotonic() < self._next_start:
            return False
        try:
            claim = self._place.claim()
            if claim is None:
                return False
            try:
                self._start(claim)
            finally:
                os.close(claim)
        except (OSError, NotImplementedError) as exc:  # a system that cannot spawn like that
            self._give_up_for_now(str(exc))
        return True

    def _start(self, claim: int) -> None:
        spawn.start(self._place, claim, self._environ)
        short = time.monotonic() < self._started + SHORT_LIFE
        self._short_lives = self._short_lives + 1 if short else 0
        self._started = time.monotonic()
        if self._short_lives >= SHORT_LIVES:
            self._give_up_for_now("it ends as soon as it is started")

    def _give_up_for_now(self, why: str) -> None:
        self._next_start = time.monotonic() + 30.0
        if self._place.may_tell("start"):
            logger.warning(
                "the process that sends spans is missing (%s); they are kept in %s",
                why,
                self._place.directory,
            )

    def _tell(self) -> None:
        status = self._place.status()
        if status.error and self._place.may_tell("failure"):
            logger.warning("spans wait on disk: %s", status.error)
        if status.dropped > self._dropped and self._place.may_tell("dropped"):
            logger.warning(
                "%d spans were dropped: %s", status.dropped - self._dropped, status.reason
            )
        self._dropped = status.dropped
