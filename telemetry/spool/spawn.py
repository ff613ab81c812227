"""Starting the sender: a process of its own, which nothing of the application's reaches.

It has its own session, so that Ctrl-C is not for it, and none of the application's descriptors: an
inherited socket would keep its port taken. It forks once more, so that the application neither
waits for it nor finds it among its children.
"""

import contextlib
import fcntl
import os
import resource
import sys
from collections.abc import Mapping
from pathlib import Path

from .place import Place

__all__ = ["interpreter", "start"]

#: Where the claim to be the sender is handed over.
CLAIM = 3

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


def start(place: Place, claim: int, environ: Mapping[str, str]) -> None:
    """Start the sender of *place*, with the *claim* to be it and the settings in *environ*.

    Raises OSError where it cannot be.
    """
    python = interpreter()
    if python is None:
        raise FileNotFoundError(f"{sys.executable or 'this process'} is no Python interpreter")
    # The claim may have the number of one that is opened here: a daemon has closed its own.
    high = fcntl.fcntl(claim, fcntl.F_DUPFD_CLOEXEC, CLAIM + 1)
    try:
        pid = os.posix_spawn(
            python,
            [python, "-P", "-c", _BOOT, f"{__package__}.sender", str(place.directory)],
            {**environ, "PYTHONPATH": os.pathsep.join(_path())},
            setsid=True,
            file_actions=[
                *((os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 1, 2)),
                *((os.POSIX_SPAWN_CLOSE, fd) for fd in _inheritable()),
                (os.POSIX_SPAWN_DUP2, high, CLAIM),
            ],
        )
    finally:
        os.close(high)
    with contextlib.suppress(ChildProcessError):  # where the application has children reaped
        os.waitpid(pid, 0)


def _path() -> list[str]:
    """Return where modules are looked for, this package's own folder in any case.

    Celery's script takes it off the path again once it has loaded the application.
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
