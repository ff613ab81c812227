"""How long a message waited, and for what: three numbers that add up."""

from datetime import UTC, datetime
from typing import Any

#: A message is sent in this range, in Unix seconds: the years 2001 to 5138.
EARLIEST, LATEST = 1e9, 1e11

CELERY_WAIT_SCHEDULED = "celery.wait.scheduled"
CELERY_WAIT_QUEUE = "celery.wait.queue"
CELERY_WAIT_PREFETCH = "celery.wait.prefetch"
CELERY_WAIT_SKEWED = "celery.wait.skewed"

#: Seconds scheduled, in the queue and prefetched, never negative, None if unknown;
#: and whether the clocks disagree. A plain tuple: a named one takes three times as long to make.
Waits = tuple[float, float | None, float, bool]


def waits(sent: float | None, eta: float | None, received: float | None, started: float) -> Waits:
    """Split the time from *sent* to *started*. All are Unix times in seconds.

    Until *eta* the wait is scheduled. From then until the worker *received* the message, it is in
    the broker's queue; after that, in the worker. So a message with a countdown that a worker
    receives at once has waited in the schedule only.
    """
    received = started if received is None else received
    skewed = sent is not None and sent > received
    begin = received if sent is None or skewed else sent
    due = begin if eta is None else min(max(eta, begin), max(started, begin))
    queue = None if sent is None else max(0.0, received - due)
    return due - begin, queue, max(0.0, started - max(received, due)), skewed


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
    """Return a Unix time from a decimal string or a number.

    Return None for anything else, and for a time such as 0: a wait of decades is a mistake.
    """
    kind = type(value)
    if kind is bytes:
        value = value.decode("ascii", "replace")
    elif kind is not float and kind is not str and kind is not int:
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if EARLIEST <= number < LATEST else None
