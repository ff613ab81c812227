"""The common part of all deliveries, and the sources of their items."""

import random
import time
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

from ...config.exporter import SIGNALS, Signal
from .transport import ExportResult, Transport

#: Seconds between two tries: the first, the longest, and the longest if somebody must correct
#: something.
FIRST, LONGEST, SLOWEST = 0.25, 5.0, 30.0

#: The longest wait, in seconds, that a collector may ask for.
LONGEST_ASKED = 300.0


class Buffer:
    """The items of one signal that wait in a source, each with the offset behind it."""

    def __init__(self) -> None:
        self.pending: deque[tuple[Any, int]] = deque()

    def fill(self, most: int) -> None:
        """Read until *most* items are pending, or all."""

    def drain(self) -> Iterator[Any]:
        """Yield and remove all items. They are not acknowledged."""
        while self.pending:
            yield self.pending.popleft()[0]

    def acknowledge(self, count: int = 0) -> None:
        """Remove the first *count* items, which are delivered or dropped, and all drained ones."""
        for _ in range(count):
            self.pending.popleft()


class Source:
    """Where records wait: the memory of this process, or, in a subclass, a segment on disk."""

    def __init__(self) -> None:
        self.waiting: Mapping[Signal, Buffer] = {signal: Buffer() for signal in SIGNALS}

    def save(self) -> None:
        """Write to disk what is acknowledged."""

    def skip(self, signal: Signal) -> int:
        """Drop all items of *signal*. Return how many there were."""
        waiting = self.waiting[signal]
        count = sum(1 for _ in waiting.drain())
        waiting.acknowledge()
        self.save()
        return count


class Delivery:
    """Sends the items of *signal*, and notes the outcome. Without a *transport* it drops them.

    After each failure it waits longer, and at random, so that many senders do not retry at once.
    """

    def __init__(self, signal: Signal, transport: Transport | None) -> None:
        self.signal: Signal = signal
        self.transport = transport
        #: Why exports fail at the moment; empty if they do not.
        self.error = ""
        self.failures = 0
        #: How many items will not be delivered, and why the last of them.
        self.dropped = 0
        self.reason = ""
        #: The time of the last delivery, on the monotonic clock.
        self.delivered_at = 0.0
        self._failures_in_a_row = 0
        #: The time of the next try, and whether the collector asked for it.
        self._retry_at = 0.0
        self._is_asked = self._is_hurried = False

    def must_wait(self) -> bool:
        """Return whether the next try is not due.

        Right after ``hurry`` that counts as a failure, so that a flush returns at once.
        """
        waits = time.monotonic() < self._retry_at
        if waits and self._is_hurried:
            self.failures += 1
        self._is_hurried = False
        return waits

    def hurry(self) -> None:
        """Send at the next call of ``deliver``, unless the collector asked for time."""
        self._is_hurried = self._is_asked
        if self._is_asked:
            return
        self._retry_at = 0.0
        if self._failures_in_a_row and self.transport is not None:
            self.transport.close()  # gRPC waits longer after each failure to connect

    def drop(self, count: int, reason: str) -> None:
        """Count items that will not be delivered."""
        if count:
            self.dropped += count
            self.reason = reason

    def succeeded(self) -> None:
        """Note an export that did not fail."""
        self.delivered_at = time.monotonic()
        self._failures_in_a_row = 0
        self._retry_at = 0.0
        self._is_asked = False

    def failed(self, result: ExportResult) -> None:
        """Note a failed export. The next one waits."""
        self.failures += 1
        self.error = result.error
        self._failures_in_a_row += 1
        longest = SLOWEST if result.slow else LONGEST
        wait = min(longest, FIRST * 2 ** min(self._failures_in_a_row, 16))
        wait *= random.uniform(0.5, 1.0)
        self._is_asked = result.wait is not None
        if result.wait is not None:
            wait = min(result.wait, LONGEST_ASKED) + wait * 0.1
        self._retry_at = time.monotonic() + wait
