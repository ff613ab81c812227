"""When to try the collector again."""

import random
import time

from .collector import Answer

__all__ = ["Backoff"]

#: Seconds between two tries: at first, at most, and at most while somebody must act.
FIRST, LONGEST, SLOWEST = 0.25, 5.0, 30.0

#: The longest that a collector may ask for, in seconds.
LONGEST_ASKED = 300.0


class Backoff:
    """Waits longer after each failure, by chance between half and all of it: no thundering herd."""

    def __init__(self) -> None:
        self.failures = 0
        self._due = 0.0
        self._asked = False

    @property
    def remaining(self) -> float:
        """Seconds until the next try, 0 when it may be made."""
        return max(0.0, self._due - time.monotonic())

    def hurry(self) -> None:
        """Try at once, unless the collector itself has asked for time."""
        if not self._asked:
            self._due = 0.0

    def succeeded(self) -> None:
        self.failures = 0
        self._due = 0.0
        self._asked = False

    def failed(self, answer: Answer) -> None:
        self.failures += 1
        longest = SLOWEST if answer.slow else LONGEST
        wait = min(longest, FIRST * 2 ** min(self.failures, 16)) * random.uniform(0.5, 1.0)
        self._asked = answer.wait is not None
        if answer.wait is not None:
            wait = min(answer.wait, LONGEST_ASKED) + wait * 0.1
        self._due = time.monotonic() + wait
