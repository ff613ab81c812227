"""Report a directory in which spans cannot wait for the collector."""

import errno
import os

from ..config.settings import QUEUEHOP_STATE_DIR
from ..selfcheck import Process
from .finding import Finding


def check_directory(process: Process, hop: str) -> Finding | None:
    """Report the directory of *process*, at *hop*, if it cannot be written."""
    if not process.unwritable:
        return None
    error = process.unwritable_errno
    why = f" ({os.strerror(error)})" if error else ""
    full = error in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # the last is of ulimit -f
    remedy = "free space there" if full else "let the user of the process write to it"
    return Finding(
        "directory-not-writable", hop,
        f"{process.unwritable} is not writable{why}: spans wait in memory, and are lost if their "
        "process dies",
        f"{remedy}, or set {QUEUEHOP_STATE_DIR} to another directory",
    )  # fmt: skip
