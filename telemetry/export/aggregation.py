"""The sums of all measurements, for every instrument of the conventions that the hops use.

The SDK's meters copy and clean the attributes of each measurement, which takes fifteen times as
long. The data points are the same.
"""

import math
import time
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any

from opentelemetry.sdk.metrics import Exemplar
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.semconv._incubating.metrics.messaging_metrics import (
    MESSAGING_CLIENT_CONSUMED_MESSAGES,
    MESSAGING_CLIENT_OPERATION_DURATION,
    MESSAGING_CLIENT_SENT_MESSAGES,
    MESSAGING_PROCESS_DURATION,
)
from opentelemetry.semconv.metrics.http_metrics import (
    HTTP_CLIENT_REQUEST_DURATION,
    HTTP_SERVER_REQUEST_DURATION,
)

from ..tracing.measurements import Measurement, Series
from ..tracing.scope import hop_scope
from ..tracing.waits import CELERY_WAIT_PREFETCH, CELERY_WAIT_QUEUE, CELERY_WAIT_SCHEDULED

Attributes = Mapping[str, Any]

#: The trace id, the span id and the end of a span; None if it is not sampled.
_Exemplar = tuple[bytes, int, int] | None

#: The metric that counts the spans that will not be delivered.
SPANS_DROPPED = "queuehop.spans.dropped"

#: Seconds, as the conventions advise for durations.
_DURATIONS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)

#: Seconds: messages wait longer than requests take.
_WAITS = (*_DURATIONS, 30, 60, 300, 900, 3600)

_COUNTERS = {
    MESSAGING_CLIENT_SENT_MESSAGES: "Messages that a producer tried to send.",
    MESSAGING_CLIENT_CONSUMED_MESSAGES: "Messages that were delivered to a task.",
}

_HISTOGRAMS = {
    HTTP_CLIENT_REQUEST_DURATION: ("Duration of HTTP requests sent.", _DURATIONS),
    HTTP_SERVER_REQUEST_DURATION: ("Duration of HTTP requests served.", _DURATIONS),
    MESSAGING_CLIENT_OPERATION_DURATION: ("Duration of a send.", _DURATIONS),
    MESSAGING_PROCESS_DURATION: ("Duration of a run.", _DURATIONS),
    CELERY_WAIT_SCHEDULED: ("Time until a message was due.", _WAITS),
    CELERY_WAIT_QUEUE: ("Time in the broker, once due.", _WAITS),
    CELERY_WAIT_PREFETCH: ("Time in the worker before a process was free.", _WAITS),
}


#: Sets of attributes of one instrument beyond this number count as one, marked as overflow: the
#: SDK's own bound.
MAX_SERIES = 2_000

#: How many measurements may wait until they are added up.
MAX_WAITING = 1_024

_CUMULATIVE = AggregationTemporality.CUMULATIVE
_MAX_INT64 = 2**63 - 1

_OVERFLOW = Series((), {"otel.metric.overflow": True})


