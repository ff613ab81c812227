"""The process that delivers what the applications have written, for one destination.

It lives as long as an application that may write, and until everything is delivered. If the
collector is down and no application is left, it ends after a few seconds: the next application
starts another one.
"""

import contextlib
import logging
import os
import resource
import shutil
import signal
import time
from pathlib import Path

from ...config import exporter, settings
from ..spool.directory import SenderStatus, SpoolDirectory, tree_of
from ..spool.spawn import LOCK
from .batch_delivery import LogDelivery, SpanDelivery
from .collector import Collector
from .metric_delivery import MetricDelivery
from .older import count_older_spans
from .segment import Segment, SharedChunks

__all__ = ["main"]

#: Seconds for which undelivered spans keep a sender alive that no application is left for.
LINGER = 5.0

#: Milliseconds between two looks at the segments, unless the environment sets it. The SDK's 5,000
#: are for a thread in every process; here is one process for all.
DELAY = 1000

#: Seconds between two looks, whatever the settings are.
SHORTEST_PAUSE, LONGEST_PAUSE = 0.02, 5.0

#: Descriptors that stay free for gRPC and for files that are open for a moment.
SPARE_FILES = 64

#: Requests between two looks at new segments, at the bounds and at the measurements.
ROUND = 16


class Sender:
    """Delivers what is in *directory* until nothing is left and no process can add to it."""

    def __init__(
        self,
        directory: SpoolDirectory,
        spans: SpanDelivery,
        metrics: MetricDelivery,
        logs: LogDelivery,
        bounds: settings.Spool,
        pause: float,
    ) -> None:
        """*pause* is the seconds between two looks at the segments."""
        self._directory = directory
        self._spans = spans
        self._metrics = metrics
        self._logs = logs
        self._bounds = bounds
        self._pause = min(max(pause, SHORTEST_PAUSE), LONGEST_PAUSE)
        self._segments: dict[str, Segment] = {}
        self._closed: list[str] = []  # beyond the number that may be open
        self._unreadable: dict[str, str] = {}  # the reason why, by the name
        self._shared: SharedChunks = {}
        self._most = _most_open()
        self._before = self._written = directory.status()
        self._alone_since: float | None = None

    def run(self) -> None:
        """Deliver. Return when there is no more to do."""
        with self._directory.listen() as wake_ups:
            while self._directory.is_locked_by(LOCK):
                self._look()
                more = self._deliver()
                self._write_status()
                if self._is_over():
                    return
                if wake_ups.wait(0.0 if more else self._pause):
                    self._spans.hurry()
                    self._metrics.hurry()
                    self._logs.hurry()

    def _look(self) -> None:
        """Open new segments, and drop what is in those that are too old or too many."""
        names, others = self._directory.scan()
        self._unreadable |= dict.fromkeys(others, "not a regular file")
        for name in self._unreadable.keys() - set(names) - set(others):
            del self._unreadable[name]
        for name in self._segments.keys() - set(names):
            self._segments.pop(name).close()
        known = self._segments.keys() | self._unreadable.keys()
        closed = [name for name in names if name not in known]
        room = self._most - len(self._segments)
        for name in closed[:room]:
            try:
                self._segments[name] = Segment(self._directory, name, self._shared)
            except FileNotFoundError:  # a writer has removed it
                pass
            except OSError as exc:
                self._unreadable[name] = exc.strerror or str(exc)
        self._closed = closed[room:]
        waiting = sum(segment.undelivered for segment in self._segments.values())
        oldest = time.time() - self._bounds.max_age
        for segment in self._segments.values():
            size = segment.undelivered
            if size and segment.written < oldest:
                self._give_up(segment, f"older than {self._bounds.max_age:g} seconds")
                waiting -= size
            elif size and waiting > self._bounds.max_bytes:
                self._give_up(segment, f"more than {self._bounds.max_bytes} bytes wait")
                waiting -= size

    def _give_up(self, segment: Segment, reason: str) -> None:
        spans, logs = segment.give_up()
        self._spans.drop(spans, reason)
        self._logs.drop(logs, reason)

    def _deliver(self) -> bool:
        """Send what waits, for a while. Return whether there is more."""
        segments = list(self._segments.values())
        more = all(self._spans.deliver(segments) for _ in range(ROUND))
        more |= all(self._logs.deliver(segments) for _ in range(ROUND))
        self._metrics.deliver(segments, self._spans.dropped)
        for segment in segments:
            self._spans.drop(segment.take_unreadable(), "damaged, or of an unknown kind")
            if segment.error:
                self._unreadable[segment.name] = segment.error
                self._segments.pop(segment.name).close()
        self._remove_done()
        return more

    def _remove_done(self) -> None:
        """Remove what is delivered, except the newest segment of each living tree of processes.

        There a worker's main process finds the spans that a killed child had ended.
        """
        newest = {tree_of(name): name for name in sorted(self._segments)}
        alive = {tree_of(name) for name, segment in self._segments.items() if segment.is_held()}
        for name, segment in list(self._segments.items()):
            if newest[tree_of(name)] == name and tree_of(name) in alive:
                continue
            if segment.remove_if_done():
                self._segments.pop(name).close()

    def _write_status(self) -> None:
        status = SenderStatus(
            self._before.failures
            + sum(each.failures for each in (self._spans, self._metrics, self._logs)),
            self._spans.error,
            self._before.dropped + self._spans.dropped,
            self._spans.reason or self._before.reason,
            "; ".join(
                f"{_printable(name)}: {reason}"
                for name, reason in sorted(self._unreadable.items())[:10]
            ),
            self._metrics.error,
            self._logs.error,
            self._before.dropped_logs + self._logs.dropped,
            self._logs.reason or self._before.log_reason,
        )
        if status != self._written:
            with contextlib.suppress(OSError):  # a full disk: the next time will do
                self._directory.write_status(status)
                self._written = status

    def _is_over(self) -> bool:
        """Return whether no process is left that writes, and all is delivered or cannot be."""
        if not self._segments:
            return self._unreadable.keys() >= set(self._directory.segments())
        if self._is_written():
            self._alone_since = None
            return False
        if self._alone_since is None:
            self._alone_since = time.monotonic()
            self._metrics.hurry()
        deliveries = (self._spans, self._metrics, self._logs)
        last = max(self._alone_since, *(each.delivered_at for each in deliveries))
        return time.monotonic() > last + LINGER

    def _is_written(self) -> bool:
        """Return whether a process may still write. The newest segments are tried first."""
        return any(map(self._directory.is_written, reversed(self._closed))) or any(
            segment.is_held() for segment in reversed(self._segments.values())
        )


