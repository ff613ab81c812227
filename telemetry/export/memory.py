"""The memory's sink: records wait in each process, which sends them itself.

gRPC's channel and its threads do not survive a fork, and two processes cannot share a connection of
HTTP. So it is opened by the process that sends, when it first sends, and closed before it forks. A
forked child begins with nothing: what its parent has recorded is the parent's to send.
"""

import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator

from opentelemetry.sdk.resources import Resource

from ..config.exporter import Otlp
from ..config.settings import Batch
from ..tracing.faults import RateLimit, log_internal_error, logger
from ..tracing.logs import unrecorded
from ..tracing.record import Record, RecordedLog, SpanTemplate
from ..tracing.sink import Sink
from .outgoing import LOGS, Origin, origin_of, outgoing, outgoing_log
from .sender.batch_delivery import BatchDelivery, LogDelivery, SpanDelivery
from .sender.collector import Collector
from .sender.metric_delivery import MetricDelivery
from .sender.segment import Item

__all__ = ["MemorySink"]


class MemorySink(Sink):
    """Sends the records of this process to *traces*, and what they measured to *metrics*.

    Log records are sent to *logs*, as *log_batch* says. *resource* returns the current resource of
    the process. *metric_interval* is in seconds.
    """

    def __init__(
        self,
        resource: Callable[[], Resource],
        instance_is_set: bool,
        traces: Otlp,
        metrics: Otlp | None,
        batch: Batch,
        metric_interval: float,
        logs: Otlp | None = None,
        log_batch: Batch | None = None,
    ) -> None:
        self.measures = metrics is not None
        log_batch = log_batch or batch
        self._settings = (
            *(resource, instance_is_set, traces, metrics, batch, metric_interval),
            *(logs, log_batch),
        )
        self._exporter = _Exporter(*self._settings)
        _at_fork(weakref.ref(self))

    def append(self, template: SpanTemplate, record: Record) -> None:
        """Leave *record* to the thread that sends."""
        self._exporter.append(template, record)

    def append_log(self, log: RecordedLog) -> None:
        """Leave *log* to the thread that sends."""
        self._exporter.append_log(log)

    def resource_changed(self) -> None:
        """Use the new resource of the process for what is not sent yet."""
        self._exporter.origins = {}

    def recent_spans(self) -> Iterator[tuple[SpanTemplate, Record]]:
        """Yield nothing: the records in a child's memory end with it."""
        return iter(())

    def flush(self, timeout: float) -> bool:
        """Send what waits. Return whether all of it was delivered within *timeout* seconds."""
        return self._exporter.flush(timeout)

    def last_export_error(self) -> str:
        """Return why records are not delivered at the moment, empty if they are."""
        return self._exporter.spans.error

    def before_exit(self) -> None:
        """Send what a process would lose that ends without warning."""
        self.flush(5.0)

    def shutdown(self, timeout: float) -> None:
        """Send what is left, for *timeout* seconds at most, and stop."""
        self._exporter.stop(timeout)

    def _after_fork_in_child(self) -> None:
        self._exporter = _Exporter(*self._settings)


def _at_fork(sink: "weakref.ref[MemorySink]") -> None:
    def before() -> None:
        if (there := sink()) is not None:
            there._exporter.pause()

    def after_in_parent() -> None:
        if (there := sink()) is not None:
            there._exporter.resume()

    def after_in_child() -> None:
        if (there := sink()) is not None:
            there._after_fork_in_child()

    os.register_at_fork(
        before=before, after_in_parent=after_in_parent, after_in_child=after_in_child
    )


class _Buffer:
    """What waits for one delivery: a cursor, as ``sender.segment`` has them, over memory."""

    def __init__(self) -> None:
        self.pending: deque[Item] = deque()

    def fill(self, most: int) -> None:
        """Do nothing: everything is pending."""

    def drain(self) -> Iterator[Item]:
        """Yield all items."""
        while self.pending:
            yield self.pending.popleft()

    def acknowledge(self, count: int) -> None:
        """Remove the first *count* items."""
        for _ in range(min(count, len(self.pending))):
            self.pending.popleft()

    def acknowledge_all(self) -> None:
        """Do nothing: drained items are removed already."""


class _Memory:
    """The source of all deliveries."""

    def __init__(self) -> None:
        self.spans = _Buffer()
        self.measurements = _Buffer()
        self.logs = _Buffer()

    def save(self) -> None:
        """Do nothing: there is no disk."""


class _Flush:
    """A flush that somebody waits for."""

    def __init__(self) -> None:
        self.done = threading.Event()
        self.delivered = False


