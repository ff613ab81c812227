"""The time until the next try, after an export that failed."""

import random
import time

from .transport import ExportResult

__all__ = ["Backoff"]

#: Seconds between two tries: the first, the longest, and the longest if somebody must correct
#: something.
FIRST, LONGEST, SLOWEST = 0.25, 5.0, 30.0

#: If a collector asks for more seconds, the sender waits this long.
LONGEST_ASKED = 300.0


class Backoff:
    """Waits longer after each failure, and at random, so that many senders do not retry at once."""

    def __init__(self) -> None:
        self.failures = 0
        self._due = 0.0
        self._asked = False

    @property
    def remaining(self) -> float:
        """The seconds until the next try, 0 if it is due."""
        return max(0.0, self._due - time.monotonic())

    def hurry(self) -> None:
        """Make the next try due, unless the collector asked for time."""
        if not self._asked:
            self._due = 0.0

    def succeeded(self) -> None:
        """Start again after an export that did not fail."""
        self.failures = 0
        self._due = 0.0
        self._asked = False

    def failed(self, result: ExportResult) -> None:
        """Wait after a failed export with *result*."""
        self.failures += 1
        longest = SLOWEST if result.slow else LONGEST
        wait = min(longest, FIRST * 2 ** min(self.failures, 16)) * random.uniform(0.5, 1.0)
        self._asked = result.wait is not None
        if result.wait is not None:
            wait = min(result.wait, LONGEST_ASKED) + wait * 0.1
        self._due = time.monotonic() + wait
