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
from urllib.parse import urlsplit

from .causes import explain
from .finding import Finding, hide_secrets
from .load import NotFound, NotLoadable, load_celery, load_flask

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the checks. Return 0 without findings, 1 with findings, 2 after a usage error."""
    parser = _parser()
    options = parser.parse_args(argv)
    if not (options.celery or options.flask or options.url):
        parser.error("name an application: --celery, --flask, --url, or several of them")
    sys.path.insert(0, os.getcwd())
    logging.getLogger(__package__.rpartition(".")[0]).addFilter(_Once())
    try:
        # The report is the only text on standard output, whatever the application prints.
        with redirect_stdout(sys.stderr):
            found = list(_walk(options))
    except NotFound as exc:
        parser.error(hide_secrets(str(exc)))
    findings = explain(each for each in found if not each.hint)
    hints = [each for each in dict.fromkeys(found) if each.hint]
    if options.json:
        print(_json(findings, hints))
    else:
        print(_text(findings, hints, _sound(options), sys.stdout.isatty()))
    return 1 if findings else 0


def _step(text: str) -> None:
    """Print the next step, if a person watches standard error."""
    if sys.stderr.isatty():
        print(f"· {text}", file=sys.stderr, flush=True)


class _Once(logging.Filter):
    """Passes each line once: the application and the checks read the same settings."""

    def __init__(self) -> None:
        super().__init__()
        self._logged: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        line = record.getMessage()
        is_new = line not in self._logged
        self._logged.add(line)
        return is_new


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m telemetry doctor",
        description="Find the first place where a trace would break, and print the remedy. "
        "Exit status: 0 if a request makes one trace and a task runs, 1 if not, 2 if the "
        "application does not exist.",
    )
    parser.add_argument("--celery", metavar="APP", help="as for celery -A: workers, module:app")
    parser.add_argument("--flask", metavar="APP", help="as for flask --app: app, module:factory")
    parser.add_argument(
        "--path", metavar="PATH",
        help="send the Flask app a GET for this path, and check the spans of its view too "
        "(default: an OPTIONS for each route, which runs no view)",
    )  # fmt: skip
    parser.add_argument(
        "--url", type=_url, metavar="URL",
        help="send a GET to a running server, through the proxies in front of it",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--timeout", type=_seconds, default=10.0, metavar="SECONDS",
        help="how long to wait for a request, and for the probes of the queues (%(default)g)",
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


def _url(value: str) -> str:
    with suppress(ValueError):
        url = urlsplit(value)
        if url.scheme in ("http", "https") and url.hostname and url.port != 0:
            return value
    raise argparse.ArgumentTypeError(
        f"{hide_secrets(value)!r} is not an address; write http://host:port/path"
    )


def _walk(options: argparse.Namespace) -> Iterator[Finding]:
    """Check each hop in the order of a ping. Import what a hop needs only if it is checked."""
    from ..selfcheck import describe_process

    web = used = None
    published: dict[str, str] = {}
    if options.flask:
        _step(f"loading the Flask app {options.flask}")
        yield from _loaded(
            load_flask, options.flask, lambda app: _check_web(app, options, published)
        )
        web = describe_process()
        used = _app_of_threads() if "celery" in sys.modules else None
    if options.url:
        from .url import check_url

        _step(f"sending a request to {hide_secrets(options.url)}")
        yield from _finished("web", check_url(options.url, options.timeout, options.count))
    if options.celery:
        _step(f"loading the Celery app {options.celery}")
        yield from _loaded(
            load_celery,
            options.celery,
            lambda app: _check_queue(app, web, used, published, options),
        )
    if describe_process().foreign:
        return  # the exporter of the application's own provider is not configured here
    _step("sending the collector an export without spans")
    yield from _finished("export", _check_export())


def _finished(hop: str, check: Iterator[Finding]) -> Iterator[Finding]:
    """Yield the findings of *check*. One that raises does not hide those of the others."""
    try:
        yield from check
    except Exception as exc:
        yield Finding(
            "check-failed", hop,
            f"the doctor could not finish its checks: {type(exc).__name__}: {exc}",
            "correct that if it is yours; otherwise report it as a bug of queuehop",
        )  # fmt: skip


def _check_web(
    app: Any, options: argparse.Namespace, published: dict[str, str]
) -> Iterator[Finding]:
    from .request import check_request
    from .web_process import check_web

    yield from check_web(app)
    _step("sending the Flask app a request with a traceparent")
    yield from check_request(app, options.path, options.timeout, options.count, published)


def _app_of_threads() -> Any:
    from .publishing import app_of_threads

    return app_of_threads()


def _check_queue(
    app: Any, web: Any, used: Any, published: dict[str, str], options: argparse.Namespace
) -> Iterator[Finding]:
    from .queue import check_queue

    return check_queue(
        app, options.timeout, web=web, used=used or _app_of_threads(), published=published,
        counted=options.count, step=_step,
    )  # fmt: skip


def _check_export() -> Iterator[Finding]:
    from ..config.settings import spool
    from ..selfcheck import describe_process
    from .directory import check_directory, not_writable
    from .exporter import check_exporter

    if broken := check_exporter():
        yield broken
    on_disk = spool()
    if on_disk and (broken := check_directory(on_disk.directory)):
        yield broken
    elif unwritable := describe_process().unwritable:
        yield not_writable("settings", unwritable)


def _loaded(
    load: Callable[[str], Any], name: str, check: Callable[[Any], Iterator[Finding]]
) -> Iterator[Finding]:
    try:
        app = load(name)
    except NotLoadable as exc:
        yield exc.finding
    else:
        yield from _finished("web" if load is load_flask else "queue", check(app))


def _json(findings: list[Finding], hints: list[Finding]) -> str:
    report: dict[str, Any] = {
        "ok": not findings,
        "findings": [each.as_dict() for each in findings],
    }
    if hints:
        report["hints"] = [each.as_dict() for each in hints]
    return json.dumps(report)


def _sound(options: argparse.Namespace) -> str:
    """Return what is true if nothing was found."""
    if not options.celery:
        return "A request makes one trace."
    if not (options.flask or options.url):
        return "A task runs, in the trace of its sender."
    return "A request makes one trace, and a task runs in it."


def _text(findings: list[Finding], hints: list[Finding], sound: str, colour: bool) -> str:
    red, green, yellow, plain = (
        ("\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[0m") if colour else ("", "", "", "")
    )
    lines = [f"{green}{sound}{plain}"]
    if findings:
        lines = [f"{red}The first problem is at: {findings[0].hop}{plain}"]
    for mark, each in (
        *((f"{red}✗{plain}", finding) for finding in findings),
        *((f"{yellow}?{plain}", hint) for hint in hints),
    ):
        lines += [f"{mark} {each.hop}: {each.problem} [{each.code}]", f"  → {each.remedy}"]
        lines += [f"  and so: {e.hop}: {e.problem} [{e.code}]" for e in _below(each)]
    return "\n".join(lines)


def _below(finding: Finding) -> Iterator[Finding]:
    """Yield all consequences of *finding*, also those of its consequences."""
    for each in finding.consequences:
        yield each
        yield from _below(each)
