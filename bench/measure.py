"""What processes have used, read from Linux' ``/proc``: CPU seconds, resident bytes.

All processes of one run of a variant carry the same ``BENCH_RUN`` in their environment, those too
that leave their parent. A helper is one that is none of the application's own processes: it runs
another program or has a session of its own.
"""

import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

__all__ = ["RUN", "Usage", "processes", "usage_of"]

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
    def now(cls) -> Self:
        """Return the usage of this very process, to the nanosecond, and of its helpers."""
        own = _Process.read(os.getpid())
        others = usage_of(os.environ[RUN], like=own)
        resident = own.resident if own else 0
        return cls(time.process_time(), others.helpers, resident, others.helpers_resident)

    def as_json(self) -> dict[str, Any]:
        """Return it as a mapping of numbers."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _Process:
    pid: int
    session: int
    command: bytes
    cpu: float
    resident: int

    @classmethod
    def read(cls, pid: int) -> "_Process | None":
        """Return what ``/proc`` says of *pid*, None if it is gone."""
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            return None
        # proc(5): from the third field on; the second may hold spaces and parentheses.
        fields = stat.rpartition(")")[2].split()
        ticks = sum(map(int, fields[11:15]))  # its own, and those of the children that it reaped
        return cls(pid, int(fields[3]), command, ticks / _TICK, int(fields[21]) * _PAGE)


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


def usage_of(run: str, like: _Process | None = None, main: int = 0) -> Usage:
    """Add up the processes of *run*; helpers are those that are not *like* the process *main*."""
    like = like or _Process.read(main)
    cpu = helpers = 0.0
    resident = helpers_resident = 0
    for process in filter(None, map(_Process.read, processes(run))):
        if like and (process.session, process.command) == (like.session, like.command):
            cpu += process.cpu
            resident += process.resident
        else:
            helpers += process.cpu
            helpers_resident += process.resident
    return Usage(cpu, helpers, resident, helpers_resident)
