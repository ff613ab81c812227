"""Delivery of metrics: at each interval, the sums of what all sources have measured.

On disk, each service has one stream, and not each process: a pool that recycles its children would
make a thousand streams that count to twenty. In memory, each process has its own. The sums are
cumulative, so a failed export needs no retry of its own: the next one contains it.
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
from ..outgoing import Measured
from .delivery import Delivery, Source
from .transport import Outcome, Transport


class MetricDelivery(Delivery):
    """Sends the metrics of all sources every *interval* seconds."""

    def __init__(self, transport: Transport | None, interval: float) -> None:
        super().__init__("METRICS", transport)
        self._interval = interval
        self._due = time.monotonic() + interval
        self._instance = str(uuid.uuid4())
        # The sender's own resource: it serves several services.
        self._own = Resource({SERVICE_NAME: "queuehop", SERVICE_INSTANCE_ID: self._instance})
        self._since = time.time_ns()
        self._spans_dropped = 0  # in the last export
        self._streams: dict[bytes, Aggregation] = {}
        self._unsent = False

    def hurry(self) -> None:
        super().hurry()
        self._due = 0.0

    def deliver(self, sources: Sequence[Source], dropped: int = 0) -> None:
        """Add what is new to the sums, and send them if they are due.

        *dropped* is how many spans this process has dropped so far.
        """
        if self.transport is None:
            for source in sources:
                source.skip("METRICS")
            return
        for source in sources:
            for measured in source.waiting["METRICS"].drain():
                self._add(measured)
        is_due = time.monotonic() >= self._due
        is_new = self._unsent or dropped != self._spans_dropped
        if is_due and is_new and not self.must_wait():
            self._send(self.transport, dropped)
        if not self._unsent:
            for source in sources:
                source.waiting["METRICS"].acknowledge()
                source.save()

    def _add(self, measured: Measured) -> None:
        (key, resource), measurement = measured
        aggregation = self._streams.get(key)
        if aggregation is None:
            named = Resource({SERVICE_INSTANCE_ID: self._instance, **resource})
            aggregation = self._streams[key] = Aggregation(named)
        aggregation.add(measurement)
        self._unsent = True

    def _send(self, transport: Transport, dropped: int) -> None:
        request = ExportMetricsServiceRequest()
        for aggregation in self._streams.values():
            data = aggregation.collect()
            if data is not None:
                request.MergeFrom(encode_metrics(data))
        # Also if it is 0: Prometheus sees no increase in a counter that begins with 5.
        request.MergeFrom(encode_metrics(spans_dropped(self._own, dropped, self._since)))
        result = transport.export("METRICS", request.SerializeToString())
        if result.missing:  # a collector of traces alone
            self.transport = None
        elif result.outcome is Outcome.RETRY:
            self.failed(result)
            return
        else:
            self.error = ""
            refused = result.outcome is Outcome.REFUSED
            self.drop(_count(request) if refused else result.rejected, result.error)
        self.succeeded()
        self._unsent = False
        self._spans_dropped = dropped
        self._due = self.delivered_at + self._interval


def _count(request: ExportMetricsServiceRequest) -> int:
    """Return the number of metrics in *request*."""
    return sum(len(s.metrics) for r in request.resource_metrics for s in r.scope_metrics)
