"""The disk's sink: each record is packed and appended as soon as its span has ended."""

import os
from collections.abc import Callable, Iterator
from hashlib import sha256
from typing import Any

from msgspec import MsgspecError, msgpack
from msgspec.structs import astuple
from opentelemetry.sdk.resources import Resource

from ...config.exporter import Otlp
from ...config.settings import Spool
from ...otlp.encode import encode_readable
from ...tracing.faults import logger
from ...tracing.record import Facts, Record, RecordedLog, SpanTemplate, pack
from ...tracing.sink import Sink
from ...tracing.span import readable
from ..outgoing import LOGS, origin_of
from . import frames, spawn
from .directory import SpoolDirectory
from .frames import Definition
from .reader import recent_records
from .watch import Watch
from .writer import Writer

__all__ = ["DiskSink"]

#: Changes with the contents of the files. Versions that differ in it do not share a directory.
FORMAT = 6

#: A segment holds this part of the bytes that may wait, and of the time that they may.
PART = 8

#: Raised for text that is no Unicode, for an integer beyond 64 bits, for nesting without end.
_UNPACKABLE = (MsgspecError, OverflowError, RecursionError, TypeError, ValueError)

#: So many definitions are kept ready: one for each hop, task and queue.
MAX_DEFINITIONS = 4096


class DiskSink(Sink):
    """Writes the records of this process, and of those that it forks, for a sender to deliver.

    *resource* returns the current resource of the process, *in_memory* makes the sink that records
    go to once no sender can be started. Raises OSError where nothing can be written.
    """

    def __init__(
        self,
        resource: Callable[[], Resource],
        instance_is_set: bool,
        traces: Otlp,
        metrics: Otlp | None,
        spool: Spool,
        in_memory: Callable[[], Sink],
        logs: Otlp | None = None,
    ) -> None:
        if spawn.interpreter() is None:
            raise OSError("no Python interpreter is known that could send them")
        self.measures = metrics is not None
        self._logs = logs is not None
        # Other credentials, or another collector, are another directory.
        key = sha256(repr((FORMAT, traces, metrics, logs)).encode()).hexdigest()[:16]
        self._directory = SpoolDirectory(spool.directory / key)
        self._directory.make()
        self._pid = os.getpid()
        self._resource = resource
        self._instance_is_set = instance_is_set
        self._in_memory = in_memory
        self._memory: Sink | None = None
        self._definitions: dict[SpanTemplate, Definition] = {}
        self._watch = Watch(self._directory, self._give_up)
        self._writer = Writer(
            self._directory,
            self._watch,
            size=spool.max_bytes // PART,
            age=spool.max_age / PART,
            most=2 * spool.max_bytes,  # a sender keeps it below once the bound
        )
        os.register_at_fork(after_in_child=self.resource_changed)  # its instance is another one
        self._writer.resume()

    def append(self, template: SpanTemplate, record: Record) -> None:
        """Write *record*, in the calling thread."""
        if self._memory is not None:
            self._memory.append(template, record)
            return
        definition = self._definitions.get(template) or self._define(template)
        try:
            content = pack(record)
        except _UNPACKABLE:
            self._append_encoded(definition, template, record)
        else:
            self._writer.append(frames.RECORD, definition, content)

    def append_log(self, log: RecordedLog) -> None:
        """Write *log*, in the calling thread."""
        if self._memory is not None:
            self._memory.append_log(log)
        elif self._logs:
            definition = self._definitions.get(LOGS) or self._define(LOGS)
            self._writer.append(frames.LOG, definition, pack(log))

    def _append_encoded(
        self, definition: Definition, template: SpanTemplate, record: Record
    ) -> None:
        """Write the span of *record* as the SDK encodes it, and the rest for the metrics."""
        if record.flags & Record.SAMPLED:
            span = encode_readable(readable(template, record, self._resource()))
            self._writer.append(frames.ENCODED_SPAN, definition, span)
        if self.measures and record.facts is not None:
            measured = Record(
                record.trace_id, record.span_id, record.start_time, record.end_time,
                facts=_packable(record.facts),
            )  # fmt: skip
            self._writer.append(frames.RECORD, definition, pack(measured))

    def _define(self, template: SpanTemplate) -> Definition:
        if len(self._definitions) >= MAX_DEFINITIONS:
            self._definitions = {}
        origin = origin_of(self._resource(), template, self._instance_is_set)
        definition = self._definitions[template] = frames.define(msgpack.encode(origin))
        return definition

    def resource_changed(self) -> None:
        self._definitions = {}
        if self._memory is not None:
            self._memory.resource_changed()

    def _give_up(self, reason: str) -> None:
        """Go on in memory, since no sender can be started."""
        if self._directory.may_log("start"):
            logger.warning(
                "the process that sends spans cannot be started (%s): this process sends them from "
                "memory, and loses them if it is killed; what was written before waits in %s",
                reason,
                self._directory.directory,
            )
        if self._memory is None:
            self._memory = self._in_memory()

    def recent_spans(self) -> Iterator[tuple[SpanTemplate, Record]]:
        return recent_records(self._directory, self._writer.segments())

    def flush(self, timeout: float) -> bool:
        on_disk = self._writer.flush(timeout) if self._memory is None else True
        return on_disk and (self._memory is None or self._memory.flush(timeout))

    def last_export_error(self) -> str:
        if self._memory is not None and (error := self._memory.last_export_error()):
            return error
        try:
            # After it gave up, what was written before waits for the next start.
            if self._writer.waits() and not self._directory.has_sender():
                reason = self._directory.crash() or "it cannot be started, or does not stay"
                return f"the process that sends spans is missing: {reason}"
        except OSError as exc:
            return str(exc)
        return self._directory.status().error if self._memory is None else ""

    def before_exit(self) -> None:
        if self._memory is not None:
            self._memory.before_exit()

    def shutdown(self, timeout: float) -> None:
        """Give the sender *timeout* seconds, in the process that has set up."""
        # A container ends with its first process, and the sender with it.
        if os.getpid() == self._pid:
            self.flush(timeout)
        if self._memory is not None:
            self._memory.shutdown(timeout)


def _packable(facts: Facts) -> Facts:
    """Return *facts* without the values that cannot be packed."""

    def left(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(map(left, value))
        try:
            msgpack.encode(value)
        except _UNPACKABLE:
            return None
        return value

    return type(facts)(*map(left, astuple(facts)))
