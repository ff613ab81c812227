"""The status of each signal's delivery, and the log lines about it: for the disk and for memory."""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import NamedTuple

from ..config.exporter import NAMES, SIGNALS
from ..tracing.faults import logger


class SignalStatus(NamedTuple):
    """The status of one signal."""

    #: Why its exports fail at the moment; empty if they do not.
    error: str = ""
    #: How many items will not be delivered, and why the last of them.
    dropped: int = 0
    reason: str = ""


def log_status(
    place: str,
    statuses: Iterable[SignalStatus],
    counted: Counter[str],
    may_log: Callable[[str], bool],
) -> None:
    """Log why items wait in their *place*, and how many were dropped that no line has *counted*.

    *may_log* returns whether a line of a kind may be logged now. If not, a later one has the count.
    """
    errors = {""}
    for signal, status in zip(SIGNALS, statuses, strict=True):
        name = NAMES[signal]
        # A collector that is down is one problem, not one for each signal.
        if status.error not in errors and may_log(f"{signal}.error"):
            logger.warning("%s are not delivered, and wait %s: %s", name, place, status.error)
        errors.add(status.error)
        dropped = status.dropped - counted[signal]
        if dropped > 0 and may_log(f"{signal}.dropped: {status.reason}"):
            logger.warning("dropped %d %s: %s", dropped, name, status.reason)
            counted[signal] = status.dropped
