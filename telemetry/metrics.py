"""What the hops count and time where nothing is kept on disk: sent by each process for itself.

Instruments are made by the process that first uses them, and a forked child begins with none: what
its parent has counted is the parent's to send.
"""

import os
import threading
from collections.abc import Callable, Sequence

import grpc
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2_grpc import MetricsServiceStub
from opentelemetry.sdk.metrics.export import MetricsData
from opentelemetry.sdk.resources import Resource

from . import faults
from .channel import hold, open_channel
from .instruments import Instruments
from .series import Series
from .settings import Otlp

__all__ = ["Metrics"]


class Metrics:
    """The instruments of one process and what sends them."""

    def __init__(self, target: Otlp, resource: Callable[[], Resource], interval: float) -> None:
        """*resource* says who this process is; *interval* is in seconds."""
        self._target = target
        self._resource = resource
        self._interval = interval
        self._lock = threading.Lock()
        self._process: _Process | None = None
        os.register_at_fork(
            before=self._before_fork,
            after_in_parent=self._after_fork_in_parent,
            after_in_child=self._after_fork_in_child,
        )

    def record(self, series: Series, values: Sequence[float]) -> None:
        """Count or time *values*, one for each of the names of *series*."""
        try:
            (self._process or self._begin()).record(series, values)
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
            self._process.reader.pause()

    def _after_fork_in_parent(self) -> None:
        if self._process is not None:
            self._process.reader.go_on()

    def _after_fork_in_child(self) -> None:
        self._lock = threading.Lock()
        self._process = None


class _Process:
    """The instruments of this process and what reads them."""

    def __init__(self, target: Otlp, resource: Resource, interval: float) -> None:
        instruments = Instruments(resource)
        self.record = instruments.record
        self.reader = _Reader(instruments, target, interval)
        self.reader.start()


class _Reader:
    """Sends every so often, from a thread of this process.

    The SDK's own goes on by itself in a forked child, with what the parent has counted.
    """

    def __init__(self, instruments: Instruments, target: Otlp, interval: float) -> None:
        self._instruments = instruments
        self._target = target
        self._interval = interval
        self._channel: grpc.Channel | None = None
        self._held: grpc.Channel | None = None
        self._sending = threading.Lock()
        self._paused = False
        self._stopped = threading.Event()
        self._wanted = True
        self._arrived = True  # what was sent last

    def start(self) -> None:
        threading.Thread(target=self._run, name="queuehop-metrics", daemon=True).start()

    def stop(self) -> None:
        self._stopped.set()

    def send(self, timeout: float = 10.0) -> bool:
        """Collect and send, within *timeout* seconds; say whether it arrived."""
        with self._sending:
            self._arrived = True
            if self._wanted and (measured := self._instruments.collect()) is not None:
                self._export(measured, timeout)
            return self._arrived

    def pause(self) -> None:
        """Close the channel and keep everybody from sending; the next send opens another."""
        self._paused = self._sending.acquire(blocking=False)
        if not self._paused:
            self._disconnect()  # a send under way fails, and the next one sends the same again
            self._paused = self._sending.acquire(timeout=1.0)
        self._disconnect()

    def go_on(self) -> None:
        """Let the others send again."""
        if self._paused:
            self._sending.release()

    def _disconnect(self) -> None:
        opened, self._channel = self._channel, None
        if opened is not None:
            opened.close()

    def _run(self) -> None:
        while not self._stopped.wait(self._interval):
            self.send()

    def _export(self, measured: MetricsData, timeout: float) -> None:
        try:
            if self._channel is None:
                self._held = hold(self._target)
                self._channel = open_channel(self._target)
            MetricsServiceStub(self._channel).Export(  # type: ignore[no-untyped-call]
                encode_metrics(measured),
                timeout=min(self._target.timeout, timeout),
                metadata=self._target.headers,
            )
        except grpc.RpcError as exc:
            # One that takes traces alone is not asked again.
            self._wanted = exc.code() is not grpc.StatusCode.UNIMPLEMENTED
            self._arrived = not self._wanted
        except Exception:
            self._arrived = False
            faults.report("send metrics")
