"""The directory that outlives a process: where it is, and whether it can be written."""

import os
import tempfile
from pathlib import Path

from .finding import Finding

__all__ = ["check_directory", "state_directory"]

QUEUEHOP_STATE_DIR = "QUEUEHOP_STATE_DIR"


def state_directory() -> Path:
    """Return where durable state goes: ``QUEUEHOP_STATE_DIR``, or ``queuehop`` in XDG's place."""
    if named := os.environ.get(QUEUEHOP_STATE_DIR, "").strip():
        return Path(named)
    home = os.environ.get("XDG_STATE_HOME", "").strip() or Path.home() / ".local" / "state"
    return Path(home) / "queuehop"


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