class Aggregation:
    """The instruments of one *resource*, and their sums since they were made."""

    def __init__(self, resource: Resource) -> None:
        self._resource = resource
        self._since = time.time_ns()
        #: By the name of the instrument, and by the set of attributes.
        self._points: dict[str, dict[frozenset[object], _CountPoint | _HistogramPoint]]
        self._points = {name: {} for name in (*_COUNTERS, *_HISTOGRAMS)}
        self._waiting: list[Measurement] = []

    def add(self, measurement: Measurement) -> None:
        """Add the values of *measurement*."""
        self._waiting.append(measurement)
        if len(self._waiting) >= MAX_WAITING:
            self._settle()

    def _settle(self) -> None:
        """Add up what waits, many at a time, which takes a tenth of the time."""
        by_series: dict[Series, list[Measurement]] = defaultdict(list)
        for measurement in self._waiting:
            by_series[measurement.series].append(measurement)
        self._waiting.clear()
        for series, measurements in by_series.items():
            _, rows, exemplars = zip(*measurements, strict=True)
            for name, values in zip(series.instruments, zip(*rows, strict=True), strict=True):
                self._point(name, series).add(values, exemplars)

    def _point(self, name: str, series: Series) -> "_CountPoint | _HistogramPoint":
        points = self._points[name]
        if series.key not in points and len(points) >= MAX_SERIES:
            series = _OVERFLOW
        if series.key not in points:
            is_count, attributes = name in _COUNTERS, series.attributes
            points[series.key] = (
                _CountPoint(attributes)
                if is_count
                else _HistogramPoint(attributes, _HISTOGRAMS[name][1])
            )
        return points[series.key]

    def collect(self) -> MetricsData | None:
        """Return all sums so far, cumulative. None if nothing was measured.

        Each histogram has an exemplar: the slowest sampled span since the last call.
        """
        self._settle()
        metrics = [self._metric(name) for name, points in self._points.items() if points]
        return _metrics_data(self._resource, metrics) if metrics else None

    def _metric(self, name: str) -> Metric:
        now = time.time_ns()
        points: list[Any] = [
            point.collect(self._since, now) for point in self._points[name].values()
        ]
        if name in _COUNTERS:
            return Metric(name, _COUNTERS[name], "{message}", Sum(points, _CUMULATIVE, True))
        return Metric(name, _HISTOGRAMS[name][0], "s", Histogram(points, _CUMULATIVE))


def spans_dropped(resource: Resource, count: int, since: int) -> MetricsData:
    """Return ``SPANS_DROPPED``: *count* spans since the Unix time *since*, in nanoseconds."""
    point = NumberDataPoint({}, since, time.time_ns(), count)
    total = Sum([point], _CUMULATIVE, True)
    metric = Metric(SPANS_DROPPED, "Spans that will not be delivered.", "{span}", total)
    return _metrics_data(resource, [metric])


def _metrics_data(resource: Resource, metrics: Sequence[Metric]) -> MetricsData:
    hops = hop_scope()
    scope = InstrumentationScope(hops.name, hops.version, hops.schema_url)
    in_scope = ScopeMetrics(scope, metrics, hops.schema_url)
    return MetricsData([ResourceMetrics(resource, [in_scope], resource.schema_url)])


class _CountPoint:
    def __init__(self, attributes: Attributes) -> None:
        self._attributes = dict(attributes)
        self._total = 0

    def add(self, values: Sequence[float], exemplars: Sequence[_Exemplar]) -> None:
        self._total = min(self._total + int(sum(values)), _MAX_INT64)

    def collect(self, since: int, now: int) -> NumberDataPoint:
        return NumberDataPoint(self._attributes, since, now, self._total)


class _HistogramPoint:
    def __init__(self, attributes: Attributes, bounds: Sequence[float]) -> None:
        self._attributes = dict(attributes)
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0
        self._shortest, self._longest = math.inf, -math.inf
        #: The slowest sampled span and its time, if there is one.
        self._slowest: list[tuple[float, Any]] = []

    def add(self, values: Sequence[float], exemplars: Sequence[_Exemplar]) -> None:
        ascending = sorted(values)
        before = 0
        for bucket, bound in enumerate(self._bounds):
            # A bound belongs to the bucket below it.
            until = bisect_right(ascending, bound, before)
            self._counts[bucket] += until - before
            before = until
        self._counts[-1] += len(ascending) - before
        self._sum += sum(ascending)
        self._shortest = min(self._shortest, ascending[0])
        self._longest = max(self._longest, ascending[-1])
        spans = [*self._slowest, *filter(itemgetter(1), zip(values, exemplars, strict=True))]
        self._slowest = [max(spans)] if spans else []

    def collect(self, since: int, now: int) -> HistogramDataPoint:
        slowest = [
            Exemplar({}, value, end, span_id, int.from_bytes(trace_id))
            for value, (trace_id, span_id, end) in self._slowest
        ]
        self._slowest = []
        return HistogramDataPoint(
            self._attributes,
            since,
            now,
            sum(self._counts),
            self._sum,
            tuple(self._counts),
            self._bounds,
            self._shortest,
            self._longest,
            slowest,
        )
