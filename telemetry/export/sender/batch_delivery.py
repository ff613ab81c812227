"""Delivery of spans and of log records: batches from all sources, each as one OTLP request."""

from collections.abc import Sequence

from ...config.exporter import Signal
from ...otlp.encode import encode_request
from ..outgoing import Encoded
from .delivery import Delivery, Source
from .transport import ExportResult, Outcome, Transport

#: The largest request in bytes. Collectors accept 4 MiB unless configured otherwise.
LARGEST_REQUEST = 2 * 1024 * 1024

#: If the collector fails this often at one batch, the batch may be the reason.
DOUBTS = 5

#: A source, and the items that are taken from it.
_Part = tuple[Source, list[Encoded]]


class BatchDelivery(Delivery):
    """Sends at most *batch* items in a request."""

    def __init__(self, signal: Signal, transport: Transport | None, batch: int) -> None:
        super().__init__(signal, transport)
        self._most = self._batch = batch
        self._doubts = 0

    def deliver(self, sources: Sequence[Source]) -> bool:
        """Send one batch. Return whether there may be more to send at once."""
        if self.transport is None:
            for source in sources:
                source.skip(self.signal)
            return False
        if self.must_wait():
            return False
        parts = self._take(sources)
        items = [item for _, part in parts for item in part]
        if not items:
            self._acknowledge(parts)
            return False
        result = self.transport.export(self.signal, encode_request(items))
        if result.missing and self.signal == "LOGS":  # a collector of traces alone
            self.transport = None
            error = f"{result.error}; no more are sent: set OTEL_LOGS_EXPORTER=none"
            result = ExportResult(Outcome.DELIVERED, error, len(items))
        elif result.outcome is Outcome.RETRY and not self._is_to_blame(result):
            self.failed(result)
            return False
        self.succeeded()
        self._doubts = 0
        delivered = result.outcome is Outcome.DELIVERED
        self.error = "" if delivered else result.error
        if not delivered and len(items) > 1:
            self._batch = len(items) // 2
            return True
        self.drop(result.rejected if delivered else 1, result.error)
        self._batch = min(self._most, self._batch * 2)
        self._acknowledge(parts)
        return True

    def _is_to_blame(self, result: ExportResult) -> bool:
        """Return whether the batch itself must be the reason for *result*."""
        self._doubts = self._doubts + 1 if result.doubtful else 0
        if self._doubts < DOUBTS or self.transport is None:
            return False
        # A collector that is down, or a proxy in front of it, refuses an empty export too.
        return self.transport.export(self.signal, b"").outcome is Outcome.DELIVERED

    def _take(self, sources: Sequence[Source]) -> list[_Part]:
        """Return the next items, as many as fit into one request, by source."""
        parts: list[_Part] = []
        count = size = 0
        for source in sources:
            waiting = source.waiting[self.signal]
            waiting.fill(self._batch - count)
            part: list[Encoded] = []
            parts.append((source, part))
            for encoded, _ in waiting.pending:
                size += len(encoded[-1])
                if count == self._batch or (count and size > LARGEST_REQUEST):
                    return parts
                part.append(encoded)
                count += 1
        return parts

    def _acknowledge(self, parts: Sequence[_Part]) -> None:
        for source, part in parts:
            source.waiting[self.signal].acknowledge(len(part))
            source.save()
