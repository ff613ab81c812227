"""The sender's aggregation of what the applications have measured.

One stream for each service, not for each process: a pool that recycles its children would leave a
thousand streams that count to twenty. What is cumulative needs no second delivery after a failure,
the next one says it all.
"""

import json
import time
import uuid
from collections.abc import Sequence
from functools import lru_cache

from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.semconv._incubating.attributes.service_attributes import SERVICE_INSTANCE_ID

from ..instruments import Instruments
from ..series import Series
from . import frames
from .collector import Collector, Verdict
from .retry import Backoff
from .segment import Item, Segment

__all__ = ["MeasurementDelivery"]


class MeasurementDelivery:
    """Sends what all segments measured every *interval* seconds; to no *collector*, nothing."""

    def __init__(self, collector: Collector | None, interval: float) -> None:
        self.backoff = Backoff()
        self.failures = 0
        self.delivered_at = 0.0
        self._collector = collector
        self._interval = interval
        self._due = time.monotonic() + interval
        self._instance = str(uuid.uuid4())
        self._streams: dict[bytes, Instruments] = {}
        self._unsent = False

    def hurry(self) -> None:
        """Send at the next occasion."""
        self._due = 0.0
        self.backoff.hurry()

    def deliver(self, segments: Sequence[Segment]) -> None:
        """Take up what is new, and send it if it is time to."""
        for segment in segments:
            for item in segment.measurements.drain():
                self._record(item)
        if self._collector is not None and self._unsent:
            if time.monotonic() < self._due or self.backoff.remaining:
                return
            if not self._send(self._collector):
                return
        for segment in segments:
            segment.measurements.acknowledge_all()
            segment.keep()

    def _record(self, item: Item) -> None:
        if self._collector is None:
            return
        (resource, description), content, _ = item
        stream = self._streams.get(resource)
        if stream is None:
            stream = self._streams[resource] = self._stream(resource)
        stream.record(_series(description), frames.values(content))
        self._unsent = True

    def _stream(self, resource: bytes) -> Instruments:
        known = {SERVICE_INSTANCE_ID: self._instance, **json.loads(resource)}
        return Instruments(Resource(known))

    def _send(self, collector: Collector) -> bool:
        request = ExportMetricsServiceRequest()
        for stream in self._streams.values():
            data = stream.collect()
            if data is not None:
                request.MergeFrom(encode_metrics(data))
        answer = collector.take_metrics(request.SerializeToString())
        if answer.verdict is Verdict.LATER and not answer.missing:
            self.failures += 1
            self.backoff.failed(answer)
            return False
        if answer.missing:  # it takes traces alone
            self._collector = None
        self.backoff.succeeded()
        self._unsent = False
        self.delivered_at = time.monotonic()
        self._due = self.delivered_at + self._interval
        return True


@lru_cache(maxsize=1024)
def _series(description: bytes) -> Series:
    """Return what the application measured, from its *description*."""
    names, attributes = json.loads(description)
    return Series(names, attributes)
