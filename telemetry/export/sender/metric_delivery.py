"""Delivery of metrics: the sums of what the sources measured, every so often.

There is one stream for each service, not for each process: a pool that recycles its children would
leave a thousand streams that count to twenty. Cumulative sums need no second delivery after a
failure, since the next one holds everything.
"""

import time
import uuid
from collections.abc import Sequence

from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.semconv.attributes.service_attributes import (
    SERVICE_INSTANCE_ID,
    SERVICE_NAME,
)

from ..aggregation import Aggregation, spans_dropped
from .backoff import Backoff
from .batch_delivery import Source
from .collector import Collector, Outcome
from .segment import Item

__all__ = ["MetricDelivery"]


class MetricDelivery:
    """Sends the metrics of all sources every *interval* seconds. Without a *collector*, none."""

    def __init__(self, collector: Collector | None, interval: float) -> None:
        self.backoff = Backoff()
        self.failures = 0
        self.error = ""
        self.delivered_at = 0.0
        self._collector = collector
        self._interval = interval
        self._due = time.monotonic() + interval
        self._instance = str(uuid.uuid4())
        # Of the sender, which serves several services.
        self._own = Resource({SERVICE_NAME: "queuehop", SERVICE_INSTANCE_ID: self._instance})
        self._since = time.time_ns()
        self._dropped = 0  # as the collector knows it
        self._streams: dict[bytes, Aggregation] = {}
        self._unsent = False

    @property
    def waits(self) -> bool:
        """Return whether there are measurements that were not delivered."""
        return self._unsent and self._collector is not None

    def hurry(self) -> None:
        """Send at the next call of ``deliver``."""
        self._due = 0.0
        self.backoff.hurry()

    def deliver(self, sources: Sequence[Source], dropped: int = 0) -> None:
        """Add up what is new, and send the sums if they are due.

        *dropped* is how many spans this process has dropped so far.
        """
        for source in sources:
            for item in source.measurements.drain():
                self._add(item)
        if self._collector is not None and (self._unsent or dropped != self._dropped):
            if time.monotonic() >= self._due and not self.backoff.remaining:
                self._send(self._collector, dropped)
            # A count of dropped spans that waits holds up no source.
            if self._unsent:
                return
        for source in sources:
            source.measurements.acknowledge_all()
            source.save()

    def _add(self, item: Item) -> None:
        if self._collector is None:
            return
        key, resource = item.origin.stream()
        aggregation = self._streams.get(key)
        if aggregation is None:
            named = Resource({SERVICE_INSTANCE_ID: self._instance, **resource})
            aggregation = self._streams[key] = Aggregation(named)
        aggregation.add(item.content)
        self._unsent = True

    def _send(self, collector: Collector, dropped: int) -> None:
        request = ExportMetricsServiceRequest()
        for aggregation in self._streams.values():
            data = aggregation.collect()
            if data is not None:
                request.MergeFrom(encode_metrics(data))
        # Also where it is 0: a counter that begins with 5 has not risen, to Prometheus.
        request.MergeFrom(encode_metrics(spans_dropped(self._own, dropped, self._since)))
        result = collector.export_metrics(request.SerializeToString())
        self.error = "" if result.missing else result.error
        if result.outcome is Outcome.RETRY and not result.missing:
            self.failures += 1
            self.backoff.failed(result)
            return
        if result.missing:  # a collector for traces alone
            self._collector = None
        self.backoff.succeeded()
        self._unsent = False
        self._dropped = dropped
        self.delivered_at = time.monotonic()
        self._due = self.delivered_at + self._interval