class _Exporter:
    """The records of one process, and the thread that sends them."""

    def __init__(
        self,
        resource: Callable[[], Resource],
        instance_is_set: bool,
        traces: Otlp,
        metrics: Otlp | None,
        batch: Batch,
        metric_interval: float,
        logs: Otlp | None,
        log_batch: Batch,
    ) -> None:
        self._resource = resource
        self._instance_is_set = instance_is_set
        self._batch = batch
        collectors = {traces: Collector(traces)}
        for target in (metrics, logs):
            if target is not None and target not in collectors:
                collectors[target] = Collector(target)
        self._collectors = list(collectors.values())
        self.spans = SpanDelivery(collectors[traces], batch.max_export_batch_size)
        to = collectors[metrics] if metrics is not None else None
        self._metrics = MetricDelivery(to, metric_interval)
        to = collectors[logs] if logs is not None else None
        self._logs = LogDelivery(to, log_batch.max_export_batch_size)
        self._sends_logs = logs is not None
        self._log_batch = log_batch
        self._memory = _Memory()
        self._incoming: deque[tuple[SpanTemplate, Record]] = deque()
        self._incoming_logs: deque[RecordedLog] = deque()
        self.origins: dict[SpanTemplate, Origin] = {}
        self._flushes: deque[_Flush] = deque()
        self._wake = threading.Event()
        self._sending = threading.Lock()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._paused = False
        self._stopped = False
        self._allow = RateLimit()

    def append(self, template: SpanTemplate, record: Record) -> None:
        if self._stopped or len(self._incoming) >= self._batch.max_queue_size:
            self._drop("the queue of OTEL_BSP_MAX_QUEUE_SIZE is full")
            return
        self._incoming.append((template, record))
        self._wake_up(len(self._incoming), self._batch)

    def append_log(self, log: RecordedLog) -> None:
        if not self._sends_logs:
            return
        if self._stopped or len(self._incoming_logs) >= self._log_batch.max_queue_size:
            self._logs.drop(1, "the queue of OTEL_BLRP_MAX_QUEUE_SIZE is full")
            return
        self._incoming_logs.append(log)
        self._wake_up(len(self._incoming_logs), self._log_batch)

    def _wake_up(self, waiting: int, batch: Batch) -> None:
        if self._thread is None:
            self._start()
        elif waiting >= batch.max_export_batch_size:
            self._wake.set()

    def flush(self, timeout: float) -> bool:
        if self._thread is None:
            return not self._incoming and not self._incoming_logs
        flush = _Flush()
        self._flushes.append(flush)
        self._wake.set()
        flush.done.wait(timeout)
        return flush.delivered

    def stop(self, timeout: float) -> None:
        self.flush(timeout)
        self._stopped = True
        self._wake.set()
        for collector in self._collectors:
            collector.close()

    def pause(self) -> None:
        """Close the channels, and let nobody send until ``resume``."""
        self._paused = self._sending.acquire(timeout=1.0)
        # An export under way to a collector that hangs must not hold up the fork: it fails.
        for collector in self._collectors:
            collector.close()
        if not self._paused:
            self._paused = self._sending.acquire(timeout=1.0)

    def resume(self) -> None:
        if self._paused:
            self._sending.release()

    def _start(self) -> None:
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="queuehop-export", daemon=True
                )
                self._thread.start()

    def _run(self) -> None:
        while not self._stopped:
            self._wake.wait(self._batch.schedule_delay / 1000)
            self._wake.clear()
            flushes = [self._flushes.popleft() for _ in range(len(self._flushes))]
            try:
                with self._sending, unrecorded():
                    delivered = self._deliver(hurry=bool(flushes))
            except Exception:
                log_internal_error("send spans")
                delivered = False
            for flush in flushes:
                flush.delivered = delivered
                flush.done.set()

    def _deliver(self, hurry: bool) -> bool:
        """Send what waits. Return whether nothing waits any more."""
        for collector in self._collectors:
            collector.hold()
        deliveries = (self.spans, self._metrics, self._logs)
        if hurry:
            for delivery in deliveries:
                delivery.hurry()
        failures = sum(delivery.failures for delivery in deliveries)
        self._take_in()
        while self.spans.deliver([self._memory]):
            pass
        self._metrics.deliver([self._memory], self.spans.dropped)
        while self._logs.deliver([self._memory]):
            pass
        self._log_dropped("spans", self.spans)
        self._log_dropped("log records", self._logs)
        if self._metrics.error and self._allow("metrics"):
            logger.warning("metrics are not delivered: %s", self._metrics.error)
        failed = sum(delivery.failures for delivery in deliveries) > failures
        return not failed and not self._memory.spans.pending and not self._memory.logs.pending

    def _log_dropped(self, what: str, delivery: BatchDelivery) -> None:
        if delivery.dropped and self._allow(f"{what}: {delivery.reason}"):
            logger.warning("dropped %d %s so far: %s", delivery.dropped, what, delivery.reason)

    def _take_in(self) -> None:
        """Interpret what has come in."""
        spans, measurements = self._memory.spans.pending, self._memory.measurements.pending
        for _ in range(len(self._incoming)):
            template, record = self._incoming.popleft()
            try:
                origin, span, measured, _ = outgoing(self._origin(template), record)
            except Exception as exc:
                self.spans.drop(1, f"they cannot be encoded ({type(exc).__name__})")
                continue
            if span is not None:
                spans.append(Item(origin, span, 0))
            if measured is not None:
                measurements.append(Item(origin, measured, 0))
        while len(spans) > self._batch.max_queue_size:
            spans.popleft()
            self._drop("the queue of OTEL_BSP_MAX_QUEUE_SIZE is full")
        self._take_in_logs()

    def _take_in_logs(self) -> None:
        logs = self._memory.logs.pending
        for _ in range(len(self._incoming_logs)):
            log = self._incoming_logs.popleft()
            try:
                item = outgoing_log(self._origin(LOGS), log)
            except Exception as exc:
                self._logs.drop(1, f"they cannot be encoded ({type(exc).__name__})")
                continue
            logs.append(Item(item.origin, item.log, 0))
        while len(logs) > self._log_batch.max_queue_size:
            logs.popleft()
            self._logs.drop(1, "the queue of OTEL_BLRP_MAX_QUEUE_SIZE is full")

    def _origin(self, template: SpanTemplate) -> Origin:
        origin = self.origins.get(template)
        if origin is None:
            if len(self.origins) >= 4096:
                self.origins = {}
            made = origin_of(self._resource(), template, self._instance_is_set)
            origin = self.origins[template] = made
        return origin

    def _drop(self, reason: str) -> None:
        self.spans.drop(1, reason)
        self._log_dropped("spans", self.spans)
