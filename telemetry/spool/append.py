"""The fast path of a write to a segment: one that keeps the interpreter's lock.

``os.write`` gives the lock away, and where other threads wait for it, one of them takes it: what
should take two microseconds then takes as long as that thread goes on, and two changes of threads,
for every span. A segment is a file in the page cache, so there is next to nothing to wait for.
"""

import errno
import os
from typing import Any

try:
    import ctypes
except ImportError:  # a Python that was built without it
    ctypes = None  # type: ignore[assignment]

__all__ = ["append"]


def _keeping_the_lock() -> Any:
    """Return C's ``write``, None where it is not to be had."""
    try:
        write = ctypes.PyDLL(None).write
        write.restype = ctypes.c_ssize_t
    except (AttributeError, OSError, TypeError):
        return None
    # The arguments get no types: each would be converted by a function of its own.
    return write


_write = _keeping_the_lock()


def append(fd: int, data: bytes) -> None:
    """Write *data* to *fd*, all of it in one piece. Raises OSError where that cannot be."""
    size = len(data)
    written: int = -1 if _write is None else _write(fd, data, ctypes.c_size_t(size))
    if written < 0:  # this says why, or does what a signal has kept the other from
        written = os.write(fd, data)
    if written < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
