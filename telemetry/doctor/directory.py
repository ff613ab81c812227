"""Check the directory in which spans wait for the collector."""

import errno
import tempfile
from pathlib import Path

from ..config.settings import QUEUEHOP_STATE_DIR
from .finding import Finding

__all__ = ["check_directory", "not_writable"]


def check_directory(directory: Path) -> Finding | None:
    """Write a temporary file in *directory*, or in its first parent that exists."""
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
    """Report that a process at *hop* cannot write its spans to *directory*."""
    remedy = "free space there" if full else "give it to the user of the process"
    return Finding(
        "directory-not-writable",
        hop,
        f"{directory} is not writable{why}: spans wait in memory, and are lost if their process "
        "dies",
        f"{remedy}, or set {QUEUEHOP_STATE_DIR} to another directory",
    )
