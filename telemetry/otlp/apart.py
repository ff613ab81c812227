"""Read a large body in JSON in a process of its own.

``json.loads`` builds all objects in one call, which stops every other thread of the process, and
these objects take ten times the memory of their text.
"""

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module

from .bounds import Malformed, TooLarge
from .signals import Exports

#: Reads a body. Returns its spans and log records, and the name of its format.
Reader = Callable[[bytes], tuple[Exports, str]]

#: The limits of the process that reads: bytes of memory and seconds.
MEMORY, SECONDS = 2 * 1024**3, 60

#: The exit status for each error.
_STATUS: dict[type[ValueError], int] = {Malformed: 3, TooLarge: 4}

_BOOT = "import sys, importlib; importlib.import_module(sys.argv[1]).main(*sys.argv[2:])"


def read_apart(body: bytes, reader: Reader) -> tuple[Exports, str]:
    """Return the result of *reader*, a function of a module. Raises Malformed and TooLarge."""
    if not sys.executable:  # embedded in another program
        return reader(body)
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", _BOOT, __name__, reader.__module__, reader.__name__],
            input=body,
            capture_output=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))},
            timeout=2 * SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise TooLarge(f"the body takes more than {2 * SECONDS} seconds to read") from None
    for error, status in _STATUS.items():
        if done.returncode == status:
            raise error(done.stderr.decode())
    if done.returncode:
        raise TooLarge("the body takes too much memory or time to read")
    length, _, encoded = done.stdout.partition(b"\n")
    exports = Exports()
    exports.spans.ParseFromString(encoded[: int(length)])
    exports.logs.ParseFromString(encoded[int(length) :])
    return exports, done.stderr.decode()


def main(module: str, name: str) -> None:
    """Read the body on standard input; write the length of the spans, the spans and the logs."""
    with suppress(ValueError, OSError):  # a system that does not limit memory
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    reader: Reader = getattr(import_module(module), name)
    try:
        exports, kind = reader(sys.stdin.buffer.read())
    except (Malformed, TooLarge) as exc:
        sys.stderr.write(str(exc))
        sys.exit(_STATUS[type(exc)])
    spans = exports.spans.SerializeToString()
    sys.stdout.buffer.write(b"%d\n" % len(spans) + spans + exports.logs.SerializeToString())
    sys.stderr.write(kind)
