"""The directory that outlives a process: where it is, and whether it can be written."""

import tempfile
from pathlib import Path

from ..settings import QUEUEHOP_STATE_DIR
from .finding import Finding

__all__ = ["check_directory"]


def check_directory(directory: Path) -> Finding | None:
    """Write a file in *directory*, or where it would be made; leave nothing behind."""
    existing = next(path for path in (directory, *directory.parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=existing) as file:
            file.write(b"queuehop")
            file.flush()
    except OSError as exc:
        return Finding(
            "directory-not-writable",
            "settings",
            f"{directory} cannot be written ({exc.strerror}): spans of a bad hour would be lost",
            f"make it writable for this user, or set {QUEUEHOP_STATE_DIR} to one that is",
        )
    return None
