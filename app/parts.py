"""The processes of the demo. Each is started, watched and stopped together with its children.

Run as a script, this file executes the program in its arguments and ends with its parent.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

#: Seconds for an orderly end: a worker finishes its tasks and sends its spans.
GRACE = 10.0

#: Ctrl-C: on SIGTERM, `flask run` would not send its last spans. The others handle both.
END = signal.SIGINT

_PR_SET_PDEATHSIG = 1


class PartEnded(Exception):
    """A part has ended too early."""

    def __init__(self, part: "Part", status: int) -> None:
        how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        lines = "\n".join(f"    {line}" for line in part.last_lines(8))
        super().__init__(f"{part.name} {how}; its last output:\n{lines or '    nothing'}")


class Part:
    """One program in a session of its own, whose output goes to a file."""

    def __init__(
        self, name: str, argv: Sequence[str], log: Path, env: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self._log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, __file__, *argv],
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The process id, which is also the id of its session."""
        return self._process.pid

    def last_lines(self, count: int) -> list[str]:
        """Return the last *count* lines of its output."""
        return self._log.read_text(errors="replace").splitlines()[-count:]

    def check(self) -> None:
        """Raise PartEnded if it has ended."""
        status = self._process.poll()
        if status is not None:
            raise PartEnded(self, status)

    def wait(self, timeout: float) -> int | None:
        """Wait for the end; return the exit status, or None after *timeout* seconds."""
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return None

    def interrupt(self) -> None:
        """Send it Ctrl-C, if it runs."""
        if self._process.poll() is None:
            self._process.send_signal(END)

    def kill(self) -> None:
        """Kill it and its children."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()


def stop(parts: Iterable[Part]) -> None:
    """Stop *parts* together: by Ctrl-C, and by SIGKILL after the grace period."""
    parts = list(parts)
    try:
        for part in parts:
            part.interrupt()
        deadline = time.monotonic() + GRACE
        for part in parts:
            part.wait(max(0.0, deadline - time.monotonic()))
    finally:
        for part in parts:
            part.kill()


def _become(argv: list[str]) -> None:
    """Execute *argv* in this process. Linux kills it when its parent ends."""
    parent = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(END, signal.SIG_DFL)  # ignored if the demo runs in the background
    if os.getppid() == parent:
        os.execvp(argv[0], argv)


if __name__ == "__main__":
    _become(sys.argv[1:])
