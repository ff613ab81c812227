"""``python -m telemetry``: what the library can do from a command line."""

import argparse
import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m telemetry", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")
    doctor = commands.add_parser(
        "doctor", help="find the first place where a trace would break", add_help=False
    )
    doctor.set_defaults(run=_doctor)
    options, rest = parser.parse_known_args(argv)
    return int(options.run(rest))


def _doctor(argv: Sequence[str]) -> int:
    from .doctor import main

    return main(argv)


if __name__ == "__main__":
    sys.exit(main())
