"""Real processes for the tests, whose output is read, and which always end."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

#: Seconds that a test waits for something before it fails. A slow machine takes many times as long
#: as a fast one.
PATIENCE = 90.0


class Process:
    """A child in a session of its own. A test can wait for its output."""

    def __init__(self, argv: list[str], env: dict[str, str], cwd: Path = ROOT) -> None:
        self.argv = argv
        self.lines: list[str] = []
        self._arrived = threading.Condition()
        self._closed = False
        self._child = subprocess.Popen(
            argv,
            env=env,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def has_ended(self) -> bool:
        return self._child.poll() is not None

    @property
    def output(self) -> str:
        with self._arrived:
            return "\n".join(self.lines)

    def _read(self) -> None:
        assert self._child.stdout is not None
        for line in self._child.stdout:
            with self._arrived:
                self.lines.append(line.rstrip("\n"))
                self._arrived.notify_all()
        with self._arrived:
            self._closed = True
            self._arrived.notify_all()

    def wait_for_line(self, text: str, timeout: float = PATIENCE, count: int = 1) -> str:
        """Wait until *count* lines have *text*; return the last of them."""
        found = self.lines_until(text, timeout, count)
        if len(found) < count:
            raise AssertionError(f"{text!r} was not printed by {self.argv}:\n{self.output}")
        return found[count - 1]

    def lines_until(self, text: str, timeout: float = PATIENCE, count: int = 1) -> list[str]:
        """Wait for *count* lines with *text*, or for the end; return those that came."""

        def found() -> list[str]:
            return [line for line in self.lines if text in line]

        with self._arrived:
            self._arrived.wait_for(lambda: len(found()) >= count or self._closed, timeout)
            return found()

    def signal(self, number: int) -> None:
        self._child.send_signal(number)

    def wait(self, timeout: float = PATIENCE) -> int:
        """Wait for the end; return the exit status."""
        status = self._child.wait(timeout)
        self._close()
        return status

    def stop(self, timeout: float = PATIENCE) -> int:
        """Ask for a warm end; kill the session after *timeout* seconds."""
        if self._child.poll() is None:
            self._child.terminate()
        try:
            return self.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"{self.argv} did not end:\n{self.output}") from None
        finally:
            self.kill()

    def kill(self) -> None:
        """Kill the whole session."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._child.pid, signal.SIGKILL)
        self._child.wait()
        self._close()

    def _close(self) -> None:
        # A process that the child has left may hold the pipe open. Killing the session ends it.
        self._reader.join(5)
        assert self._child.stdout is not None
        if not self._reader.is_alive():
            self._child.stdout.close()


class Starter:
    """Starts processes with a clean environment, and ends them.

    *python* is the interpreter, by default the one of the tests.
    """

    def __init__(self, python: str = sys.executable, **env: str) -> None:
        self.python = python
        self.env = env
        self._started: list[Process] = []

    def __call__(self, *argv: str, cwd: Path = ROOT, **env: str | None) -> Process:
        """Run ``python -m`` *argv*. *env* is added to the environment; None removes a variable."""
        return self._start([self.python, "-m", *argv], cwd, env)

    def script(self, name: str, *argv: str, cwd: Path = ROOT, **env: str | None) -> Process:
        """Run the installed script *name*: unlike ``python -m`` it does not look in *cwd*."""
        return self._start([str(Path(self.python).with_name(name)), *argv], cwd, env)

    def _start(self, argv: list[str], cwd: Path, env: Mapping[str, str | None]) -> Process:
        merged = {
            "PATH": os.environ["PATH"],
            "HOME": os.environ.get("HOME", "/"),
            "PYTHONUNBUFFERED": "1",
            "PYTHONPATH": str(ROOT),
            **self.env,
            **env,
        }
        process = Process(argv, {k: v for k, v in merged.items() if v is not None}, cwd)
        self._started.append(process)
        return process

    def end(self) -> Iterator[str]:
        """Stop all processes, the last first; yield the problems."""
        for process in reversed(self._started):
            try:
                process.stop()
            except AssertionError as exc:
                yield str(exc)
