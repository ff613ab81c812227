"""The directory that outlives a process: where it is, and whether it can be written."""

import errno
import tempfile
from pathlib import Path

from ..config.settings import QUEUEHOP_STATE_DIR
from .finding import Finding

__all__ = ["check_directory", "not_writable"]


def check_directory(directory: Path) -> Finding | None:
    """Write a file in *directory*, or where it would be made; leave nothing behind."""
    existing = next(path for path in (directory, *directory.parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=existing) as file:
            file.write(b"queuehop")
            file.flush()
    except OSError as exc:
        full = exc.errno in (errno.ENOSPC, errno.EDQUOT)
        return not_writable("settings", str(directory), f" ({exc.strerror})", full)
    return None


def not_writable(hop: str, directory: str, why: str = "", full: bool = False) -> Finding:
    """Say that a process at *hop* cannot keep its spans in *directory*."""
    mend = "free some space there" if full else "give it to the user that the process runs as"
    return Finding(
        "directory-not-writable",
        hop,
        f"{directory} cannot be written{why}: spans wait in memory, lost with their process",
        f"{mend}, or set {QUEUEHOP_STATE_DIR} to another",
    )
