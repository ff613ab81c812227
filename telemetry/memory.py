"""Export without a disk: spans wait in the memory of each process, which sends them itself."""

import threading
from collections.abc import Iterator, Sequence

from .export import PerProcessExporter, Processor
from .metrics import Metrics
from .sdk import TracerProvider
from .series import Series
from .settings import Batch, Otlp

__all__ = ["MemoryExport"]


class MemoryExport:
    """Sends what *provider* makes to *traces*, in batches, and what is measured to *metrics*."""

    def __init__(
        self,
        provider: TracerProvider,
        traces: Otlp,
        metrics: Otlp | None,
        batch: Batch,
        metric_interval: float,
    ) -> None:
        self._exporter = PerProcessExporter(traces)
        self._processor = Processor(
            self._exporter,
            max_queue_size=batch.max_queue_size,
            schedule_delay_millis=batch.schedule_delay,
            max_export_batch_size=batch.max_export_batch_size,
            export_timeout_millis=batch.export_timeout,
        )
        provider.add_span_processor(self._processor)
        self._metrics: Metrics | None = None
        if metrics is not None:
            # The provider knows after a fork which process it is in.
            self._metrics = Metrics(metrics, lambda: provider.resource, metric_interval)

    def measure(self, series: Series, values: Sequence[float]) -> None:
        """Count or time *values*, one for each of the names of *series*."""
        if self._metrics is not None:
            self._metrics.record(series, values)

    def flush(self, timeout: float) -> bool:
        """Send what waits; say whether all of it arrived."""
        failures = self._exporter.failures
        done: list[bool] = []

        def send() -> None:
            delivered = self._processor.force_flush()
            done.append((self._metrics is None or self._metrics.flush()) and delivered)

        # The SDK's own flush takes no notice of its timeout.
        thread = threading.Thread(target=send, name="queuehop-flush", daemon=True)
        thread.start()
        thread.join(timeout)
        return bool(done and done[0]) and self._exporter.failures == failures

    def kept(self) -> Iterator[bytes]:
        """Yield nothing: what a child had in its memory is gone with it."""
        return iter(())

    def trouble(self) -> str:
        """Return nothing: ``flush`` says itself whether all arrived."""
        return ""

    def leave(self) -> None:
        """Send what a process that ends without warning would take with it."""
        self.flush(5.0)

    def shutdown(self, timeout: float) -> None:
        """Send what is left and stop; a collector that is away is given up after *timeout*."""
        self._processor.shutdown(int(timeout * 1000))
        if self._metrics is not None:
            self._metrics.shutdown()
