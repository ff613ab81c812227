"""``python -m telemetry doctor``: find the first place where a trace would break."""

import argparse
import json
import logging
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout, suppress
from dataclasses import asdict
from typing import Any

from .finding import Finding
from .load import NotFound, NotLoadable, load_celery, load_flask

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the checks; return 0 if a ping would be one trace, 1 if not, 2 for a usage error."""
    parser = _parser()
    options = parser.parse_args(argv)
    if not (options.celery or options.flask):
        parser.error("name an application: --celery, --flask, or both")
    sys.path.insert(0, os.getcwd())
    logging.getLogger(__package__.rpartition(".")[0]).addFilter(_Once())
    try:
        # What an application prints while it is loaded must not stand in the JSON.
        with redirect_stdout(sys.stderr):
            findings = list(dict.fromkeys(_walk(options)))
    except NotFound as exc:
        parser.error(str(exc))
    print(_json(findings) if options.json else _text(findings, sys.stdout.isatty()))
    return 1 if findings else 0


class _Once(logging.Filter):
    """Lets each line pass once: the settings are read by the application and by the checks."""

    def __init__(self) -> None:
        super().__init__()
        self._said: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        line = record.getMessage()
        new = line not in self._said
        self._said.add(line)
        return new


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m telemetry doctor",
        description="Find the first place where a trace would break, and say what to do. "
        "Exit status: 0 if a ping would be one trace, 1 if not, 2 if no such application is there.",
    )
    parser.add_argument("--celery", metavar="APP", help="as for celery -A: workers, module:app")
    parser.add_argument("--flask", metavar="APP", help="as for flask --app: app, module:factory")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--timeout", type=_seconds, default=10.0, metavar="SECONDS",
        help="for the probes to come back through the queues (%(default)g)",
    )  # fmt: skip
    return parser


def _seconds(value: str) -> float:
    with suppress(ValueError):
        if 0 < (seconds := float(value)) < math.inf:
            return seconds
    raise argparse.ArgumentTypeError(f"{value!r} is no number of seconds")


def _walk(options: argparse.Namespace) -> Iterator[Finding]:
    """Go the way of a message; each application's own needs are loaded only if it is named."""
    from ..config.settings import spool
    from ..selfcheck import describe_process
    from .directory import check_directory, not_writable
    from .exporter import check_exporter

    if options.flask:
        yield from _loaded(load_flask, options.flask, _check_web)
    if options.celery:
        yield from _loaded(
            load_celery, options.celery, lambda app: _check_queue(app, options.timeout)
        )
    here = describe_process()
    if here.foreign:
        return  # its exporter is the application's own affair
    if broken := check_exporter():
        yield broken
    kept = spool()
    if kept and (broken := check_directory(kept.directory)):
        yield broken
    elif here.unwritable:
        yield not_writable("settings", here.unwritable)


def _check_web(app: Any) -> Iterator[Finding]:
    from .web_process import check_web

    return check_web(app)


def _check_queue(app: Any, timeout: float) -> Iterator[Finding]:
    from .queue import check_queue

    return check_queue(app, timeout)


def _loaded(
    load: Callable[[str], Any], name: str, check: Callable[[Any], Iterator[Finding]]
) -> Iterator[Finding]:
    try:
        app = load(name)
    except NotLoadable as exc:
        yield exc.finding
    else:
        yield from check(app)


def _json(findings: list[Finding]) -> str:
    return json.dumps({"ok": not findings, "findings": [asdict(each) for each in findings]})


def _text(findings: list[Finding], colour: bool) -> str:
    red, green, plain = ("\x1b[31m", "\x1b[32m", "\x1b[0m") if colour else ("", "", "")
    if not findings:
        return f"{green}A ping would be one trace.{plain}"
    lines = [f"{red}The trace would break first at: {findings[0].hop}{plain}"]
    for finding in findings:
        lines += [
            f"{red}✗{plain} {finding.hop}: {finding.problem} [{finding.code}]",
            f"  → {finding.remedy}",
        ]
    return "\n".join(lines)
