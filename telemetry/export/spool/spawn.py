"""Starting the sender, as a process that nothing of the application reaches.

It has its own session, so Ctrl-C does not reach it, and none of the application's descriptors: an
inherited socket would keep its port in use. It forks once more, so the application neither waits
for it nor finds it among its children.
"""

import contextlib
import fcntl
import os
import resource
import sys
from collections.abc import Mapping
from pathlib import Path

from .directory import SpoolDirectory

__all__ = ["interpreter", "start"]

#: The descriptor of the sender's lock, in the sender.
LOCK = 3

#: The module whose ``main`` is the sender.
SENDER = "sender.process"

_BOOT = """
import os
if os.fork():
    os._exit(0)
import sys
from importlib import import_module
import_module(sys.argv[1]).main(sys.argv[2])
"""


def interpreter() -> str | None:
    """Return the Python to run a sender with; None where this process is embedded in another."""
    alternatives = (sys.executable, str(Path(sys.prefix) / "bin" / "python3"))
    for path in alternatives:
        if path and Path(path).name.startswith(("python", "pypy")) and os.access(path, os.X_OK):
            return path
    return None


def start(directory: SpoolDirectory, lock: int, environ: Mapping[str, str]) -> None:
    """Start the sender of *directory*, with its *lock* and the settings in *environ*.

    Raises OSError where the system does not allow it.
    """
    python = interpreter()
    if python is None:
        raise FileNotFoundError(f"{sys.executable or 'this process'} is not a Python interpreter")
    # The lock may have a number that is opened below: a daemon has closed its own descriptors.
    high = fcntl.fcntl(lock, fcntl.F_DUPFD_CLOEXEC, LOCK + 1)
    # An error that ends the sender, in its imports even, is read from there.
    stderr = directory.begin_stderr()
    flags = os.O_WRONLY | os.O_NOFOLLOW
    try:
        pid = os.posix_spawn(
            python,
            [python, "-P", "-c", _BOOT, _sender(), str(directory.directory)],
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
    with contextlib.suppress(ChildProcessError):  # where the application has children reaped
        os.waitpid(pid, 0)


def _sender() -> str:
    return f"{__package__.rpartition('.')[0]}.{SENDER}"


def _path() -> list[str]:
    """Return the path that modules are imported from, with this package's own folder.

    Celery's script removes it from the path once it has loaded the application.
    """
    folder = str(Path(__file__).absolute().parents[1 + __package__.count(".")])
    path = list(map(os.path.abspath, sys.path))
    return path if folder in path else [folder, *path]


def _inheritable() -> list[int]:
    found = []
    # One that was opened before this limit was lowered is refused by the system's library.
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0] % sys.maxsize  # infinity is -1
    for fd in map(int, os.listdir("/dev/fd")):
        try:
            if 2 < fd < limit and os.get_inheritable(fd):
                found.append(fd)
        except OSError:  # the one that listed the others
            continue
    return found