def main(path: str) -> None:
    """Be the sender of the directory at *path*, whose lock is open as descriptor ``LOCK``."""
    # Whoever stops all processes of a service stops this one too: it ends after the others.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # Nobody reads it here: the application has logged the settings, and the status has the rest.
    # Its standard error, where the log would go, is a file without a bound.
    logging.disable()
    directory = SpoolDirectory(Path(path))
    try:
        _deliver(directory)
    except Exception as exc:
        status = directory.status()._replace(error=f"the sender ended: {type(exc).__name__}: {exc}")
        with contextlib.suppress(OSError):
            directory.write_status(status)
        raise  # its standard error is a file


def _deliver(directory: SpoolDirectory) -> None:
    target, bounds = exporter.otlp(), settings.spool()
    if target is None or bounds is None:
        return
    collector = Collector(target)
    batch = settings.batch(schedule_delay=DELAY)

    def collector_of(other: exporter.Otlp | None) -> Collector | None:
        if other is None:
            return None
        return collector if other == target else Collector(other)

    spans = SpanDelivery(collector, batch.max_export_batch_size)
    to = collector_of(exporter.metrics_target(target))
    metrics = MetricDelivery(to, settings.metric_interval())
    to = collector_of(exporter.logs_target(target))
    logs = LogDelivery(to, settings.log_batch().max_export_batch_size)
    os.chdir("/")  # keeps no file system busy
    older = count_older_spans(directory)
    spans.drop(older, "written by an older version of queuehop, in another format")
    _sweep(directory, bounds.max_age)
    Sender(directory, spans, metrics, logs, bounds, batch.schedule_delay / 1000).run()


def _printable(name: str) -> str:
    """Return the *name* of a file, which may have any bytes, as text for the log."""
    return name if name.isprintable() else ascii(name)


def _most_open() -> int:
    """Return how many segments may be open: the descriptors of this process, less a few."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # where hard is more than there may be
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    return 65_536 if soft == resource.RLIM_INFINITY else max(soft - SPARE_FILES, 1)


def _sweep(directory: SpoolDirectory, max_age: float) -> None:
    """Remove the directories of other destinations that are too old."""
    for other in directory.others():
        with contextlib.suppress(OSError):
            if other.is_abandoned(time.time() - max_age):
                shutil.rmtree(other.directory, ignore_errors=True)
