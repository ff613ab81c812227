"""Measure the CPU that sending takes, per task: ``python -m bench.sender``.

Real processes publish and run tasks while no collector listens, so their records wait on disk.
Then a process sets up tracing with a copy of that directory, as an application does that starts
after the collector is back. The sender that it starts delivers everything to a receiver and ends.
Its user and system time is read when it has ended. The least that a sender takes for a few tasks is
subtracted, so that the start of a process is not in the result.

Only the public API is used, so the figures of two versions can be compared.
"""

import argparse
import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from uuid import uuid4

from app.parts import PartEnded

from .measure import RUN, processes
from .stand import ROOT, Failed, Receiver, Stand, await_that, free_port
from .variants import OURS

#: Tasks, and so few that a sender for them does little but start.
TASKS, FEW = 20_000, 100

REPEATS = 5

#: Seconds until everything is delivered, and the sender has ended.
LONGEST = 600.0

#: An application that starts when the collector is back.
_APPLICATION = "import telemetry; telemetry.setup(); telemetry.flush(30)"

#: prctl(2): orphans become children of this process, which can wait for them then.
_PR_SET_CHILD_SUBREAPER = 36


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, and print the CPU per task; return the exit status."""
    options = _parse_options(argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    try:
        with tempfile.TemporaryDirectory(prefix="queuehop-bench-") as directory:
            seconds = _measure(Path(directory), options.tasks, options.repeats)
    except (Failed, PartEnded) as exc:
        print(exc, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; every process is stopped", file=sys.stderr)
        return 130
    micros = sorted(1e6 * one for one in seconds)
    print(
        f"CPU of the sender per task (send, run and their metrics), {options.tasks:,} tasks, "
        f"{options.repeats} repeats: min {micros[0]:.1f} µs, median {median(micros):.1f} µs"
    )
    return 0


def _parse_options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.sender",
        description="Measure the CPU that sending takes, per task.",
    )
    parser.add_argument("--tasks", type=int, default=TASKS, help=f"how many ({TASKS})")
    parser.add_argument("--repeats", type=int, default=REPEATS, help=f"how many ({REPEATS})")
    options = parser.parse_args(argv)
    if options.tasks <= FEW or options.repeats < 1:
        parser.error(f"--tasks must be above {FEW}, and --repeats above 0")
    return options


def _measure(directory: Path, tasks: int, repeats: int) -> list[float]:
    """Return the CPU seconds per task of each repeat."""
    port = free_port()  # the same in each case: the records of another collector are not sent
    recorded = {
        count: _record(directory / f"recorded-{count}", port, count) for count in (FEW, tasks)
    }
    _deliver(recorded[FEW], port, FEW)  # reads files that nobody has read lately
    taken: dict[int, list[float]] = {FEW: [], tasks: []}
    for number in range(repeats):
        for count, seconds in taken.items():
            seconds.append(_deliver(recorded[count], port, count))
        few, many = (seconds[-1] for seconds in taken.values())
        line = f"repeat {number + 1} of {repeats}: {many:.2f} s; {FEW} tasks: {few:.2f} s"
        print(line, file=sys.stderr, flush=True)
    start = min(taken[FEW])
    return [(seconds - start) / (tasks - FEW) for seconds in taken[tasks]]


def _record(state: Path, port: int, count: int) -> Path:
    """Publish and run *count* tasks, and two marks; return the directory with their records."""
    began = time.monotonic()
    work = state.with_name(f"{state.name}-work")
    work.mkdir()
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": _endpoint(port), "QUEUEHOP_STATE_DIR": str(state)}
    with Stand(work) as stand, stand.run(OURS, env=env) as run:
        run.publish("mark=away", f"nothing={count}", "mark=away")
        run.hand_over()
        worker = run.work("solo")
        run.marks(2, worker)
        worker.interrupt()
        if worker.wait(60) is None:
            raise Failed("the worker has not ended")
    took = time.monotonic() - began
    print(f"{count} tasks published and run: {took:.0f} s", file=sys.stderr, flush=True)
    return state


def _deliver(recorded: Path, port: int, count: int) -> float:
    """Have a sender deliver a copy of what was *recorded*; return the CPU seconds that it took."""
    expected = 2 * (count + 2)
    name = uuid4().hex
    with tempfile.TemporaryDirectory(prefix="queuehop-bench-") as directory:
        state = Path(directory) / "state"
        shutil.copytree(recorded, state, ignore=_no_regular_file)
        env = {
            **{key: os.environ[key] for key in ("PATH", "HOME", "LANG") if key in os.environ},
            RUN: name,
            "OTEL_EXPORTER_OTLP_ENDPOINT": _endpoint(port),
            "OTEL_SERVICE_NAME": "bench",
            "PYTHONPATH": str(ROOT),
            "QUEUEHOP_STATE_DIR": str(state),
            "TMPDIR": directory,
        }
        try:
            with Receiver(port) as receiver:
                subprocess.run([sys.executable, "-c", _APPLICATION], env=env, check=True)
                seconds = _await_orphans()
        finally:
            for pid in list(processes(name)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
    if receiver.spans != expected or not receiver.metrics:
        found = f"{receiver.spans} spans and {receiver.metrics} requests with metrics"
        raise Failed(f"{found} arrived, not {expected} spans and some metrics")
    return seconds


def _await_orphans() -> float:
    """Wait until no child is left; return the CPU seconds of those that have ended here."""
    seconds = 0.0

    def none_left() -> bool:
        nonlocal seconds
        try:
            pid, _, usage = os.wait4(-1, os.WNOHANG)
        except ChildProcessError:
            return True
        if pid:
            seconds += usage.ru_utime + usage.ru_stime
        return False

    await_that("the sender ends", none_left, timeout=LONGEST)
    return seconds


def _no_regular_file(directory: str, names: list[str]) -> list[str]:
    """Return the *names* of what cannot be copied: pipes and sockets."""
    paths = {name: Path(directory, name) for name in names}
    return [name for name, path in paths.items() if not (path.is_file() or path.is_dir())]


def _endpoint(port: int) -> str:
    return f"http://127.0.0.1:{port}"


if __name__ == "__main__":
    sys.exit(main())
