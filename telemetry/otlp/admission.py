"""How many exports are read at the same time: any number of small ones, one medium, one large.

``bounds`` limits one export, and many exports at the limit would still be too much. Reading is work
for the processor: two at once are not faster, and both slow down every other request. A medium
export waits for its turn. A large one would hold memory and a thread while it waits, so it is
refused, and its exporter sends it again.
"""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

__all__ = ["ADMISSION", "LARGE_OBJECTS", "Admission", "Busy", "Ticket"]

#: The most bytes of a small export.
SMALL = 64 * 1024

#: The most bytes and objects of a medium export. A batch of 512 spans has less than half of each.
LARGE, LARGE_OBJECTS = 4 * 1024 * 1024, 50_000

#: Seconds that a medium export waits for its turn.
PATIENCE = 5.0


class Busy(Exception):
    """Other exports are being read. The exporter must send this one again later."""


class Admission:
    """Counts the exports that this process is reading, over HTTP and gRPC together."""

    def __init__(self) -> None:
        self._medium = threading.Lock()
        self._large = threading.Lock()

    @contextmanager
    def ticket(self) -> Iterator["Ticket"]:
        """Give a ticket for one export. The end of the block frees its room."""
        with ExitStack() as held:
            yield Ticket(self._medium, self._large, held)


class Ticket:
    """The room of one export. It grows with what is known of the export."""

    def __init__(self, medium: threading.Lock, large: threading.Lock, held: ExitStack) -> None:
        self._medium = medium
        self._large = large
        self._held = held
        self._is_medium = self._is_large = False

    def fit(self, size: int, objects: int = 0) -> None:
        """Reserve room for *size* bytes and *objects* objects. Raises Busy if there is none."""
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


#: The one of this process, since the limit on its memory is one.
ADMISSION = Admission()
