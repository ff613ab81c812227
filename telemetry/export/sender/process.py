"""The process that delivers the records of all applications to one destination.

It lives as long as an application that may write, and until everything is delivered. If the
collector is down and no application is left, it ends after a few seconds. The next application
starts another one.
"""

import contextlib
import fcntl
import logging
import os
import resource
import shutil
import signal
import time
from pathlib import Path

from ...config import exporter, settings
from ..spool.directory import SpoolDirectory, tree_of
from ..spool.sender_files import SenderStatus, wait
from ..spool.spawn import LOCK
from ..status import SignalStatus
from .deliveries import Deliveries
from .delivery import Delivery
from .older import count_older_spans
from .segment import LatestChunks, Segment

#: Seconds that a sender waits for the collector if no application is left, before its last try.
LINGER = 5.0

#: Seconds between two looks at the segments, whatever the settings are.
SHORTEST_PAUSE, LONGEST_PAUSE = 0.02, 5.0

#: Descriptors that stay free, for gRPC and for files that are open for a moment.
SPARE_FILES = 64


class Sender:
    """Delivers what is in *directory* until nothing is left and no process can add to it."""

    def __init__(
        self,
        directory: SpoolDirectory,
        deliveries: Deliveries,
        spool: settings.Spool,
        pause: float,
    ) -> None:
        """*pause* is the seconds between two looks at the segments."""
        self._directory = directory
        self._deliveries = deliveries
        self._spool = spool
        self._pause = min(max(pause, SHORTEST_PAUSE), LONGEST_PAUSE)
        self._segments: dict[str, Segment] = {}
        self._unopened: list[str] = []  # beyond the number that may be open
        self._unreadable: dict[str, str] = {}  # by name, with the reason
        self._latest: LatestChunks = {}
        self._most = _most_open()
        self._before = self._written = directory.sender_files.status()
        self._alone_since: float | None = None
        self._is_last_try = False

    def run(self) -> None:
        """Deliver. Return when there is no more to do."""
        files = self._directory.sender_files
        listening = files.listen()
        while files.is_locked_by(LOCK):
            self._look()
            more = self._deliver()
            self._write_status()
            if self._is_over() and self._release():
                return
            if wait(listening, 0.0 if more else self._pause):
                self._deliveries.hurry()

    def _look(self) -> None:
        """Open new segments. Drop the records of segments that are too old or too many."""
        names, others = self._directory.scan()
        self._unreadable |= dict.fromkeys(others, "not a regular file")
        for name in self._unreadable.keys() - set(names) - set(others):
            del self._unreadable[name]
        for name in self._segments.keys() - set(names):
            self._segments.pop(name).close()
        known = self._segments.keys() | self._unreadable.keys()
        unopened = [name for name in names if name not in known]
        room = self._most - len(self._segments)
        for name in unopened[:room]:
            try:
                # A flush that sees its records delivered then reads a status that knows it.
                self._segments[name] = Segment(
                    self._directory, name, self._latest, self._write_status
                )
            except FileNotFoundError:  # a writer has removed it
                pass
            except OSError as exc:
                self._unreadable[name] = exc.strerror or str(exc)
        self._unopened = unopened[room:]
        waiting = sum(segment.undelivered for segment in self._segments.values())
        oldest = time.time() - self._spool.max_age
        for segment in self._segments.values():
            size = segment.undelivered
            if size and segment.written_at < oldest:
                self._drop(*segment.give_up(), f"older than {self._spool.max_age:g} seconds")
                waiting -= size
            elif size and waiting > self._spool.max_bytes:
                self._drop(*segment.give_up(), f"more than {self._spool.max_bytes} bytes wait")
                waiting -= size
        if sum(segment.unmeasured for segment in self._segments.values()) > self._spool.max_bytes:
            for segment in self._segments.values():  # what was read of them is in the sums
                segment.waiting["METRICS"].acknowledge()

    def _drop(self, spans: int, logs: int, reason: str) -> None:
        self._deliveries.spans.drop(spans, reason)
        self._deliveries.logs.drop(logs, reason)

    def _deliver(self) -> bool:
        """Send what waits, for a while. Return whether there is more."""
        segments = list(self._segments.values())
        more = self._deliveries.deliver(segments)
        for segment in segments:
            self._drop(*segment.take_unreadable(), "damaged, or of an unknown kind")
            if segment.error:
                self._unreadable[segment.name] = segment.error
                self._segments.pop(segment.name).close()
        self._remove_done()
        return more

    def _remove_done(self) -> None:
        """Remove delivered segments, except the newest of each tree with a living process.

        In that segment, a worker's main process finds the last spans of a killed child.
        """
        newest = {tree_of(name): name for name in sorted(self._segments)}
        alive = {tree_of(name) for name, segment in self._segments.items() if segment.has_writer()}
        for name, segment in list(self._segments.items()):
            if newest[tree_of(name)] == name and tree_of(name) in alive:
                continue
            if segment.remove_if_done():
                self._segments.pop(name).close()

    def _write_status(self) -> None:
        traces, metrics, logs = map(
            _signal_status, self._before.signals, self._deliveries.by_signal.values()
        )
        unreadable = [  # a name may have any bytes
            f"{name if name.isprintable() else ascii(name)}: {reason}"
            for name, reason in sorted(self._unreadable.items())[:10]
        ]
        status = SenderStatus(
            self._before.failures + self._deliveries.failures,
            "; ".join(unreadable),
            (traces, metrics, logs),
        )
        if status != self._written:
            with contextlib.suppress(OSError):  # a full disk: the next call tries again
                self._directory.sender_files.write_status(status)
                self._written = status

    def _is_over(self) -> bool:
        """Return whether no process can write, and everything is delivered or cannot be."""
        if not self._segments:
            return self._unreadable.keys() >= set(self._directory.segments())
        if self._has_writer():
            self._alone_since = None
            return False
        if self._alone_since is None:
            self._alone_since = time.monotonic()
            self._deliveries.metrics.hurry()
        if time.monotonic() <= LINGER + max(self._alone_since, self._deliveries.delivered_at):
            self._is_last_try = False
        elif not self._is_last_try:  # the time may have passed in one request, or in a stall
            self._is_last_try = True
            self._deliveries.hurry()
        else:
            return True
        return False

    def _release(self) -> bool:
        """Unlock the directory. Return whether this sender may end.

        It may not if a process has begun a segment since the last look: that process saw the lock
        and started no sender.
        """
        fcntl.flock(LOCK, fcntl.LOCK_UN)
        known = self._segments.keys() | self._unreadable.keys() | set(self._unopened)
        if known >= set(self._directory.segments()):
            return True
        try:
            fcntl.flock(LOCK, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # another sender has been started
            return True
        return False

    def _has_writer(self) -> bool:
        """Return whether a process may still write. Try the newest segments first."""
        return any(map(self._directory.has_writer, reversed(self._unopened))) or any(
            segment.has_writer() for segment in reversed(self._segments.values())
        )


def main(path: str) -> None:
    """Be the sender of the directory at *path*. Its lock is open as descriptor ``LOCK``."""
    # If all processes of a service are stopped by a signal, the sender ends after the others.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # The application has logged problems of the settings, and reports the status. The log would go
    # into the file of the standard error, which has no bound.
    logging.disable()
    directory = SpoolDirectory(Path(path))
    targets, spool = exporter.targets(), settings.spool()
    if targets is None or spool is None:
        return
    delivery_settings = settings.delivery()
    deliveries = Deliveries(targets, delivery_settings)
    os.chdir("/")  # so that no file system is in use
    older = count_older_spans(directory)
    deliveries.spans.drop(older, "written by an older version of queuehop, in another format")
    _sweep(directory, spool.max_age)
    Sender(directory, deliveries, spool, delivery_settings.schedule_delay).run()


def _signal_status(before: SignalStatus, delivery: Delivery) -> SignalStatus:
    """Return the status of *delivery*, which counts on from *before*."""
    dropped = before.dropped + delivery.dropped
    return SignalStatus(delivery.error, dropped, delivery.reason or before.reason)


def _most_open() -> int:
    """Return how many segments may be open: the descriptors of this process, less a few."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # the system may allow less than hard
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    return 65_536 if soft == resource.RLIM_INFINITY else max(soft - SPARE_FILES, 1)


def _sweep(directory: SpoolDirectory, max_age: float) -> None:
    """Remove the directories of other destinations that nobody has used for *max_age* seconds."""
    for other in directory.others():
        with contextlib.suppress(OSError):
            if other.is_abandoned(time.time() - max_age):
                shutil.rmtree(other.path, ignore_errors=True)
