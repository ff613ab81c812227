"""The options of the doctor on the command line."""

import argparse
import math
from contextlib import suppress
from urllib.parse import quote, urlsplit

from .finding import hide_secrets


def parser() -> argparse.ArgumentParser:
    """Return the parser of the doctor's options."""
    made = argparse.ArgumentParser(
        prog="python -m telemetry doctor",
        description="Find the first place where a trace would break, and print the remedy. "
        "Exit status: 0 if a request makes one trace and a task runs, 1 if not, 2 if the "
        "application does not exist.",
    )
    made.add_argument("--celery", metavar="APP", help="as for celery -A: workers, module:app")
    made.add_argument("--flask", metavar="APP", help="as for flask --app: app, module:factory")
    made.add_argument(
        "--path", type=lambda path: f"/{path.removeprefix('/')}", metavar="PATH",
        help="send the Flask app a GET for this path, and check the spans of its view too "
        "(default: an OPTIONS for each route, which runs no view)",
    )  # fmt: skip
    made.add_argument(
        "--url", type=_url, metavar="URL",
        help="send a GET to a running server, through the proxies in front of it",
    )  # fmt: skip
    made.add_argument("--json", action="store_true", help="print JSON")
    made.add_argument(
        "--timeout", type=_seconds, default=10.0, metavar="SECONDS",
        help="seconds to wait for a request, and for the probes of the queues (%(default)g)",
    )  # fmt: skip
    made.add_argument(
        "--count", action="store_true",
        help="let the viewer count the doctor's own requests and tasks in its queues and map",
    )  # fmt: skip
    return made


def _seconds(value: str) -> float:
    with suppress(ValueError):
        if 0 < (seconds := float(value)) < math.inf:
            return seconds
    raise argparse.ArgumentTypeError(f"{value!r} is not a number of seconds")


def _url(value: str) -> str:
    with suppress(ValueError):
        url = urlsplit(value)
        if url.scheme in ("http", "https") and url.hostname and url.port != 0:
            return quote(value, safe="!#$%&'()*+,/:;=?@[]~")  # as a browser does
    raise argparse.ArgumentTypeError(
        f"{hide_secrets(value)!r} is not an address; write http://host:port/path"
    )
