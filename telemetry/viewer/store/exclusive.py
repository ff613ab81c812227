"""Use a database as its only viewer."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .database import MEMORY, Unusable, make_private

#: The longest wait for another viewer that is about to end, and the time between two attempts, in
#: seconds.
PATIENCE, PAUSE = 5.0, 0.05


@contextmanager
def exclusive(path: str) -> Iterator[None]:
    """Use the database at *path* as its only viewer until the block ends. Raises Unusable.

    A viewer remembers the numbers of names and how much is stored, so the data of two viewers would
    contradict each other. Other processes may read the database.
    """
    if path == MEMORY:
        yield
        return
    lock = Path(f"{Path(path).resolve()}-viewer")
    try:
        make_private(Path(path))
        fd = _acquire(lock)
        if fd is None:
            raise Unusable(
                f"{path} is used by another viewer (process {lock.read_text()}): stop it, or "
                "choose another file with --db"
            )
    except OSError as exc:
        raise Unusable(f"{path}: {exc}; choose another file with --db") from None
    try:
        yield
    finally:
        with suppress(OSError):  # a directory that became read-only
            if os.fstat(fd).st_nlink:  # else another viewer may have a lock of this name
                lock.unlink()
        os.close(fd)


def _acquire(lock: Path) -> int | None:
    """Lock the file *lock*. Return its descriptor, or None if another process holds it."""
    until = time.monotonic() + PATIENCE
    while True:
        fd = os.open(lock, os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            if time.monotonic() >= until:
                return None
            time.sleep(PAUSE)
        else:
            if os.fstat(fd).st_nlink:
                os.ftruncate(fd, 0)
                os.write(fd, str(os.getpid()).encode())
                return fd
            # The other viewer has removed the file between the two calls.
            os.close(fd)
