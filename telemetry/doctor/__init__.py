"""``python -m telemetry doctor``: find the first place where a trace would break."""

import argparse
import json
import logging
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout, suppress
from typing import Any

from .causes import explain
from .finding import Finding, hide_secrets
from .load import NotFound, NotLoadable, load_celery, load_flask

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the checks; return 0 if a request would be one trace, 1 if not, 2 for a usage error."""
    parser = _parser()
    options = parser.parse_args(argv)
    if not (options.celery or options.flask or options.url):
        parser.error("name an application: --celery, --flask, --url, or several of them")
    sys.path.insert(0, os.getcwd())
    logging.getLogger(__package__.rpartition(".")[0]).addFilter(_Once())
    try:
        # What an application prints while it is loaded must not stand in the JSON.
        with redirect_stdout(sys.stderr):
            found = list(_walk(options))
    except NotFound as exc:
        parser.error(hide_secrets(str(exc)))
    findings = explain(each for each in found if not each.hint)
    hints = [each for each in dict.fromkeys(found) if each.hint]
    if options.json:
        print(_json(findings, hints))
    else:
        print(_text(findings, hints, sys.stdout.isatty()))
    return 1 if findings else 0


def _step(text: str) -> None:
    """Tell a person at a terminal what the doctor does now."""
    if sys.stderr.isatty():
        print(f"· {text}", file=sys.stderr, flush=True)


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
        "Exit status: 0 if a request makes one trace and a task runs, 1 if not, 2 if there is no "
        "such application.",
    )
    parser.add_argument("--celery", metavar="APP", help="as for celery -A: workers, module:app")
    parser.add_argument("--flask", metavar="APP", help="as for flask --app: app, module:factory")
    parser.add_argument(
        "--path", metavar="PATH",
        help="send the Flask app a GET for this path, and look at the spans of its view too "
        "(without it: an OPTIONS for each of its routes, which runs no view)",
    )  # fmt: skip
    parser.add_argument(
        "--url", metavar="URL",
        help="send a GET to a server that runs, through the proxies in front of it",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--timeout", type=_seconds, default=10.0, metavar="SECONDS",
        help="for a request, and for the probes to come back through the queues (%(default)g)",
    )  # fmt: skip
    parser.add_argument(
        "--count", action="store_true",
        help="let the viewer count the doctor's own requests and tasks in its queues and map",
    )  # fmt: skip
    return parser


def _seconds(value: str) -> float:
    with suppress(ValueError):
        if 0 < (seconds := float(value)) < math.inf:
            return seconds
    raise argparse.ArgumentTypeError(f"{value!r} is not a number of seconds")


def _walk(options: argparse.Namespace) -> Iterator[Finding]:
    """Go the way of a message; each application's own needs are loaded only if it is named."""
    from ..config.settings import spool
    from ..selfcheck import describe_process
    from .directory import check_directory, not_writable
    from .exporter import check_exporter

    if options.flask:
        _step(f"loading the Flask app {options.flask}")
        yield from _loaded(load_flask, options.flask, lambda app: _check_web(app, options))
    if options.url:
        from .url import check_url

        _step(f"sending a request to {hide_secrets(options.url)}")
        yield from check_url(options.url, options.timeout, options.count)
    if options.celery:
        web = describe_process() if options.flask else None
        used = _app_of_threads() if "celery" in sys.modules and options.flask else None
        _step(f"loading the Celery app {options.celery}")
        yield from _loaded(
            load_celery, options.celery, lambda app: _check_queue(app, web, used, options)
        )
    here = describe_process()
    if here.foreign:
        return  # its exporter is the application's own affair
    _step("sending the collector an export without spans")
    if broken := check_exporter():
        yield broken
    kept = spool()
    if kept and (broken := check_directory(kept.directory)):
        yield broken
    elif here.unwritable:
        yield not_writable("settings", here.unwritable)


def _check_web(app: Any, options: argparse.Namespace) -> Iterator[Finding]:
    from .request import check_request
    from .web_process import check_web

    yield from check_web(app)
    _step("sending the Flask app a request with a traceparent")
    yield from check_request(app, options.path, options.timeout, options.count)


def _app_of_threads() -> Any:
    from .publishing import app_of_threads

    return app_of_threads()


def _check_queue(app: Any, web: Any, used: Any, options: argparse.Namespace) -> Iterator[Finding]:
    from .queue import check_queue

    return check_queue(
        app, options.timeout, web=web, used=used or _app_of_threads(), counted=options.count,
        step=_step,
    )  # fmt: skip


def _loaded(
    load: Callable[[str], Any], name: str, check: Callable[[Any], Iterator[Finding]]
) -> Iterator[Finding]:
    try:
        app = load(name)
    except NotLoadable as exc:
        yield exc.finding
    else:
        yield from check(app)


def _json(findings: list[Finding], hints: list[Finding]) -> str:
    report: dict[str, Any] = {
        "ok": not findings,
        "findings": [each.as_dict() for each in findings],
    }
    if hints:
        report["hints"] = [each.as_dict() for each in hints]
    return json.dumps(report)


def _text(findings: list[Finding], hints: list[Finding], colour: bool) -> str:
    red, green, yellow, plain = (
        ("\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[0m") if colour else ("", "", "", "")
    )
    lines = [f"{green}A request makes one trace.{plain}"]
    if findings:
        lines = [f"{red}The trace would break first at: {findings[0].hop}{plain}"]
    for finding in findings:
        lines += [
            f"{red}✗{plain} {finding.hop}: {finding.problem} [{finding.code}]",
            f"  → {finding.remedy}",
        ]
        lines += [f"  and so: {each.hop}: {each.problem} [{each.code}]" for each in _below(finding)]
    for hint in hints:
        lines += [
            f"{yellow}?{plain} {hint.hop}: {hint.problem} [{hint.code}]",
            f"  → {hint.remedy}",
        ]
    return "\n".join(lines)


def _below(finding: Finding) -> Iterator[Finding]:
    """Yield all consequences of *finding*, also those of its consequences."""
    for each in finding.consequences:
        yield each
        yield from _below(each)
