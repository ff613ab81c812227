"""How many exports are read at the same time: any number of small ones, one medium, one large.

``bounds`` limits one export, and many exports at the limit would still be too much. Reading is work
for the processor: two at once are not faster, and both slow down every other request. A medium
export waits for its turn. A large one would hold memory and a thread while it waits, so it is
refused, and its exporter sends it again.
"""

import threading
from contextlib import ExitStack

#: The most bytes of a small export.
SMALL = 64 * 1024

#: The most bytes and objects of a medium export. A batch of 512 spans has less than half of each.
LARGE, LARGE_OBJECTS = 4 * 1024 * 1024, 50_000

#: Seconds that a medium export waits for its turn.
PATIENCE = 5.0


class Busy(Exception):
    """Other exports are being read. The exporter must send this one again later."""


#: One of each for the whole process: HTTP and gRPC share its memory.
_medium, _large = threading.Lock(), threading.Lock()


class Ticket(ExitStack):
    """``with Ticket() as ticket``: the room of one export. It grows with what is known of it."""

    _is_medium = _is_large = False

    def fit(self, size: int, objects: int = 0) -> None:
        """Reserve room for *size* bytes and *objects* objects. Raises Busy if there is none."""
        if self._is_large:
            return
        if size > LARGE or objects > LARGE_OBJECTS:
            if not _large.acquire(blocking=False):
                raise Busy("another large export is being read: send this one again later")
            self.callback(_large.release)
            self._is_large = True
        elif size > SMALL and not self._is_medium:
            if not _medium.acquire(timeout=PATIENCE):
                raise Busy("too many exports are being read: send this one again later")
            self.callback(_medium.release)
            self._is_medium = True
