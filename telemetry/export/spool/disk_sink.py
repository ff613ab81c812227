"""The sink for the disk: it packs and appends each record as soon as its span has ended."""

import os
from collections.abc import Callable, Iterator
from functools import lru_cache
from hashlib import sha256

from msgspec import msgpack

from ...config.exporter import Targets
from ...config.settings import Spool
from ...tracing.faults import logger
from ...tracing.record import Record, RecordedLog, SpanTemplate, pack
from ...tracing.sink import Sink
from ..outgoing import LOGS, OriginOf
from . import frames, spawn
from .directory import SpoolDirectory
from .reader import recent_records
from .watch import Watch
from .writer import Writer

#: The format of the files. Versions with another format use another directory.
FORMAT = 7

#: How many definitions are kept: there is one for each hop, task, broker and tracer.
MAX_DEFINITIONS = 4096


class DiskSink(Sink):
    """Writes the records of this process, and of those that it forks, for a sender to deliver.

    *in_memory* makes the sink to use once no sender can be started. Raises OSError if the directory
    cannot be written.
    """

    def __init__(
        self,
        origin_of: OriginOf,
        targets: Targets,
        spool: Spool,
        in_memory: Callable[[], Sink],
    ) -> None:
        if spawn.interpreter() is None:
            raise OSError("no Python interpreter is found to run the sender")
        self.measures = targets.metrics is not None
        self._logs = targets.logs is not None
        # Each collector, and each set of credentials, has a directory of its own.
        key = sha256(repr((FORMAT, *targets)).encode()).hexdigest()[:16]
        self._directory = SpoolDirectory(spool.directory / key)
        self._directory.make()
        self._pid = os.getpid()
        self._in_memory = in_memory
        self._gave_up = False
        self._memory = Sink()  # it drops records, and is replaced by ``_give_up``
        self._definition_of = lru_cache(maxsize=MAX_DEFINITIONS)(
            lambda template: frames.define(msgpack.encode(origin_of(template)))
        )
        watch = Watch(self._directory, self._give_up)
        self._writer = Writer(self._directory, watch, spool)
        # A child is another instance of the service.
        os.register_at_fork(after_in_child=self.resource_changed)
        if any(map(self._directory.size, self._directory.segments())):
            watch.ensure_sender()  # for the records that other processes have left

    def append(self, template: SpanTemplate, record: Record) -> None:
        """Write *record*, in the calling thread."""
        if self._gave_up:
            self._memory.append(template, record)
            return
        self._writer.append(frames.RECORD, self._definition_of(template), pack(record))

    def append_log(self, log: RecordedLog) -> None:
        """Write *log*, in the calling thread."""
        if self._gave_up:
            self._memory.append_log(log)
        elif self._logs:
            self._writer.append(frames.LOG, self._definition_of(LOGS), pack(log))

    def resource_changed(self) -> None:
        self._definition_of.cache_clear()
        self._memory.resource_changed()

    def _give_up(self, reason: str) -> None:
        """Continue in memory, since no sender can be started."""
        if self._directory.sender_files.may_log("start"):
            logger.warning(
                "the process that sends spans cannot be started (%s): this process sends them from "
                "memory, and loses them if it is killed; earlier spans wait in %s",
                reason,
                self._directory.path,
            )
        if not self._gave_up:
            self._memory = self._in_memory()
            self._gave_up = True

    def recent_spans(self) -> Iterator[tuple[SpanTemplate, Record]]:
        return recent_records(self._directory, self._writer.segments())

    def flush(self, timeout: float) -> bool:
        is_on_disk = self._gave_up or self._writer.flush(timeout)
        # The writer may have found that no sender can be started.
        return is_on_disk and self._memory.flush(timeout)

    def last_export_error(self) -> str:
        if error := self._memory.last_export_error() or self._writer.error:
            return error
        files = self._directory.sender_files
        try:
            # Also if this process now sends from memory: what it wrote before waits.
            if self._writer.has_undelivered() and not files.is_running():
                reason = files.crash() or "it cannot be started, or ends at once"
                return f"the process that sends spans is missing: {reason}"
        except OSError as exc:
            return str(exc)
        return "" if self._gave_up else files.status().signals[0].error

    def before_exit(self) -> None:
        self._writer.finish()
        self._memory.before_exit()

    def shutdown(self, timeout: float) -> None:
        """Wait *timeout* seconds at most for the sender, in the process that has set up."""
        # A container ends with its first process, and so does the sender in it.
        if os.getpid() == self._pid:
            self.flush(timeout)
        self._writer.finish()
        self._memory.shutdown(timeout)
