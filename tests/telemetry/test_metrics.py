"""The metrics of the hops, as a receiver got them."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from telemetry.otlp.receiver import Receiver

from ..conftest import Broker, free_port
from ..processes import Process
from .celery.conftest import Queue, queue
from .test_setup import run

__all__ = ["queue", "run"]


@dataclass(frozen=True)
class Point:
    """The last point of one process, for one metric and one set of attributes."""

    instance: str
    metric: str
    attributes: dict[str, Any]
    count: int
    total: float


def points(receiver: Receiver, metric: str) -> list[Point]:
    last: dict[tuple[str, str], Point] = {}
    for instance, name, attributes, point in _all(receiver):
        if name == metric:
            counted = hasattr(point, "bucket_counts")
            last[instance, str(sorted(attributes.items()))] = Point(
                instance,
                name,
                attributes,
                point.count if counted else point.as_int,
                point.sum if counted else float(point.as_int),
            )
    return list(last.values())


def _all(receiver: Receiver) -> Iterator[tuple[str, str, dict[str, Any], Any]]:
    def plain(pairs: Any) -> dict[str, Any]:
        return {p.key: getattr(p.value, p.value.WhichOneof("value")) for p in pairs}

    for request in receiver.metrics:
        for resource in request.resource_metrics:
            instance = plain(resource.resource.attributes)["service.instance.id"]
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    data = getattr(metric, metric.WhichOneof("data"))
                    for point in data.data_points:
                        yield instance, metric.name, plain(point.attributes), point


def test_a_worker_counts_and_times_what_it_runs(
    queue: Queue, receiver: Receiver, broker: Broker
) -> None:
    worker = queue.worker("prefork")
    for _ in range(4):
        queue.send("add", 1, 2)
    queue.send("fail")
    queue.send("outer")
    queue.spans(*["process add"] * 5, "process fail", "process outer")
    worker.stop()

    by_task: dict[tuple[Any, Any], int] = defaultdict(int)
    for point in points(receiver, "messaging.client.consumed.messages"):
        task = point.attributes["celery.task.name"].rpartition(".")[2]
        by_task[task, point.attributes.get("error.type")] += point.count
    assert by_task == {("add", None): 5, ("fail", "LookupError"): 1, ("outer", None): 1}

    for metric in (
        "messaging.process.duration",
        "celery.wait.scheduled",
        "celery.wait.queue",
        "celery.wait.prefetch",
    ):
        found = points(receiver, metric)
        assert sum(point.count for point in found) == 7, metric
        assert all(0 <= point.total < 60 for point in found)

    (sent,) = points(receiver, "messaging.client.sent.messages")
    assert sent.count == 1
    assert sent.attributes == {
        "celery.task.name": "tests.telemetry.celery.project.add",
        "messaging.destination.name": "celery",
        "messaging.operation.name": "send",
        "messaging.system": "redis",
        "server.address": "127.0.0.1",
        "server.port": broker.port,
    }
    (duration,) = points(receiver, "messaging.client.operation.duration")
    assert duration.count == 1


REQUESTS = """
    import os, telemetry, requests
    from telemetry.requests import traced_session

    telemetry.setup("billing")

    def get(times):
        for _ in range(times):
            try:
                traced_session().get("http://127.0.0.1:1/")
            except requests.ConnectionError:
                pass
        assert telemetry.flush(10)

    get(2)
    if pid := os.fork():
        assert os.waitpid(pid, 0)[1] == 0
    else:
        code = 1
        try:
            get(3)
            code = 0
        finally:
            os._exit(code)
    get(1)
"""


@pytest.mark.parametrize(("spool", "counts"), [("disk", [6]), ("memory", [3, 3])])
def test_what_a_forked_child_does_is_counted_once(
    run: Any, receiver: Receiver, spool: str, counts: list[int]
) -> None:
    run(REQUESTS, QUEUEHOP_SPOOL=spool)
    found = points(receiver, "http.client.request.duration")
    assert sorted(point.count for point in found) == counts
    assert len({point.instance for point in found}) == len(counts)
    assert found[0].attributes == {
        "error.type": "requests.exceptions.ConnectionError",
        "http.request.method": "GET",
        "server.address": "127.0.0.1",
        "server.port": 1,
    }


@pytest.mark.parametrize("value", ["none"])
def test_metrics_can_be_switched_off(run: Any, receiver: Receiver, value: str) -> None:
    run(REQUESTS, OTEL_METRICS_EXPORTER=value)
    assert len(receiver.spans) == 6
    assert receiver.metrics == []


def test_metrics_may_go_elsewhere(run: Any, receiver: Receiver) -> None:
    with Receiver() as elsewhere:
        run(REQUESTS, OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=elsewhere.endpoint)
        assert receiver.metrics == []
        assert elsewhere.spans == []
        assert points(elsewhere, "http.client.request.duration")


@pytest.mark.parametrize("spool", ["disk", "memory"])
def test_a_collector_that_is_away_is_no_trouble(run: Any, spool: str) -> None:
    process: Process = run(
        REQUESTS.replace("assert telemetry.flush(10)", "telemetry.flush(1)"),
        QUEUEHOP_SPOOL=spool,
        OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{free_port()}",
        OTEL_EXPORTER_OTLP_TIMEOUT="1",
    )
    assert "Traceback" not in process.output


def test_spans_that_are_dropped_are_counted(run: Any, receiver: Receiver) -> None:
    run(
        """
        import telemetry
        from opentelemetry import trace

        telemetry.setup("billing")
        for _ in range(2000):
            trace.get_tracer("any").start_span("work").end()
        assert telemetry.flush(10)
        """,
        QUEUEHOP_SPOOL="memory",
        OTEL_BSP_MAX_QUEUE_SIZE="2",
        OTEL_BSP_MAX_EXPORT_BATCH_SIZE="2",
    )
    (dropped,) = points(receiver, "queuehop.spans.dropped")
    assert dropped.count == 2000 - len(receiver.spans) > 0
