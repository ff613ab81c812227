"""What the hops count and time, for this process alone, sent over OTLP/gRPC.

Instruments are made by the process that first uses them, and a forked child begins with none: what
its parent has counted is the parent's to send.
"""

import os
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import grpc
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2_grpc import MetricsServiceStub
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, MetricsData
from opentelemetry.sdk.resources import Resource
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
from opentelemetry.util.types import AttributeValue

from . import faults
from .export import channel
from .hop import SCHEMA_URL, SCOPE, version
from .settings import Otlp

__all__ = ["Metrics"]

Attributes = Mapping[str, AttributeValue]

#: Seconds, as the conventions advise for every duration of theirs.
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
    "celery.wait.scheduled": ("Time until a message was due.", _WAITS),
    "celery.wait.queue": ("Time in the broker, once due.", _WAITS),
    "celery.wait.prefetch": ("Time in the worker before a process was free.", _WAITS),
}


class Metrics:
    """The instruments of one process and what sends them."""

    def __init__(self, target: Otlp, resource: Callable[[], Resource], interval: float) -> None:
        """*resource* says who this process is; *interval* is in seconds."""
        self._target = target
        self._resource = resource
        self._interval = interval
        self._lock = threading.Lock()
        self._process: _Process | None = None
        os.register_at_fork(before=self._before_fork, after_in_child=self._after_fork_in_child)

    def record(self, values: Mapping[str, float], attributes: Attributes) -> None:
        """Count or time what *values* names, under *attributes*."""
        try:
            (self._process or self._begin()).record(values, attributes)
        except Exception:
            faults.report("record a metric")

    def flush(self) -> bool:
        """Send what has been recorded; say whether it arrived."""
        return self._process is None or self._process.reader.send()

    def shutdown(self) -> None:
        """Send what has been recorded, and no more after that."""
        if self._process is not None:
            self._process.reader.stop()
            self._process.reader.send(timeout=2.0)

    def _begin(self) -> "_Process":
        with self._lock:
            if self._process is None:
                self._process = _Process(self._target, self._resource(), self._interval)
            return self._process

    def _before_fork(self) -> None:
        if self._process is not None:
            self._process.reader.disconnect()

    def _after_fork_in_child(self) -> None:
        self._lock = threading.Lock()
        self._process = None


class _Process:
    """A meter provider of this process' own, with every instrument that the hops use."""

    def __init__(self, target: Otlp, resource: Resource, interval: float) -> None:
        self.reader = _Reader(target, interval)
        provider = MeterProvider([self.reader], resource, shutdown_on_exit=False)
        meter = provider.get_meter(SCOPE, version(), SCHEMA_URL)
        self._record: dict[str, Callable[[float, Attributes], None]] = {
            name: meter.create_counter(name, "{message}", description).add
            for name, description in _COUNTERS.items()
        }
        for name, (description, bounds) in _HISTOGRAMS.items():
            self._record[name] = meter.create_histogram(
                name, "s", description, explicit_bucket_boundaries_advisory=bounds
            ).record
        self.reader.start()

    def record(self, values: Mapping[str, float], attributes: Attributes) -> None:
        for name, value in values.items():
            self._record[name](value, attributes)


class _Reader(MetricReader):
    """Sends every so often, from a thread of this process.

    The SDK's own goes on by itself in a forked child, with what the parent has counted.
    """

    def __init__(self, target: Otlp, interval: float) -> None:
        super().__init__()
        self._target = target
        self._interval = interval
        self._channel: grpc.Channel | None = None
        self._sending = threading.Lock()
        self._stopped = threading.Event()
        self._wanted = True
        self._arrived = True

    def start(self) -> None:
        threading.Thread(target=self._run, name="queuehop-metrics", daemon=True).start()

    def stop(self) -> None:
        self._stopped.set()

    def send(self, timeout: float = 10.0) -> bool:
        """Collect and send, within *timeout* seconds; say whether it arrived."""
        with self._sending:
            self._arrived = True
            self.collect(timeout_millis=timeout * 1000)
            return self._arrived

    def disconnect(self) -> None:
        """Close the channel; the next send opens another."""
        # A send under way keeps its channel: it fails, and the next one sends the same again.
        opened, self._channel = self._channel, None
        if opened is not None:
            opened.close()

    def _run(self) -> None:
        while not self._stopped.wait(self._interval):
            self.send()

    def _receive_metrics(
        self, metrics_data: MetricsData | Iterable[Any], timeout_millis: float = 10_000, **_: Any
    ) -> None:
        if not self._wanted or not isinstance(metrics_data, MetricsData):
            return
        try:
            if self._channel is None:
                self._channel = channel(self._target)
            MetricsServiceStub(self._channel).Export(  # type: ignore[no-untyped-call]
                encode_metrics(metrics_data),
                timeout=min(self._target.timeout, timeout_millis / 1000),
                metadata=self._target.headers,
            )
        except grpc.RpcError as exc:
            # One that takes traces alone is not asked again.
            self._wanted = exc.code() is not grpc.StatusCode.UNIMPLEMENTED
            self._arrived = not self._wanted
        except Exception:
            self._arrived = False
            faults.report("send metrics")

    def shutdown(self, timeout_millis: float = 30_000, **_: Any) -> None:
        """Stop the thread."""
        self.stop()
