"""What tracing costs in instructions: ``python -m bench.instructions``.

Other than seconds these are nearly the same on every machine and at every time: what is added is
known to some 10,000. They say nothing of how long one takes: code that runs once in a while finds
the processor's caches cold. Valgrind counts them, in the process itself: what a sender does is not
in it. A program takes fifty times as long as otherwise: some ten minutes in all.
"""

import re
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from app.parts import Part, PartEnded

from .stand import Failed, Run, Stand
from .variants import BARE, CONTRIB, OURS, Variant

#: The difference between these is what is counted: what a process takes to start is in both.
FEW, MANY = 100, 1000

VALGRIND = ("valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null")


def main() -> int:
    """Count, and print a table; return the exit status."""
    if shutil.which(VALGRIND[0]) is None:
        print("valgrind is missing: Debian's package of that name has it", file=sys.stderr)
        return 1
    try:
        with (
            tempfile.TemporaryDirectory(prefix="queuehop-bench-") as directory,
            Stand(Path(directory)) as stand,
        ):
            counted = {one.name: _per_task(stand, one) for one in (BARE, CONTRIB, OURS)}
    except (Failed, PartEnded) as exc:
        print(exc, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; every process is stopped", file=sys.stderr)
        return 130
    bare = counted[BARE.name]
    for what in bare:
        contrib, ours = (counted[one.name][what] - bare[what] for one in (CONTRIB, OURS))
        print(
            f"{what}: bare {bare[what]:,.0f} instructions, contrib adds {contrib:,.0f}, "
            f"ours adds {ours:,.0f}: ours : contrib {ours / contrib:.2f}"
        )
    return 0


def _per_task(stand: Stand, variant: Variant) -> Mapping[str, float]:
    """Return the instructions of a publish, of a run and of a request whose page publishes."""
    few, many = (_in_all(stand, variant, count) for count in (FEW, MANY))
    return {what: (many[what] - few[what]) / (MANY - FEW) for what in few}


def _in_all(stand: Stand, variant: Variant, count: int) -> Mapping[str, int]:
    """Return the instructions of a process that publishes *count* messages, and of a worker."""
    print(f"{variant.name}: {count} tasks", file=sys.stderr, flush=True)
    with stand.run(variant, under=VALGRIND) as run:
        publisher = run.start("bench.publisher", f"nothing={count}", "mark=away")
        published = _counted(run, publisher)
        run.hand_over()
        worker = run.work("solo")
        run.marks(1, worker)
        worker.ask()
        ran = _counted(run, worker)
        server = run.start("bench.publisher", f"page={count}", "mark=away")
        return {"publish": published, "run": ran, "request": _counted(run, server)}


def _counted(run: Run, part: Part) -> int:
    """Return the instructions of *part*, once it has ended."""
    if part.wait(600) is None:
        raise Failed(f"{part.name} does not end")
    said = run.said(part)
    found = re.search(rf"=={part.pid}== I +refs: +([\d,]+)", said)
    if found is None:
        raise Failed(f"valgrind has not counted {part.name}:\n{said}")
    return int(found[1].replace(",", ""))


if __name__ == "__main__":
    sys.exit(main())
