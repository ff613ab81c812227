"""Count what tracing costs in simulated instructions and cycles: ``python -m bench.instructions``.

Valgrind's cachegrind counts the instructions of a publish, of a run and of a request for a page
that publishes. It also simulates two levels of caches and a branch predictor. Cycles are estimated:
instructions + 10 for each miss of a first-level cache and for each mispredicted branch + 100 for
each miss of the last-level cache (see ``bench.cachegrind``).

The figures are nearly the same on every machine. They cover the application's process alone: a
process that sends its spans is not counted (see ``python -m bench.sender``). A program runs some
hundred times slower under cachegrind. Threads that run by the clock count for more then, and on a
busy machine for more again.
"""

import argparse
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from app.parts import Part, PartEnded

from .cachegrind import COMMAND, VERSION, Counts, parse
from .stand import Failed, Run, Stand
from .variants import BARE, CONTRIB, DATADOG, OURS, SENTRY, Variant

VARIANTS = {one.name: one for one in (BARE, CONTRIB, OURS, SENTRY, DATADOG)}

#: Tasks before those that are counted, and those.
WARM, COUNT = 50, 200

#: Seconds that a process may run for.
LONGEST = 1800.0

#: The titles of variants that have another name in the documentation.
_TITLES = {"bare": "bare Celery", "ours": "queuehop"}

#: Counts of one task by hop, and by variant.
Result = Mapping[str, Mapping[str, Counts]]


def main(argv: Sequence[str] | None = None) -> int:
    """Count, and print two tables; return the exit status."""
    options = _parse_options(argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if shutil.which(COMMAND[0]) is None:
        print("valgrind is not installed. Debian, Ubuntu: apt install valgrind", file=sys.stderr)
        return 1
    chosen = [VARIANTS[name] for name in VARIANTS if name in (options.variant or VARIANTS)]
    if missing := [one.name for one in chosen if not one.is_installed()]:
        print(f"not installed: {', '.join(missing)}. Run `make instructions`", file=sys.stderr)
        if options.variant:
            return 1
        chosen = [one for one in chosen if one.is_installed()]
    # Everything is compared with the bare variant.
    chosen = [BARE, *(one for one in chosen if one is not BARE)]
    result: dict[str, Mapping[str, Counts]] = {}
    status = 0
    try:
        with (
            tempfile.TemporaryDirectory(prefix="queuehop-bench-") as directory,
            Stand(Path(directory)) as stand,
        ):
            for one in chosen:
                result[one.name] = _per_task(stand, one, options.warm, options.count)
    except (Failed, PartEnded) as exc:
        print(exc, file=sys.stderr)
        status = 1
    except KeyboardInterrupt:
        print("interrupted; every process is stopped", file=sys.stderr)
        status = 130
    if result:  # of the variants that were counted until then
        _print(result)
    return status


def _parse_options(argv: Sequence[str] | None) -> argparse.Namespace:
    description, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="python -m bench.instructions",
        description=description.partition(":")[0] + ".",
        epilog=rest,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--variant",
        action="append",
        choices=VARIANTS,
        help="count this one, and the bare one; may be given again; without it, all of them",
    )
    parser.add_argument(
        "--count", type=_positive, default=COUNT, help=f"tasks that are counted ({COUNT})"
    )
    parser.add_argument("--warm", type=_positive, default=WARM, help=f"tasks before them ({WARM})")
    return parser.parse_args(argv)


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise ValueError(text)
    return number


def _per_task(stand: Stand, variant: Variant, warm: int, count: int) -> Mapping[str, Counts]:
    """Return the counts of a publish, of a run and of a request for a page that publishes."""
    began = time.monotonic()
    # With another seed, dictionaries and sets are laid out differently.
    with stand.run(variant, under=COMMAND, env={"PYTHONHASHSEED": "0"}) as run:
        client = run.start("bench.counted", str(warm), str(count))
        _await_end(client)
        snapshots = [line["snapshot"] for line in run.printed(client)]
        publish, request = (_between(run, client, *pair) for pair in (snapshots[:2], snapshots[2:]))
        run.hand_over()
        worker = run.work("solo")
        marks = run.marks(2, worker, LONGEST)
        worker.interrupt()
        _await_end(worker)
        ran = _between(run, worker, *(mark["snapshot"] for mark in marks))
    took = time.monotonic() - began
    print(f"{variant.name}: {took:.0f} s", file=sys.stderr, flush=True)
    # The task that takes the first snapshot is published, and run, between the two.
    return {
        "publish": publish / (count + 1),
        "run": ran / (count + 1),
        "request": request / count,
    }


def _await_end(part: Part) -> None:
    if part.wait(LONGEST) is None:
        raise Failed(f"{part.name} has not ended after {LONGEST:.0f} s")


def _between(run: Run, part: Part, before: int, after: int) -> Counts:
    """Return what *part* did between two snapshots, which are process ids."""
    said = run.said(part)
    try:
        return parse(said, after) - parse(said, before)
    except ValueError as exc:
        raise Failed(f"{part.name} has not been counted: {exc}\n{said}") from exc


def _print(result: Result) -> None:
    instructions = _each(result, "instructions")
    cycles = _each(result, "cycles")
    version = subprocess.run(VERSION, capture_output=True, text=True, check=True).stdout.strip()
    print(f"<!-- python -m bench.instructions, {version} -->")
    print(*table("instructions", instructions), "", *table("cycles", cycles), sep="\n")


def _each(result: Result, what: str) -> Mapping[str, Mapping[str, float]]:
    return {
        name: {hop: getattr(counts, what) for hop, counts in hops.items()}
        for name, hops in result.items()
    }


def table(title: str, numbers: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    """Yield the lines of a Markdown table: what each variant adds, and its ratio to contrib's.

    *numbers* is by variant and by hop, and has the bare one.
    """
    bare = numbers[BARE.name]
    added = {
        name: {hop: number - bare[hop] for hop, number in hops.items()}
        for name, hops in numbers.items()
        if name != BARE.name
    }
    ratios = [name for name in added if name != CONTRIB.name and CONTRIB.name in added]
    yield _row(
        title,
        _TITLES[BARE.name],
        *(f"{_TITLES.get(name, name)} adds" for name in added),
        *(f"{_TITLES.get(name, name)} : contrib" for name in ratios),
    )
    yield "|---|" + "---:|" * (1 + len(added) + len(ratios))
    for hop in bare:
        yield _row(
            f"a {hop}",
            _thousands(bare[hop]),
            *(_thousands(added[name][hop]) for name in added),
            *(f"{added[name][hop] / added[CONTRIB.name][hop]:.2f}" for name in ratios),
        )


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _thousands(number: float) -> str:
    return f"{round(number, -3):,.0f}"


if __name__ == "__main__":
    sys.exit(main())
