"""Start the sender as a process that is independent of the application.

It has its own session, so it does not get Ctrl-C. It has none of the application's descriptors: an
inherited socket would occupy its port. It forks once more, so it is not a child of the application.
"""

import contextlib
import fcntl
import os
import resource
import sys
from collections.abc import Mapping
from pathlib import Path

from .directory import SpoolDirectory

#: The descriptor of the sender's lock, in the sender.
LOCK = 3

#: The module whose ``main`` is the sender.
_SENDER = f"{__package__.rpartition('.')[0]}.sender.process"

_BOOT = """
import os
if os.fork():
    os._exit(0)
import sys
from importlib import import_module
import_module(sys.argv[1]).main(sys.argv[2])
os._exit(0)  # at once: the lock is free already
"""


def interpreter() -> str | None:
    """Return the Python to run a sender with; None if Python is embedded in another program."""
    alternatives = (sys.executable, str(Path(sys.prefix) / "bin" / "python3"))
    for path in alternatives:
        if path and Path(path).name.startswith(("python", "pypy")) and os.access(path, os.X_OK):
            return path
    return None


def start(directory: SpoolDirectory, lock: int, environ: Mapping[str, str]) -> None:
    """Start the sender of *directory*, with its *lock* and the settings in *environ*.

    Raises OSError if the system does not allow it.
    """
    python = interpreter() or sys.executable  # which may have been removed since ``DiskSink`` began
    # In a daemon that has closed its descriptors, the lock may have a number that is opened below.
    high = fcntl.fcntl(lock, fcntl.F_DUPFD_CLOEXEC, LOCK + 1)
    # An error that ends the sender, even in its imports, is written there.
    stderr = directory.sender_files.begin_stderr()
    flags = os.O_WRONLY | os.O_NOFOLLOW
    try:
        pid = os.posix_spawn(
            python,
            [python, "-P", "-c", _BOOT, _SENDER, str(directory.path)],
            {**environ, "PYTHONPATH": os.pathsep.join(_path())},
            setsid=True,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDWR, 0),
                (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_RDWR, 0),
                (os.POSIX_SPAWN_OPEN, 2, stderr, flags, 0o600),
                *((os.POSIX_SPAWN_CLOSE, fd) for fd in _inheritable()),
                (os.POSIX_SPAWN_DUP2, high, LOCK),
            ],
        )
    finally:
        os.close(high)
    with contextlib.suppress(ChildProcessError):  # if the application ignores SIGCHLD
        os.waitpid(pid, 0)


def _path() -> list[str]:
    """Return the path of imports, with the folder of this package.

    Celery's script removes the working directory once it has loaded the application.
    """
    folder = str(Path(__file__).absolute().parents[1 + __package__.count(".")])
    path = [each for each in map(os.path.abspath, sys.path) if not _starts_an_agent(each)]
    return path if folder in path else [folder, *path]


def _starts_an_agent(folder: str) -> bool:
    """Return whether *folder* is the package by which ``ddtrace-run`` and the like start an agent.

    It would trace the sender's exports.
    """
    return all(Path(folder, name).exists() for name in ("__init__.py", "sitecustomize.py"))


def _inheritable() -> list[int]:
    found = []
    # posix_spawn refuses a descriptor that was opened before this limit was lowered.
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0] % sys.maxsize  # infinity is -1
    for fd in map(int, os.listdir("/dev/fd")):
        try:
            if 2 < fd < limit and os.get_inheritable(fd):
                found.append(fd)
        except OSError:  # the descriptor of the listing itself
            continue
    return found
