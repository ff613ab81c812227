"""The sink of a process: every finished record is appended to it."""

from collections.abc import Iterator

from .record import Record, RecordedLog, SpanTemplate


class Sink:
    """Receives the records of one process. This base class drops them.

    ``export.spool.disk_sink.DiskSink`` and ``export.memory.MemorySink`` deliver them.
    """

    #: Whether it wants records of spans that are sampled out, for the metrics.
    measures = False
    #: Whether records wait in memory, and are lost if the process is killed.
    in_memory = False

    def append(self, template: SpanTemplate, record: Record) -> None:
        """Accept one finished record. Must not wait for the network."""

    def append_log(self, log: RecordedLog) -> None:
        """Accept one log record. Drop it if there is no target for logs."""

    def resource_changed(self) -> None:
        """Use the new resource of the process from the next record on."""

    def recent_spans(self) -> Iterator[tuple[SpanTemplate, Record]]:
        """Yield the latest records of this process and its children, as far as they outlive it."""
        return iter(())

    def flush(self, timeout: float) -> bool:
        """Return whether all records are delivered or on disk, after *timeout* seconds at most."""
        return True

    def before_exit(self) -> None:
        """Prepare a forked process for its end, if no exit handlers run there."""

    def shutdown(self, timeout: float) -> None:
        """Deliver the remaining records within *timeout* seconds and stop."""

    def last_export_error(self) -> str:
        """Return why records are not delivered now, empty if no failure is known."""
        return ""
