"""The usage of processes, by Linux' ``/proc`` and clocks: CPU seconds, resident bytes.

All processes of one run of a variant have the same ``BENCH_RUN`` in their environment, also those
that leave their parent. A helper is a process that runs nothing of ``bench``.
"""

import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

RUN = "BENCH_RUN"

_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU seconds since the start, and resident bytes, of the application and of its helpers."""

    cpu: float
    helpers: float
    resident: int
    helpers_resident: int

    @classmethod
    def now(cls) -> "Usage":
        """Return the usage of this process, and of its helpers."""
        found = usage_of(os.environ[RUN], os.getsid(0))
        # Read the clock last, so that the measurement itself is not in the next one.
        return replace(found, cpu=time.process_time())

    def as_json(self) -> dict[str, Any]:
        """Return it as a mapping of numbers."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _Process:
    session: int
    command: bytes
    cpu: float
    resident: int

    @classmethod
    def read(cls, pid: int) -> "_Process | None":
        """Return the facts in ``/proc`` about *pid*, None if the process has ended."""
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
            cpu = time.clock_gettime(_cpu_clock(pid))
        except OSError:
            return None
        # proc(5): from the third field on; the second may hold spaces and parentheses.
        fields = stat.rpartition(")")[2].split()
        cpu += sum(map(int, fields[13:15])) / _TICK  # of the children that it has reaped
        return cls(int(fields[3]), command, cpu, int(fields[21]) * _PAGE)


def _cpu_clock(pid: int) -> int:
    """Return the clock of what the process *pid* has used, as ``clock_getcpuclockid(3)`` does."""
    return (~pid << 3) | 2


def processes(run: str) -> Iterator[int]:
    """Yield the ids of all processes of *run*."""
    wanted = f"{RUN}={run}".encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                environ = (entry / "environ").read_bytes()
            except OSError:
                continue
            if wanted in environ.split(b"\0"):
                yield int(entry.name)


def usage_of(run: str, session: int) -> Usage:
    """Add up the processes of *run* that are in *session*, and the helpers of all of the run."""
    cpu = helpers = 0.0
    resident = helpers_resident = 0
    for process in filter(None, map(_Process.read, processes(run))):
        if process.session == session:
            cpu += process.cpu
            resident += process.resident
        elif b"bench." not in process.command:
            helpers += process.cpu
            helpers_resident += process.resident
    return Usage(cpu, helpers, resident, helpers_resident)
