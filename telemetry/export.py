"""The last step: spans leave the process over OTLP/gRPC.

gRPC's channel and its threads do not survive a fork. So the channel is opened by the process that
sends, when it first sends, and closed before it forks. What of gRPC is still up at that moment its
own fork support sees to; it must be asked for before gRPC is loaded.
"""

import logging
import os
import threading
import weakref
from collections.abc import Callable, Sequence

os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "true")

import grpc
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from . import faults
from .channel import compression, credentials, hold
from .settings import Otlp

__all__ = ["PerProcessExporter", "Processor"]

#: Where the SDK's exporter says, at each try, that the collector is away.
_EXPORTER_LOGGER = "opentelemetry.exporter.otlp.proto.grpc.exporter"


class _OnceAMinute(logging.Filter):
    """Lets each kind of line pass once a minute."""

    def __init__(self) -> None:
        super().__init__()
        self._allow = faults.RateLimit()

    def filter(self, record: logging.LogRecord) -> bool:
        return self._allow(str(record.msg))


class Processor(BatchSpanProcessor):
    """The SDK's batches, with an end that can be bounded: its own shutdown waits 30 seconds."""

    def shutdown(self, timeout_millis: int = 5000) -> None:
        """Send what is left; after *timeout_millis* give up, cancelling what is under way."""
        self._batch_processor.shutdown(timeout_millis)


class PerProcessExporter(SpanExporter):
    """An OTLP/gRPC exporter that a fork cannot break."""

    def __init__(self, target: Otlp) -> None:
        self.failures = 0
        self._target = target
        self._exporter: SpanExporter | None = None
        self._held: grpc.Channel | None = None
        self._lock = threading.Lock()
        logging.getLogger(_EXPORTER_LOGGER).addFilter(_OnceAMinute())
        this = weakref.ref(self)
        os.register_at_fork(
            before=lambda: _call(this(), PerProcessExporter._before_fork),
            after_in_parent=lambda: _call(this(), PerProcessExporter._after_fork),
            after_in_child=lambda: _call(this(), PerProcessExporter._after_fork),
        )

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send *spans*; what fails is counted in ``failures``."""
        with self._lock:
            if self._exporter is None:
                self._held = hold(self._target)
                self._exporter = _connect(self._target)
            result = self._exporter.export(spans)
        self.failures += result is not SpanExportResult.SUCCESS
        return result

    def shutdown(self) -> None:
        """Close the channel; an export under way is cancelled."""
        if (exporter := self._exporter) is not None:
            exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Return True: nothing waits here."""
        return True

    def _before_fork(self) -> None:
        # An export under way to a collector that hangs must not hold up the fork.
        if not self._lock.acquire(timeout=1.0):
            self.shutdown()
            self._lock.acquire()
        self.shutdown()
        self._exporter = None

    def _after_fork(self) -> None:
        # The forking thread took the lock and is the one that runs here, in the child too.
        self._lock.release()


def _call(
    exporter: PerProcessExporter | None, method: Callable[[PerProcessExporter], None]
) -> None:
    if exporter is not None:
        method(exporter)


def _connect(target: Otlp) -> SpanExporter:
    return OTLPSpanExporter(
        endpoint=target.endpoint,
        insecure=target.insecure,
        credentials=credentials(target),
        headers=target.headers,
        timeout=target.timeout,
        compression=compression(target),
    )
