"""Soft time limits at every moment at which Python can run a signal handler."""

import inspect
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from billiard.exceptions import SoftTimeLimitExceeded
from billiard.pool import SIG_SOFT_TIMEOUT
from opentelemetry import trace

import telemetry
from telemetry.celery import time_limit
from telemetry.celery.producer import Send


def raise_soft_time_limit(number: int, frame: FrameType | None) -> None:
    """Do what billiard's handler does."""
    raise SoftTimeLimitExceeded


def is_tracing(frame: FrameType | None) -> bool:
    """Return whether *frame* runs for this library, and not for Celery or requests alone.

    Those may handle an exception at some moments wrongly: kombu's pool of connections may stay
    locked.
    """
    while frame is not None:
        path = frame.f_code.co_filename
        if path.startswith(_TELEMETRY):
            return True
        if any(name in path for name in _OTHERS):
            return False
        frame = frame.f_back
    return False


#: With weakref.py and _weakrefset.py, whose callbacks cannot raise.
_OTHERS = (
    *("/celery/", "/kombu/", "/requests/", "/tests/", "/hypothesis/"),
    *("/weakref.py", "/_weakrefset.py"),
)
_TELEMETRY = str(Path(telemetry.__file__).parent)


def is_soft_time_limit(exc: BaseException | None) -> bool:
    """Return whether *exc* is a soft time limit, or made from one: kombu's EncodeError may be."""
    while exc is not None and not isinstance(exc, SoftTimeLimitExceeded):
        exc = exc.__cause__
    return exc is not None


def every_moment(
    work: Callable[[], object], monkeypatch: pytest.MonkeyPatch, most: int = 10_000
) -> Iterator[str]:
    """Run *work* once for each moment of tracing, with a soft time limit there. Yield the place.

    A handler runs when a function begins, and when one that is written in C has returned. A limit
    that is held back comes again at the next moment.
    """
    monkeypatch.setattr(time_limit._thread, "start_new_thread", lambda *_: None)
    monkeypatch.setattr(time_limit, "TRIES", sys.maxsize)
    for number in range(1, most):
        place = _interrupt(work, number)
        if not place:
            return
        yield place
    raise AssertionError("the work does not end")


def _interrupt(work: Callable[[], object], moment: int) -> str:
    handler = time_limit.SoftTimeLimit(raise_soft_time_limit)
    moments, place = 0, ""

    def profile(frame: FrameType, event: str, arg: Any) -> None:
        nonlocal moments, place
        # A generator that is closed begins for a profiler, and no signal's handler runs there.
        if event not in ("call", "c_return") or frame.f_code.co_flags & inspect.CO_GENERATOR:
            return
        moments += bool(place) or is_tracing(frame) or frame.f_code is _end.__code__
        if moments >= moment:
            place = place or f"{frame.f_code.co_qualname}, line {frame.f_lineno}, {event}"
            handler(SIG_SOFT_TIMEOUT, frame)

    reached = False
    sys.setprofile(profile)
    try:
        work()
        _end()
    except Exception as exc:
        reached = is_soft_time_limit(exc)
        if not reached:
            raise
    finally:
        sys.setprofile(None)
    if not place or place.startswith("_end,"):
        return ""
    assert reached, f"the exception was swallowed: {place}"
    assert not trace.get_current_span().get_span_context().is_valid, f"a span is current: {place}"
    assert Send.current() is None, f"a send is current: {place}"
    return place


def _end() -> None:
    """The moment after the work."""
