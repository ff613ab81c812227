"""The process that delivers what the applications have kept, for one destination.

It lives as long as an application that may write, and until all is delivered. Where the collector
is away and no application is left, it gives up after a few seconds: the next one to start has it
started again.
"""

import contextlib
import os
import resource
import shutil
import signal
import time
from pathlib import Path

from .. import settings
from .collector import Collector
from .measurements import MeasurementDelivery
from .place import Place, Status, tree_of
from .segment import Latest, Segment
from .spans import SpanDelivery
from .spawn import CLAIM

__all__ = ["main"]

#: Seconds for which undelivered spans keep a sender that no application is left for.
LINGER = 5.0

#: Milliseconds between two looks at what is new, unless the environment says otherwise. The SDK's
#: 5,000 are for a thread in every process; here is one process for all.
DELAY = 1000

#: Seconds between two looks, whatever the settings say.
SHORTEST_PAUSE, LONGEST_PAUSE = 0.02, 5.0

#: Files that are kept free for gRPC, and for what is opened for a moment.
SPARE_FILES = 64

#: Requests between two looks for new segments, at the bounds and at what was measured.
ROUND = 16


class Sender:
    """Delivers what is in *place* until nothing is, and nobody can add to it."""

    def __init__(
        self,
        place: Place,
        spans: SpanDelivery,
        measurements: MeasurementDelivery,
        bounds: settings.Spool,
        pause: float,
    ) -> None:
        """*pause* is how many seconds pass between two looks at what is new."""
        self._place = place
        self._spans = spans
        self._measurements = measurements
        self._bounds = bounds
        self._pause = min(max(pause, SHORTEST_PAUSE), LONGEST_PAUSE)
        self._segments: dict[str, Segment] = {}
        self._closed: list[str] = []  # those that are newer than the most that may be open
        self._latest: Latest = {}
        self._most = _most_open()
        self._before = self._said = place.status()
        self._alone_since: float | None = None

    def run(self) -> None:
        """Deliver; return when there is no more to do."""
        with self._place.woken() as wake:
            while self._place.claimed_by(CLAIM):
                self._look()
                more = self._deliver()
                self._say()
                if self._is_over():
                    return
                if wake.wait(0.0 if more else self._pause):
                    self._spans.hurry()
                    self._measurements.hurry()

    def _look(self) -> None:
        """Open the segments that are new; give up what is too old or too much."""
        names = self._place.segments()
        for name in self._segments.keys() - set(names):
            self._segments.pop(name).close()
        closed = [name for name in names if name not in self._segments]
        room = self._most - len(self._segments)
        for name in closed[:room]:
            with contextlib.suppress(FileNotFoundError):  # a writer has removed it
                self._segments[name] = Segment(self._place, name, self._latest)
        self._closed = closed[room:]
        waiting = sum(segment.undelivered for segment in self._segments.values())
        oldest = time.time() - self._bounds.max_age
        for segment in self._segments.values():
            size = segment.undelivered
            if size and segment.written < oldest:
                self._spans.drop(segment.give_up(), "older than they may get")
                waiting -= size
            elif size and waiting > self._bounds.max_bytes:
                self._spans.drop(segment.give_up(), "more than the disk may hold of them")
                waiting -= size

    def _deliver(self) -> bool:
        """Send what waits, for a while; say whether more does."""
        segments = list(self._segments.values())
        more = all(self._spans.deliver(segments) for _ in range(ROUND))
        self._measurements.deliver(segments)
        self._remove_done()
        return more

    def _remove_done(self) -> None:
        """Remove what is delivered, but not the newest that a living tree has written.

        There its main process finds what a child that was killed had ended.
        """
        newest = {tree_of(name): name for name in sorted(self._segments)}
        alive = {tree_of(name) for name, segment in self._segments.items() if segment.is_held()}
        for name, segment in list(self._segments.items()):
            if newest[tree_of(name)] == name and tree_of(name) in alive:
                continue
            if segment.remove_if_done():
                self._segments.pop(name).close()

    def _say(self) -> None:
        status = Status(
            self._before.failures + self._spans.failures + self._measurements.failures,
            self._spans.error,
            self._before.dropped + self._spans.dropped,
            self._spans.reason or self._before.reason,
        )
        if status != self._said:
            with contextlib.suppress(OSError):  # a full disk: the next time will do
                self._place.say(status)
                self._said = status

    def _is_over(self) -> bool:
        """Say whether nobody is left who writes, and all is delivered or cannot be."""
        if not self._segments:
            return not self._place.segments()
        if self._is_written():
            self._alone_since = None
            return False
        if self._alone_since is None:
            self._alone_since = time.monotonic()
            self._measurements.hurry()
        last = max(self._alone_since, self._spans.delivered_at, self._measurements.delivered_at)
        return time.monotonic() > last + LINGER

    def _is_written(self) -> bool:
        """Say whether somebody may still write; the newest are asked first."""
        return any(map(self._place.is_written, reversed(self._closed))) or any(
            segment.is_held() for segment in reversed(self._segments.values())
        )


def main(directory: str) -> None:
    """Be the sender of *directory*, with the claim to be it in descriptor ``CLAIM``."""
    # Whoever stops all processes of a service stops this one too: it ends after the others.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    place = Place(Path(directory))
    target, bounds = settings.otlp(), settings.spool()
    if target is None or bounds is None:
        return
    collector = Collector(target)
    batch = settings.batch(DELAY)
    metrics = settings.metrics_target(target)
    to = collector if metrics == target else Collector(metrics) if metrics is not None else None
    os.chdir("/")
    _sweep(place, bounds.max_age)
    Sender(
        place,
        SpanDelivery(collector, batch.max_export_batch_size),
        MeasurementDelivery(to, settings.metric_interval()),
        bounds,
        batch.schedule_delay / 1000,
    ).run()


def _most_open() -> int:
    """Return how many segments may be open: as many files as this process can get, but a few."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # where hard is more than there may be
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    return 65_536 if soft == resource.RLIM_INFINITY else max(soft - SPARE_FILES, 1)


def _sweep(place: Place, max_age: float) -> None:
    """Remove what was left for other destinations and has got too old."""
    for directory in place.directory.parent.iterdir():
        # What stands there may be another's, and not for this process to look into.
        with contextlib.suppress(OSError):
            other = Place(directory)
            if directory != place.directory and other.is_abandoned(time.time() - max_age):
                shutil.rmtree(directory, ignore_errors=True)
