"""Faults of tracing itself: logged once a minute each, never raised into the application."""

import logging
import sys
import time

from .interrupts import uninterrupted

logger = logging.getLogger("telemetry")

#: Seconds between two lines about the same fault.
INTERVAL = 60.0


class RateLimit:
    """Lets the first of each kind pass, then one an interval."""

    def __init__(self) -> None:
        # No lock: a finalizer in the thread that holds it would deadlock. At worst two threads
        # log one line each.
        self._next: dict[str, float] = {}

    def __call__(self, kind: str) -> bool:
        """Return whether a line of this *kind* may be logged now."""
        now = time.monotonic()
        if now < self._next.get(kind, 0.0):
            return False
        # A kind may contain a text of a collector, so their number has no bound.
        if len(self._next) >= 256:
            self._next.clear()
        self._next[kind] = now + INTERVAL
        return True


_allow = RateLimit()


def is_soft_time_limit(exc: BaseException | None) -> bool:
    """Return whether *exc* is Celery's soft time limit, which a signal raises anywhere."""
    billiard = sys.modules.get("billiard.exceptions")
    return billiard is not None and isinstance(exc, billiard.SoftTimeLimitExceeded)


@uninterrupted  # logging swallows what is raised in a handler
def log_internal_error(action: str) -> None:
    """Log that tracing failed at *action*, with the exception being handled.

    Call it in every ``except Exception`` around tracing: the application then has no span there.
    A soft time limit is the task's own, so it is raised again.
    """
    exc = sys.exception()
    if exc is not None and is_soft_time_limit(exc):
        raise exc
    if _allow(action):
        logger.warning("tracing could not %s; the application is unharmed", action, exc_info=True)
