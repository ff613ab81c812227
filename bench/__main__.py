"""Run the variants in turns and print the cost of tracing: ``python -m bench --help``."""

import argparse
import json
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from app.parts import PartEnded

from .figures import FULL, QUICK, Figure, Sample, figures
from .report import Variants, as_json, print_results, print_samples
from .stand import Failed, Stand

#: Rounds of all variants: their order is turned round each time, and with each turn.
ROUNDS, QUICK_ROUNDS = 7, 1


def main(argv: Sequence[str] | None = None) -> int:
    """Measure; return the exit status."""
    options = _parse(argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    rounds = options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS)
    known = figures(QUICK if options.quick else FULL, rounds)
    chosen = [figure for figure in known if options.only in figure.title]
    if not chosen:
        titles = (figure.title for figure in known)
        print("no figure has that in its name; there are:", *titles, sep="\n  ", file=sys.stderr)
        return 2
    try:
        with (
            tempfile.TemporaryDirectory(prefix="queuehop-bench-") as directory,
            Stand(Path(directory)) as stand,
        ):
            samples = {}
            for figure in chosen:
                samples[figure.title] = _measure(figure, stand)
                print_samples(figure.title, samples[figure.title])
    except (Failed, PartEnded) as exc:
        print(exc, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted; every process is stopped", file=sys.stderr)
        return 130
    print_results(samples)
    if options.json:
        text = json.dumps(as_json(samples, vars(options)), indent=1, default=str)
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(text + "\n")
        print(f"\nwritten: {options.json}")
    return 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="less of everything: a rough idea, in two minutes"
    )
    parser.add_argument("--rounds", type=int, help=f"how many, instead of {ROUNDS}")
    parser.add_argument("--only", default="", metavar="FIGURE", help="those whose name has it")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all of it there")
    return parser.parse_args(argv)


def _measure(figure: Figure, stand: Stand) -> Variants:
    """Return the samples of each variant: by round, one of each turn."""
    rounds: dict[str, list[Sequence[Sample]]] = {name: [] for name in figure.takes}
    for number in range(figure.rounds):
        began = time.monotonic()
        print(f"{figure.title}, round {number + 1} of {figure.rounds}:", end="", flush=True)
        for name, turns in _round(figure, stand, backwards=bool(number % 2)).items():
            rounds[name].append(turns)
        print(f" {time.monotonic() - began:.0f} s", flush=True)
    return rounds


def _round(figure: Figure, stand: Stand, backwards: bool) -> Mapping[str, Sequence[Sample]]:
    taken: dict[str, list[Sample]] = {name: [] for name in figure.takes}
    with ExitStack() as runs:
        going = {
            name: take.turns(runs.enter_context(stand.run(take.variant, away=take.away)))
            for name, take in figure.takes.items()
        }
        for turn in range(figure.turns):
            for name in reversed(going) if bool(turn % 2) is not backwards else going:
                taken[name].append(next(going[name]))
                print(".", end="", flush=True)
    return taken


if __name__ == "__main__":
    sys.exit(main())
