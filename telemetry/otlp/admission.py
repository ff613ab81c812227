"""Which exports are read at the same time: any number of small ones, one medium one, one large one.

``bounds`` limits what one export may become, and many of those together would be too much. Reading
one is work for the processor, so that two at once are no faster, and slower for everybody else. One
of medium size waits for its turn. A large one does not, which would take memory and a thread: it is
refused for the moment, and its exporter sends it again.
"""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

__all__ = ["ADMISSION", "LARGE_OBJECTS", "Admission", "Busy", "Ticket"]

#: An export of more bytes is not small.
SMALL = 64 * 1024

#: An export of more bytes, or of more objects, is large. A batch of 512 spans has half of neither.
LARGE, LARGE_OBJECTS = 4 * 1024 * 1024, 50_000

#: Seconds that one of medium size waits for its turn.
PATIENCE = 5.0


class Busy(Exception):
    """Other exports are being read: this one must be sent again later."""


class Admission:
    """What is being read in this process, over HTTP and gRPC together."""

    def __init__(self) -> None:
        self._medium = threading.Lock()
        self._large = threading.Lock()

    @contextmanager
    def ticket(self) -> Iterator["Ticket"]:
        """Give a ticket for one export. What it holds is free again after the block."""
        with ExitStack() as held:
            yield Ticket(self._medium, self._large, held)


class Ticket:
    """The room that one export has. It grows as more is known of the export."""

    def __init__(self, medium: threading.Lock, large: threading.Lock, held: ExitStack) -> None:
        self._medium = medium
        self._large = large
        self._held = held
        self._is_medium = self._is_large = False

    def fit(self, size: int, objects: int = 0) -> None:
        """Have room for *size* bytes and so many *objects*. Raises Busy where there is none."""
        if self._is_large:
            return
        if size > LARGE or objects > LARGE_OBJECTS:
            if not self._large.acquire(blocking=False):
                raise Busy("another large export is being read: send this one again later")
            self._held.callback(self._large.release)
            self._is_large = True
        elif size > SMALL and not self._is_medium:
            if not self._medium.acquire(timeout=PATIENCE):
                raise Busy("too many exports are being read: send this one again later")
            self._held.callback(self._medium.release)
            self._is_medium = True


#: One for the process: its memory is one.
ADMISSION = Admission()
