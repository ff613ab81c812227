"""``python -m telemetry doctor``: find the first place where a trace would break."""

import argparse
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout
from typing import Any

from .causes import explain
from .finding import Finding, hide_secrets
from .load import NotFound, NotLoadable, load_celery, load_flask
from .options import parser
from .report import as_json, as_text


def main(argv: Sequence[str] | None = None) -> int:
    """Run the checks. Return 0 without findings, 1 with findings, 2 after a usage error."""
    try:
        status = _diagnose(argv)
    except SystemExit as exc:  # of argparse, which has printed the reason
        status = int(exc.code or 0)
    if any(not thread.daemon for thread in threading.enumerate()[1:]):
        # An application may start threads that never end.
        from ..setup import flush

        flush()
        sys.stdout.flush()
        os._exit(status)
    return status


def _diagnose(argv: Sequence[str] | None) -> int:
    usage = parser()
    options = usage.parse_args(argv)
    if not (options.celery or options.flask or options.url):
        usage.error("name an application: --celery, --flask, --url, or several of them")
    sys.path.insert(0, os.getcwd())
    logging.getLogger(__package__.rpartition(".")[0]).addFilter(_Once())
    try:
        # The report is the only text on standard output, whatever the application prints.
        with redirect_stdout(sys.stderr):
            found = list(_walk(options))
    except NotFound as exc:
        usage.error(hide_secrets(str(exc)))
    findings = explain(each for each in found if not each.hint)
    hints = [each for each in dict.fromkeys(found) if each.hint]
    if options.json:
        print(as_json(findings, hints))
    else:
        print(as_text(findings, hints, options, sys.stdout.isatty()))
    return 1 if findings else 0


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


def _step(text: str) -> None:
    """Print the next step, if a person watches standard error."""
    if sys.stderr.isatty():
        print(f"· {text}", file=sys.stderr, flush=True)


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
    from ..selfcheck import describe_process
    from .collector import check_exporter
    from .spool_directory import check_directory

    if broken := check_exporter():
        yield broken
    if broken := check_directory(describe_process(), "settings"):
        yield broken


def _loaded(
    load: Callable[[str], Any], name: str, check: Callable[[Any], Iterator[Finding]]
) -> Iterator[Finding]:
    try:
        app = load(name)
    except NotLoadable as exc:
        yield exc.finding
    else:
        yield from _finished("web" if load is load_flask else "queue", check(app))
