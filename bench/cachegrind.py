"""The counts of cachegrind, Valgrind's cache simulator, for a process.

The summary's lines for data are totals, followed by their parts for reads and writes in brackets.
``LL misses`` is the sum of ``LLi misses`` and ``LLd misses``. A miss of the last-level cache is a
miss of a first-level cache too and counted in both lines, so it costs 10 + 100 cycles: the prices
are added, and nothing is subtracted. KCachegrind's "cycle estimation" adds up the same way.
"""

import ctypes
import os
import re
from dataclasses import dataclass, fields
from typing import Self

#: The caches are the same on every machine: size in bytes, ways, bytes of a line.
COMMAND = (
    *("valgrind", "--tool=cachegrind", "--cachegrind-out-file=/dev/null"),
    *("--cache-sim=yes", "--I1=32768,8,64", "--D1=32768,8,64", "--LL=8388608,16,64"),
    "--branch-sim=yes",
)

VERSION = (COMMAND[0], "--version")

FIRST_LEVEL_MISS = MISPREDICTED_BRANCH = 10
LAST_LEVEL_MISS = 100


@dataclass(frozen=True, slots=True)
class Counts:
    """The counts of a process, or the average of one task."""

    instructions: float
    first_level_misses: float
    last_level_misses: float
    mispredicted_branches: float

    @property
    def cycles(self) -> float:
        """Return the estimated cycles: one for each instruction, and the price of each miss."""
        return (
            self.instructions
            + FIRST_LEVEL_MISS * self.first_level_misses
            + LAST_LEVEL_MISS * self.last_level_misses
            + MISPREDICTED_BRANCH * self.mispredicted_branches
        )

    def __sub__(self, other: Self) -> Self:
        names = [field.name for field in fields(self)]
        return type(self)(*(getattr(self, name) - getattr(other, name) for name in names))

    def __truediv__(self, number: float) -> Self:
        return type(self)(*(getattr(self, field.name) / number for field in fields(self)))


def parse(output: str, pid: int) -> Counts:
    """Return the counts in the summary of the process *pid*, among whatever else it printed.

    Raises ValueError if the summary is not there, or not complete.
    """

    def total(name: str) -> int:
        found = re.search(rf"^=={pid}== {name}: +([\d,]+)", output, re.MULTILINE)
        if found is None:
            raise ValueError(f"no line {name.replace(' +', ' ')!r} of process {pid}")
        return int(found[1].replace(",", ""))

    return Counts(
        instructions=total("I +refs"),
        first_level_misses=total("I1 +misses") + total("D1 +misses"),
        last_level_misses=total("LLi +misses") + total("LLd +misses"),
        mispredicted_branches=total("Mispredicts"),
    )


def snapshot() -> int:
    """Fork a child that exits at once, and return its process id.

    Under Valgrind a child starts with its parent's counts, and prints a summary when it exits. So
    the difference between two snapshots is what the process did between them, without its start.
    ``_Fork`` runs no handlers of a fork, neither Python's nor a library's. It is in glibc 2.34.
    """
    libc = ctypes.PyDLL(None)  # keeps the interpreter's lock, which the child would wait for
    if (pid := int(libc._Fork())) == 0:
        libc._exit(0)
    os.waitpid(pid, 0)
    return pid
