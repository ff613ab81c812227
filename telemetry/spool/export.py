"""The durable export of one process: what ``setup`` starts, flushes and ends."""

import os
from collections.abc import Iterator
from hashlib import sha256

from opentelemetry.sdk.resources import Resource

from ..hop import scope
from ..light import Provider, light
from ..settings import Otlp, Spool
from . import spawn
from .place import Place
from .processor import SpoolProcessor
from .writer import Writer

__all__ = ["DiskExport"]

#: Changes with what is in the files: versions that differ in it do not share a directory.
FORMAT = 4

#: A segment holds this part of all that may wait, and of the time that it may.
PART = 8


class DiskExport:
    """Keeps what *provider* makes, to be sent to *traces* and *metrics*.

    *resource* is what measurements say of the service. Raises OSError where nothing can be kept.
    """

    def __init__(
        self,
        provider: Provider,
        resource: Resource,
        traces: Otlp,
        metrics: Otlp | None,
        spool: Spool,
    ) -> None:
        if spawn.interpreter() is None:
            raise OSError("no Python interpreter to send them is known")
        # Whoever has other credentials, or another collector, has another directory.
        key = sha256(repr((FORMAT, traces, metrics)).encode()).hexdigest()[:16]
        place = Place(spool.directory / key)
        place.make()
        self._place = place
        self._pid = os.getpid()
        self._writer = Writer(
            # A sender keeps it to once the bound.
            place, spool.max_bytes // PART, spool.max_age / PART, 2 * spool.max_bytes,
        )  # fmt: skip
        processor = SpoolProcessor(self._writer, scope(), resource if metrics is not None else None)
        provider.add_span_processor(processor)
        provider.light = light(provider, scope(), processor)
        self.measure = processor.measure
        self._writer.resume()

    def flush(self, timeout: float) -> bool:
        """Have everything delivered; say whether it is, or waits on disk."""
        return self._writer.flush(timeout)

    def kept(self) -> Iterator[bytes]:
        """Yield what this process and its children lately ended, each a ``Span``."""
        return self._writer.kept()

    def trouble(self) -> str:
        """Return what the sender met with last, empty if all was well."""
        try:
            if self._writer.waits() and not self._place.has_sender():
                return "the process that sends them cannot be started, or does not stay"
        except OSError as exc:
            return str(exc)
        return self._place.status().error

    def leave(self) -> None:
        """Nothing is to be done where a process ends: what it wrote is there."""

    def shutdown(self, timeout: float) -> None:
        """Give the sender *timeout* seconds, in the process that has set up."""
        # A container ends with its first process, and the sender with it.
        if os.getpid() == self._pid:
            self._writer.flush(timeout)
