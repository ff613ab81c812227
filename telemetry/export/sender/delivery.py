"""The common part of all deliveries, and the sources of their items."""

from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

from ...config.exporter import SIGNALS, Signal
from .backoff import Backoff
from .transport import ExportResult

__all__ = ["Buffer", "Delivery", "Source"]


class Buffer:
    """The items of one signal that wait in a source, each with the offset behind it."""

    def __init__(self) -> None:
        self.pending: deque[tuple[Any, int]] = deque()

    def fill(self, most: int) -> None:
        """Read until *most* items are pending, if there are so many."""

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
    """Sends the items of one signal, and knows how that went."""

    def __init__(self) -> None:
        #: Why exports fail at the moment; empty if they do not.
        self.error = ""
        self.failures = 0
        #: How many items will not be delivered, and why the last of them.
        self.dropped = 0
        self.reason = ""
        #: The time of the last delivery, on the monotonic clock.
        self.delivered_at = 0.0
        self.backoff = Backoff()

    def hurry(self) -> None:
        """Send at the next call of ``deliver``, unless the collector asked for time."""
        self.backoff.hurry()

    def drop(self, count: int, reason: str) -> None:
        """Count items that will not be delivered."""
        if count:
            self.dropped += count
            self.reason = reason

    def failed(self, result: ExportResult) -> None:
        """Note a failed export. The next one waits."""
        self.failures += 1
        self.error = result.error
        self.backoff.failed(result)
