"""Files and directories of this user alone: mode 0600 and 0700, and no links."""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: Bytes that are read of a file.
_MOST = 64 * 1024


def private_directory(path: Path) -> None:
    """Make *path*, private to this user. Raises OSError if it cannot be."""
    path.mkdir(mode=0o700, exist_ok=True)
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise PermissionError(f"{path} is not a directory of this user")
    if found.st_mode & 0o077:
        path.chmod(0o700)


def open_private(path: Path, flags: int, kind: int = stat.S_IFREG) -> int:
    """Open *path* without waiting. Raises OSError if it is not a file, or not of another *kind*."""
    fd = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    if stat.S_IFMT(os.fstat(fd).st_mode) != kind:
        os.close(fd)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return fd


@contextmanager
def opened(path: Path, flags: int, kind: int = stat.S_IFREG) -> Iterator[int]:
    """Open *path* as ``open_private`` does, while the block runs."""
    fd = open_private(path, flags, kind)
    try:
        yield fd
    finally:
        os.close(fd)


def read_private(path: Path) -> bytes:
    """Return the beginning of the file at *path*."""
    with opened(path, os.O_RDONLY) as fd:
        return os.read(fd, _MOST)
