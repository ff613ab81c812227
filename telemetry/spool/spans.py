"""The sender's delivery of spans: batches of bytes that the applications have encoded."""

import time
from collections import defaultdict
from collections.abc import Iterable, Sequence

from .. import otlp
from .collector import Answer, Collector, Verdict
from .retry import Backoff
from .segment import Item, Segment

__all__ = ["SpanDelivery"]

#: The largest request in bytes; collectors take 4 MiB unless told otherwise.
LARGEST_REQUEST = 2 * 1024 * 1024

#: So often a collector may fall over a batch before the batch is taken for the reason.
DOUBTS = 5

#: Field 1 of an ``ExportTraceServiceRequest``, and field 2 of ``ResourceSpans`` and ``ScopeSpans``.
_RESOURCE_SPANS, _INNER = b"\x0a", b"\x12"


class SpanDelivery:
    """Sends the spans of all segments, at most *batch* in a request."""

    def __init__(self, collector: Collector, batch: int) -> None:
        self.backoff = Backoff()
        self.error = ""
        self.failures = 0
        self.dropped = 0
        self.reason = ""
        self.delivered_at = 0.0
        self._collector = collector
        self._most = self._batch = batch
        self._doubts = 0

    def hurry(self) -> None:
        """Try at the next occasion, unless the collector has asked for time."""
        self.backoff.hurry()
        if self.backoff.remaining:  # for those who wait for an attempt
            self.failures += 1

    def deliver(self, segments: Sequence[Segment]) -> bool:
        """Send one batch; say whether there may be more to send at once."""
        if self.backoff.remaining:
            return False
        taken = self._take(segments)
        items = [item for _, part in taken for item in part]
        if not items:
            for segment in segments:
                segment.spans.acknowledge(0)
                segment.keep()
            return False
        answer = self._collector.take_spans(_request(items))
        if answer.verdict is Verdict.LATER and not self._too_doubtful(answer):
            self.failures += 1
            self.error = answer.error
            self.backoff.failed(answer)
            return False
        self.backoff.succeeded()
        self.delivered_at = time.monotonic()
        self._doubts = 0
        delivered = answer.verdict is Verdict.DELIVERED
        self.error = "" if delivered else answer.error
        if not delivered and len(items) > 1:
            self._batch = len(items) // 2
            return True
        self.drop(answer.rejected if delivered else 1, answer.error)
        self._batch = min(self._most, self._batch * 2)
        for segment, part in taken:
            segment.spans.acknowledge(len(part))
            segment.keep()
        return True

    def drop(self, count: int, reason: str) -> None:
        """Count spans that will not be delivered, and remember why."""
        if count:
            self.dropped += count
            self.reason = reason

    def _too_doubtful(self, answer: Answer) -> bool:
        self._doubts = self._doubts + 1 if answer.doubtful else 0
        # What is away, or a proxy in front of it, does not take an export of nothing either.
        return (
            self._doubts >= DOUBTS and self._collector.take_spans(b"").verdict is Verdict.DELIVERED
        )

    def _take(self, segments: Sequence[Segment]) -> list[tuple[Segment, list[Item]]]:
        """Return the next items, as many as go into one request, by segment."""
        taken: list[tuple[Segment, list[Item]]] = []
        count = size = 0
        for segment in segments:
            segment.spans.fill(self._batch - count)
            part: list[Item] = []
            for item in segment.spans.pending:
                size += len(item[1])
                if count == self._batch or (count and size > LARGEST_REQUEST):
                    return [*taken, (segment, part)]
                part.append(item)
                count += 1
            taken.append((segment, part))
        return taken


def _request(items: Iterable[Item]) -> bytes:
    """Return the ``ExportTraceServiceRequest`` of *items*, which are its parts already."""
    together: dict[tuple[bytes, ...], list[bytes]] = defaultdict(list)
    for definitions, content, _ in items:
        together[definitions].append(content)
    resources: dict[bytes, list[bytes]] = defaultdict(list)
    for (resource, scope), spans in together.items():
        fields = [otlp.field(_INNER, span) for span in spans]
        resources[resource].append(otlp.field(_INNER, scope + b"".join(fields)))
    return b"".join(
        otlp.field(_RESOURCE_SPANS, resource + b"".join(scopes))
        for resource, scopes in resources.items()
    )
