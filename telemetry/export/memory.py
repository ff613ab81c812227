"""The sink in memory: records wait in their process, and a thread of it sends them.

A connection does not survive a fork. So the sink connects when it first sends, and closes the
connection before a fork. A forked child begins with nothing: its parent sends what it has recorded.
"""

import os
import threading
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future
from functools import lru_cache
from multiprocessing import parent_process
from multiprocessing.util import Finalize
from typing import NamedTuple

from ..config.exporter import Signal, Targets
from ..config.settings import Batch, DeliverySettings
from ..tracing.faults import RateLimit, log_internal_error
from ..tracing.logs import unrecorded
from ..tracing.record import Record, RecordedLog, SpanTemplate
from ..tracing.sink import Sink
from .outgoing import FIELDS, LOGS, AnyRecord, OriginOf, outgoing
from .sender.deliveries import Deliveries
from .sender.delivery import Delivery, Source
from .status import SignalStatus, log_status

#: How many origins are kept: there is one for each hop, task, broker and tracer.
MAX_ORIGINS = 4096

_FULL = {
    "TRACES": "the queue of OTEL_BSP_MAX_QUEUE_SIZE is full",
    "LOGS": "the queue of OTEL_BLRP_MAX_QUEUE_SIZE is full",
}
_STOPPED = "tracing is shut down in this process"


class MemorySink(Sink):
    """Sends the records of this process from a thread of its own."""

    in_memory = True

    def __init__(self, origin_of: OriginOf, targets: Targets, settings: DeliverySettings) -> None:
        self.measures = targets.metrics is not None
        self._targets = targets
        self._settings = settings
        self._origin_of = lru_cache(maxsize=MAX_ORIGINS)(origin_of)
        self._begin()
        os.register_at_fork(
            before=self._pause, after_in_parent=self._resume, after_in_child=self._begin
        )

    def _begin(self) -> None:
        """Begin with nothing, in a new process."""
        self._origin_of.cache_clear()
        self._deliveries = deliveries = Deliveries(self._targets, self._settings)
        self._spans = _Queue("TRACES", deliveries.spans, self._settings.spans, deque())
        self._logs = _Queue("LOGS", deliveries.logs, self._settings.logs, deque())
        self._source = Source()
        self._flushes: deque[Future[bool]] = deque()
        self._wake = threading.Event()
        self._sending = threading.Lock()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._paused = False
        self._stopped = False
        self._may_log = RateLimit()
        #: How many dropped items of each signal have been logged.
        self._counted: Counter[str] = Counter()

    def append(self, template: SpanTemplate, record: Record) -> None:
        """Leave *record* to the thread that sends."""
        self._append(self._spans, template, record)

    def append_log(self, log: RecordedLog) -> None:
        """Leave *log* to the thread that sends."""
        if self._targets.logs is not None:
            self._append(self._logs, LOGS, log)

    def _append(self, queue: "_Queue", template: SpanTemplate, record: AnyRecord) -> None:
        if self._stopped or len(queue.entries) >= queue.batch.max_queue_size:
            queue.delivery.drop(1, _STOPPED if self._stopped else _FULL[queue.signal])
            self._log_status()
            return
        queue.entries.append((template, record))
        if self._thread is None:
            self._start()
        elif len(queue.entries) >= queue.batch.max_export_batch_size:
            self._wake.set()

    def resource_changed(self) -> None:
        self._origin_of.cache_clear()

    def flush(self, timeout: float) -> bool:
        """Send what waits. Return whether all of it was delivered within *timeout* seconds."""
        if self._thread is None or self._stopped:
            return not self._is_left()
        flush: Future[bool] = Future()
        self._flushes.append(flush)
        self._wake.set()
        try:
            return flush.result(timeout)
        except TimeoutError:
            return False

    def last_export_error(self) -> str:
        return self._deliveries.spans.error

    def before_exit(self) -> None:
        self.flush(5.0)

    def shutdown(self, timeout: float) -> None:
        self.flush(timeout)
        self._stopped = True
        self._wake.set()
        self._close()
        # No later line would count what was dropped since the last.
        self._log_status(lambda kind: ".dropped" in kind)

    def _close(self) -> None:
        for transport in self._deliveries.transports:
            transport.close()

    def _pause(self) -> None:
        """Close the connections, and send nothing until ``_resume``."""
        self._paused = self._sending.acquire(timeout=1.0)
        # An export in progress fails: a collector that hangs must not delay a fork.
        self._close()
        if not self._paused:
            self._paused = self._sending.acquire(timeout=1.0)

    def _resume(self) -> None:
        if self._paused:
            self._sending.release()

    def _start(self) -> None:
        # Never wait for this lock: a signal handler may end a span in the middle of this.
        if self._starting.acquire(blocking=False):
            if parent_process() is not None:
                # A child of multiprocessing runs no exit handlers, only finalizers.
                Finalize(None, self.before_exit, exitpriority=0)
            self._thread = threading.Thread(target=self._run, name="queuehop-export", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        unrecorded.set(True)
        while not self._stopped:
            self._wake.wait(min(self._settings.schedule_delay, threading.TIMEOUT_MAX))
            self._wake.clear()
            flushes = [self._flushes.popleft() for _ in range(len(self._flushes))]
            delivered = False
            try:
                with self._sending:
                    delivered = self._deliver(hurry=bool(flushes))
            except Exception:
                log_internal_error("send spans")
            for flush in flushes:
                flush.set_result(delivered)

    def _deliver(self, hurry: bool) -> bool:
        """Send what waits. Return whether nothing waits any more."""
        deliveries = self._deliveries
        for transport in deliveries.transports:
            transport.hold()
        if hurry:
            deliveries.hurry()
        queues = self._spans, self._logs
        for queue in queues:
            self._interpret(queue)
        while deliveries.deliver([self._source]):
            pass
        self._log_status()
        return not any(self._source.waiting[queue.signal].pending for queue in queues)

    def _is_left(self) -> bool:
        """Return whether a span or a log record waits."""
        queues = self._spans, self._logs
        return any(each.entries or self._source.waiting[each.signal].pending for each in queues)

    def _interpret(self, queue: "_Queue") -> None:
        """Interpret the entries of *queue*. After this they wait in the source."""
        waiting = self._source.waiting
        for _ in range(len(queue.entries)):
            template, record = queue.entries.popleft()
            try:
                ready = outgoing(self._origin_of(template), record)
            except Exception as exc:
                queue.delivery.drop(1, f"they cannot be encoded ({type(exc).__name__})")
                continue
            for signal, field in FIELDS.items():
                if (item := getattr(ready, field)) is not None:
                    waiting[signal].pending.append((item, 0))
        pending = waiting[queue.signal].pending
        while len(pending) > queue.batch.max_queue_size:
            pending.popleft()
            queue.delivery.drop(1, _FULL[queue.signal])

    def _log_status(self, may_log: Callable[[str], bool] | None = None) -> None:
        statuses = [
            SignalStatus(each.error, each.dropped, each.reason)
            for each in self._deliveries.by_signal.values()
        ]
        log_status("in memory", statuses, self._counted, may_log or self._may_log)


class _Queue(NamedTuple):
    """The records of *signal* that wait to be interpreted, oldest first."""

    signal: Signal
    delivery: Delivery
    batch: Batch
    entries: deque[tuple[SpanTemplate, AnyRecord]]
