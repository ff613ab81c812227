"""Faults of tracing itself: said once a minute, never raised into the application."""

import logging
import sys
import time

__all__ = ["report"]

logger = logging.getLogger(__package__)

#: Seconds between two lines about the same fault.
INTERVAL = 60.0


class RateLimit:
    """Lets the first of each kind pass, then one an interval."""

    def __init__(self, interval: float = INTERVAL) -> None:
        self._interval = interval
        # No lock, which a finalizer could need while its own thread has it: at worst two threads
        # say the same.
        self._next: dict[str, float] = {}

    def __call__(self, kind: str) -> bool:
        now = time.monotonic()
        if now < self._next.get(kind, 0.0):
            return False
        # Kinds are written in the source, so there are few; the bound is against a mistake.
        if len(self._next) >= 256:
            self._next.clear()
        self._next[kind] = now + self._interval
        return True


_allow = RateLimit()


def report(what: str) -> None:
    """Log that tracing failed at *what*, with the exception being handled.

    Called in an ``except`` block. The application goes on without the span. Celery's soft time
    limit, which a signal may raise in the middle of tracing, is the task's, and goes on to it.
    """
    exc = sys.exception()
    limit = sys.modules.get("billiard.exceptions")
    if limit is not None and isinstance(exc, limit.SoftTimeLimitExceeded):
        raise exc
    if _allow(what):
        logger.warning("tracing could not %s; the application is unharmed", what, exc_info=True)
