"""A soft time limit always reaches the task, also if it is raised in the middle of tracing."""

import _thread
import os
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from billiard import pool
from celery.utils.dispatch import Signal

from ..tracing.interrupts import is_uninterrupted, uninterrupted

#: Seconds until the signal is sent once more, and how often at most. A span processor that hangs
#: delays the limit by that much at most.
DELAY, TRIES = 0.001, 100


class SoftTimeLimit:
    """The handler of the signal: it calls *handler*, once no marked function is running."""

    def __init__(self, handler: Callable[[int, FrameType | None], None]) -> None:
        self._handler = handler
        self._tries = 0
        #: The next try, which a thread waits for.
        self.pending: object = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Raise the exception in the task, or send this process the signal once more."""
        if self._tries < TRIES and is_uninterrupted(frame):
            self._tries += 1
            self.pending = pending = object()
            try:
                # threading.Thread takes locks, which the interrupted code may hold.
                _thread.start_new_thread(self._send_again, (number, pending))
                return
            except RuntimeError:  # no more threads
                pass
        self.cancel()
        self._handler(number, frame)

    def cancel(self) -> None:
        """Forget a limit that waits: the task has ended."""
        self._tries, self.pending = 0, None

    def _send_again(self, number: int, pending: object) -> None:
        time.sleep(DELAY)
        if self.pending is pending:
            os.kill(os.getpid(), number)


def guard_soft_time_limit() -> SoftTimeLimit | None:
    """Put ``SoftTimeLimit`` in front of the handler that the pool's children install."""
    handler: Any = getattr(pool, "soft_timeout_sighandler", None)
    if handler is None:
        return None
    if isinstance(handler, SoftTimeLimit):
        return handler
    uninterrupted(Signal.send)  # it swallows exceptions in a receiver, or right after one
    guard = pool.soft_timeout_sighandler = SoftTimeLimit(handler)
    return guard
