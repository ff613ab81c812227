"""The viewer and the doctor, on the command line: ``python -m telemetry``."""

import argparse
import sys
from collections.abc import Sequence
from urllib.parse import urlsplit

MISSING = "the viewer needs {}: pip install 'queuehop[viewer]'"


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return its exit status."""
    parser = _parser()
    options, rest = parser.parse_known_args(argv)
    if rest and options.run is not _doctor:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    try:
        return int(options.run(rest if options.run is _doctor else options))
    except KeyboardInterrupt:
        return 130
    except ModuleNotFoundError as exc:
        package = (exc.name or "").partition(".")[0]
        if package not in ("flask", "graphlay", "rich", "werkzeug"):
            raise
        print(MISSING.format(package), file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m telemetry", description="See traces, and find the place where one breaks."
    )
    commands = parser.add_subparsers(required=True, metavar="command")
    view = commands.add_parser(
        "view", help="receive traces and show where the time went",
        description="Receive traces and logs over OTLP, and show where the time went.",
    )  # fmt: skip
    view.set_defaults(run=_view)
    view.add_argument(
        "trace_id", nargs="?", metavar="TRACE_ID",
        help="print this trace from the database and exit; the beginning of its id is enough",
    )  # fmt: skip
    view.add_argument(
        "--grpc", type=_address, default="127.0.0.1:4317", metavar="HOST:PORT",
        help="the address for OTLP/gRPC (%(default)s)",
    )  # fmt: skip
    view.add_argument(
        "--http", type=_address, default="127.0.0.1:4318", metavar="HOST:PORT",
        help="the address for the page, its API, and OTLP/HTTP (%(default)s)",
    )  # fmt: skip
    view.add_argument(
        "--db", metavar="PATH",
        help="the database of the traces; :memory: stores none on disk (traces.db in the state "
        "directory)",
    )  # fmt: skip
    view.add_argument(
        "--max-spans", type=_count, default=1_000_000, metavar="COUNT",
        help="delete the oldest traces beyond this number of spans (%(default)s)",
    )  # fmt: skip
    view.add_argument(
        "--max-age", type=_count, default=7 * 86_400, metavar="SECONDS",
        help="delete traces and log records that are older (%(default)s)",
    )  # fmt: skip
    view.add_argument(
        "--stuck-after", type=_count, default=60, metavar="SECONDS",
        help="a due message is stuck if no worker takes it for this time (%(default)s)",
    )  # fmt: skip
    view.add_argument(
        "--follow", action="store_true", help="print each trace as a tree when it arrives"
    )
    # The doctor has options of its own, and reads them itself.
    doctor = commands.add_parser(
        "doctor", help="find the first place where a trace would break", add_help=False
    )
    doctor.set_defaults(run=_doctor)
    return parser


def _doctor(argv: Sequence[str]) -> int:
    from .doctor import main as diagnose

    return diagnose(argv)


def _view(options: argparse.Namespace) -> int:
    from .viewer.command import view
    from .viewer.store.database import default_path

    options.db = options.db or str(default_path())
    return view(options)


def _address(value: str) -> str:
    try:
        url = urlsplit(f"//{value}")
        if url.hostname and url.port is not None and url.netloc == value and "@" not in value:
            return value
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{value!r} is not host:port")


def _count(value: str) -> int:
    if not value.isdecimal() or not int(value):
        raise argparse.ArgumentTypeError(f"{value!r} is not a whole number of at least 1")
    return int(value)


if __name__ == "__main__":
    sys.exit(main())
