"""The code in which a soft time limit has to wait.

The limit is a signal whose handler raises in the main thread, between any two instructions. Code
with an ``except`` around it cleans up and raises it again. Two kinds of code cannot: a function
that has only begun, such as an ``__exit__``; and what swallows exceptions, such as Celery's
dispatcher of signals, ``logging``, ``traceback`` and ``importlib.metadata``. They are marked here,
and the handler waits for them: see ``celery.time_limit``.
"""

from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

_cleaning_up: set[CodeType] = set()
_uninterrupted: set[CodeType] = set()


def cleans_up(function: F) -> F:
    """Mark *function*: a soft time limit waits in its own code, not in what it calls."""
    _cleaning_up.add(function.__code__)
    return function


def uninterrupted(function: F) -> F:
    """Mark *function*: a soft time limit waits until it has returned."""
    _uninterrupted.add(function.__code__)
    return function


def is_uninterrupted(frame: FrameType | None) -> bool:
    """Return whether a soft time limit must not be raised in *frame*."""
    if frame is not None and frame.f_code in _cleaning_up:
        return True
    while frame is not None:
        if frame.f_code in _uninterrupted:
            return True
        frame = frame.f_back
    return False
