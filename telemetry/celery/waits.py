"""How long a message waited, and for what: three numbers that add up."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

__all__ = ["Waits", "waits"]

SCHEDULED = "celery.wait.scheduled"
QUEUE = "celery.wait.queue"
PREFETCH = "celery.wait.prefetch"
SKEWED = "celery.wait.skewed"


@dataclass(frozen=True, slots=True)
class Waits:
    """Seconds, never negative; None is what cannot be known. *skewed*: the clocks disagree."""

    scheduled: float
    queue: float | None
    prefetch: float
    skewed: bool = False

    def attributes(self) -> Mapping[str, float | bool]:
        """Return what is known, as span attributes."""
        return {**self.known(), SKEWED: True} if self.skewed else self.known()

    def known(self) -> dict[str, float]:
        """Return the seconds that are known, by their names."""
        waits = {SCHEDULED: self.scheduled, QUEUE: self.queue, PREFETCH: self.prefetch}
        return {name: seconds for name, seconds in waits.items() if seconds is not None}


def waits(sent: float | None, eta: float | None, received: float | None, started: float) -> Waits:
    """Split the time from *sent* to *started*. All are Unix times in seconds.

    Until *eta* the wait is meant: scheduled. What is left before the worker *received* the message
    was spent in the broker's queue, what is left after it in the worker. So a message with a
    countdown that a worker takes at once has waited in the schedule only.
    """
    received = started if received is None else received
    skewed = sent is not None and sent > received
    begin = received if sent is None or skewed else sent
    due = begin if eta is None else min(max(eta, begin), max(started, begin))
    return Waits(
        scheduled=due - begin,
        queue=max(0.0, received - due) if sent is not None else None,
        prefetch=max(0.0, started - max(received, due)),
        skewed=skewed,
    )


def parse_eta(value: Any) -> float | None:
    """Return the Unix time of an ISO 8601 *value*, UTC if it names no zone, or None."""
    if not isinstance(value, str):
        return None
    try:
        eta = datetime.fromisoformat(value)
    except ValueError:
        return None
    return (eta if eta.tzinfo else eta.replace(tzinfo=UTC)).timestamp()


def parse_time(value: Any) -> float | None:
    """Return a Unix time from a decimal string or a number; None if it is none."""
    if isinstance(value, bytes):
        value = value.decode("ascii", "replace")
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if 0.0 <= number < 1e11 else None
