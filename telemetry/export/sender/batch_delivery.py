"""Delivery of spans and of logs: batches of what the sources hold, as one OTLP request each."""

import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Protocol

from ...otlp.encode import encode_request
from .backoff import Backoff
from .collector import Collector, ExportResult, Outcome
from .segment import Item

__all__ = ["BatchDelivery", "LogDelivery", "Source", "SpanDelivery"]

#: The largest request in bytes. Collectors accept 4 MiB unless configured otherwise.
LARGEST_REQUEST = 2 * 1024 * 1024

#: A collector may fail so many times at a batch before the batch counts as the reason.
DOUBTS = 5


class Waiting(Protocol):
    """The items of one kind that wait in a source."""

    pending: deque[Item]

    def fill(self, most: int) -> None: ...
    def drain(self) -> Iterator[Item]: ...
    def acknowledge(self, count: int) -> None: ...
    def acknowledge_all(self) -> None: ...


class Source(Protocol):
    """Where records wait: a segment on disk, or the memory of this process."""

    @property
    def spans(self) -> Waiting: ...
    @property
    def measurements(self) -> Waiting: ...
    @property
    def logs(self) -> Waiting: ...
    def save(self) -> None: ...


class BatchDelivery(ABC):
    """Sends the items of one kind of all sources, at most *batch* in a request."""

    def __init__(self, batch: int) -> None:
        self.backoff = Backoff()
        self.error = ""
        self.failures = 0
        self.dropped = 0
        self.reason = ""
        self.delivered_at = 0.0
        self._most = self._batch = batch
        self._doubts = 0

    @abstractmethod
    def _waiting(self, source: Source) -> Waiting:
        """Return what waits in *source*."""

    @abstractmethod
    def _parts(self, item: Item) -> tuple[bytes, bytes, bytes]:
        """Return *item* as it goes into a request: resource, scope and itself."""

    @abstractmethod
    def _export(self, request: bytes) -> ExportResult:
        """Send an encoded request."""

    def _judged(self, result: ExportResult, count: int) -> ExportResult:
        """Return what *result*, of a request with *count* items, means here."""
        return result

    def hurry(self) -> None:
        """Try at the next call of ``deliver``, unless the collector asked for time."""
        self.backoff.hurry()
        if self.backoff.remaining:  # a flush waits for a try
            self.failures += 1

    def deliver(self, sources: Sequence[Source]) -> bool:
        """Send one batch. Return whether there may be more to send at once."""
        if self.backoff.remaining:
            return False
        taken = self._take(sources)
        items = [item for _, part in taken for item in part]
        if not items:
            for source in sources:
                self._waiting(source).acknowledge(0)
                source.save()
            return False
        result = self._export(encode_request(map(self._parts, items)))
        result = self._judged(result, len(items))
        if result.outcome is Outcome.RETRY and not self._too_doubtful(result):
            self.failures += 1
            self.error = result.error
            self.backoff.failed(result)
            return False
        self.backoff.succeeded()
        self.delivered_at = time.monotonic()
        self._doubts = 0
        delivered = result.outcome is Outcome.DELIVERED
        self.error = "" if delivered else result.error
        if not delivered and len(items) > 1:
            self._batch = len(items) // 2
            return True
        self.drop(result.rejected if delivered else 1, result.error)
        self._batch = min(self._most, self._batch * 2)
        for source, part in taken:
            self._waiting(source).acknowledge(len(part))
            source.save()
        return True

    def drop(self, count: int, reason: str) -> None:
        """Count items that will not be delivered, with the reason."""
        if count:
            self.dropped += count
            self.reason = reason

    def _too_doubtful(self, result: ExportResult) -> bool:
        """Return whether the batch itself must be the reason for *result*."""
        self._doubts = self._doubts + 1 if result.doubtful else 0
        if self._doubts < DOUBTS:
            return False
        # A collector that is down, or a proxy in front of it, refuses an empty export too.
        return self._export(b"").outcome is Outcome.DELIVERED

    def _take(self, sources: Sequence[Source]) -> list[tuple[Source, list[Item]]]:
        """Return the next items, as many as fit into one request, by source."""
        taken: list[tuple[Source, list[Item]]] = []
        count = size = 0
        for source in sources:
            waiting = self._waiting(source)
            waiting.fill(self._batch - count)
            part: list[Item] = []
            for item in waiting.pending:
                size += len(self._parts(item)[-1])
                if count == self._batch or (count and size > LARGEST_REQUEST):
                    return [*taken, (source, part)]
                part.append(item)
                count += 1
            taken.append((source, part))
        return taken


class SpanDelivery(BatchDelivery):
    """Sends the spans of all sources."""

    def __init__(self, collector: Collector, batch: int) -> None:
        super().__init__(batch)
        self._collector = collector

    def _waiting(self, source: Source) -> Waiting:
        return source.spans

    def _parts(self, item: Item) -> tuple[bytes, bytes, bytes]:
        return item.origin.resource_spans(), item.origin.scope_spans(), item.content

    def _export(self, request: bytes) -> ExportResult:
        return self._collector.export_spans(request)


class LogDelivery(BatchDelivery):
    """Sends the logs of all sources. Without a *collector* that takes them it drops them."""

    def __init__(self, collector: Collector | None, batch: int) -> None:
        super().__init__(batch)
        self._collector = collector

    def _waiting(self, source: Source) -> Waiting:
        return source.logs

    def _parts(self, item: Item) -> tuple[bytes, bytes, bytes]:
        return item.origin.resource_spans(), *item.content

    def deliver(self, sources: Sequence[Source]) -> bool:
        """Send one batch, as spans are sent, or drop all."""
        if self._collector is not None and super().deliver(sources):
            return True
        if self._collector is None:
            for source in sources:
                for _ in source.logs.drain():
                    pass
                source.logs.acknowledge_all()
                source.save()
        return False

    def _export(self, request: bytes) -> ExportResult:
        if self._collector is None:
            return ExportResult(Outcome.DELIVERED)
        return self._collector.export_logs(request)

    def _judged(self, result: ExportResult, count: int) -> ExportResult:
        if not result.missing:
            return result
        # A collector for traces alone. The next sender asks again.
        self._collector = None
        error = f"{result.error}; no more are sent: set OTEL_LOGS_EXPORTER=none"
        return ExportResult(Outcome.DELIVERED, error, rejected=count)
