"""The sums of measurements are those of the SDK's own meters."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, MetricsData
from opentelemetry.sdk.resources import Resource

from telemetry.export.aggregation import MAX_SERIES, Aggregation
from telemetry.tracing.measurements import Measurement, Series

from ...tiers import examples

RESOURCE = Resource({"service.name": "shop"}, "https://opentelemetry.io/schemas/1.40.0")
CONSUMED, DURATION = "messaging.client.consumed.messages", "messaging.process.duration"
WAIT = "celery.wait.queue"
NAMES = (CONSUMED, DURATION, WAIT)
DURATIONS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
WAITS = (*DURATIONS, 30, 60, 300, 900, 3600)

seconds = st.one_of(st.sampled_from([0.0, 0.005, 1, 10, 3600]), st.floats(0, 1e6))
tasks = st.sampled_from(
    [
        {"celery.task.name": "ping", "server.port": 6379},
        {"server.port": 6379, "celery.task.name": "ping"},
        {"celery.task.name": "ping", "server.port": 6379, "error.type": "LookupError"},
        {},
    ]
)
records = st.lists(st.tuples(st.integers(1, 3), seconds, seconds, tasks), max_size=20)


@given(records)
@examples(300)
def test_the_points_are_those_of_the_sdk(records: list[tuple[int, float, float, Any]]) -> None:
    reader = InMemoryMetricReader()
    meter = MeterProvider([reader], RESOURCE, shutdown_on_exit=False).get_meter("any")
    counter = meter.create_counter(CONSUMED, "{message}", "")
    times = [
        meter.create_histogram(name, "s", "", explicit_bucket_boundaries_advisory=bounds)
        for name, bounds in ((DURATION, DURATIONS), (WAIT, WAITS))
    ]
    aggregation = Aggregation(RESOURCE)
    # A series is compared by identity: one for each way of writing it down, as in ``interpret``.
    known: dict[str, Series] = {}
    for count, duration, wait, attributes in records:
        counter.add(count, attributes)
        for histogram, value in zip(times, (duration, wait), strict=True):
            histogram.record(value, attributes)
        series = known.setdefault(repr(attributes), Series(NAMES, attributes))
        aggregation.add(Measurement(series, (count, duration, wait)))
    assert points(aggregation.collect()) == points(reader.get_metrics_data())


def points(data: MetricsData | None) -> dict[str, Any]:
    """Return the points without their times and order, by the name of the instrument."""
    if data is None:
        return {}
    [resource] = data.resource_metrics
    [scope] = resource.scope_metrics
    return {
        metric.name: (
            metric.unit,
            metric.data.aggregation_temporality,
            {
                frozenset(point.attributes.items()): replace(
                    point,
                    attributes={},
                    start_time_unix_nano=0,
                    time_unix_nano=0,
                    exemplars=[],
                    # The order of an addition changes the last digits.
                    **({"sum": pytest.approx(point.sum)} if hasattr(point, "sum") else {}),
                )
                for point in metric.data.data_points
            },
        )
        for metric in scope.metrics
    }


def test_too_many_sets_of_attributes_count_as_one() -> None:
    aggregation = Aggregation(RESOURCE)
    for number in range(MAX_SERIES + 50):
        series = Series([CONSUMED], {"celery.task.name": f"task {number}"})
        aggregation.add(Measurement(series, [1]))
    _, _, found = points(aggregation.collect())[CONSUMED]
    assert len(found) == MAX_SERIES + 1
    assert found[frozenset({("otel.metric.overflow", True)})].value == 50


def test_what_is_collected_goes_on_from_what_was() -> None:
    aggregation = Aggregation(RESOURCE)
    assert aggregation.collect() is None
    series = Series((DURATION,), {})
    aggregation.add(Measurement(series, [1.0]))
    first = aggregation.collect()
    aggregation.add(Measurement(series, [3.0]))
    second = aggregation.collect()
    assert first is not None
    assert second is not None
    [before], [after] = (
        data.resource_metrics[0].scope_metrics[0].metrics[0].data.data_points
        for data in (first, second)
    )
    assert (before.count, before.sum, after.count, after.sum) == (1, 1.0, 2, 4.0)
    assert before.start_time_unix_nano == after.start_time_unix_nano
    assert before.time_unix_nano <= after.time_unix_nano


def test_the_exemplar_is_the_slowest_sampled_span_since_the_last_collection() -> None:
    aggregation = Aggregation(RESOURCE)
    series = Series((CONSUMED, WAIT), {})
    for value, span in ((2.0, 7), (9.0, None), (3.0, 8), (1.0, 9)):
        sampled = None if span is None else (bytes(15) + b"\x05", span, 1_000)
        aggregation.add(Measurement(series, (1, value), sampled))
    assert exemplars(aggregation, WAIT) == [(3.0, 5, 8, 1_000)]
    assert exemplars(aggregation, WAIT) == []
    aggregation.add(Measurement(series, (1, 0.5), (bytes(16), 10, 2_000)))
    assert exemplars(aggregation, WAIT) == [(0.5, 0, 10, 2_000)]


def exemplars(aggregation: Aggregation, name: str) -> list[tuple[Any, ...]]:
    data = aggregation.collect()
    assert data is not None
    metrics = data.resource_metrics[0].scope_metrics[0].metrics
    (point,) = next(metric for metric in metrics if metric.name == name).data.data_points
    return [(e.value, e.trace_id, e.span_id, e.time_unix_nano) for e in point.exemplars]
