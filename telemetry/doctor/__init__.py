"""``python -m telemetry doctor``: find the first place where a trace would break."""

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from .finding import Finding

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the checks; return 0 if a ping would be one trace, 1 if not, 2 for a usage error."""
    parser = _parser()
    options = parser.parse_args(argv)
    if not (options.celery or options.flask):
        parser.error("name an application: --celery, --flask, or both")
    sys.path.insert(0, os.getcwd())
    try:
        findings = list(dict.fromkeys(_walk(options)))
    except _NotFound as exc:
        parser.error(str(exc))
    print(_json(findings) if options.json else _text(findings, sys.stdout.isatty()))
    return 1 if findings else 0


class _NotFound(Exception):
    """An application that was named cannot be loaded."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m telemetry doctor", description=__doc__)
    parser.add_argument("--celery", metavar="APP", help="as for celery -A: workers, module:app")
    parser.add_argument("--flask", metavar="APP", help="as for flask --app: app, module:factory")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--timeout", type=float, default=10.0, metavar="SECONDS",
        help="for a probe to come back through a queue (%(default)g)",
    )  # fmt: skip
    return parser


def _walk(options: argparse.Namespace) -> Iterator[Finding]:
    """Go the way of a message; each application's own needs are loaded only if it is named."""
    from ..settings import spool
    from .directory import check_directory
    from .exporter import check_exporter

    if options.flask:
        from .web import check_web

        yield from check_web(_flask(options.flask))
    if options.celery:
        from .queue import check_queue

        yield from check_queue(_celery(options.celery), options.timeout)
    kept = spool()
    yield from filter(None, (check_exporter(), kept and check_directory(kept.directory)))


def _flask(name: str) -> Any:
    from flask.cli import NoAppException, ScriptInfo

    try:
        return ScriptInfo(app_import_path=name).load_app()
    except (NoAppException, ImportError) as exc:
        raise _NotFound(f"--flask {name}: {exc}") from exc


def _celery(name: str) -> Any:
    from celery.app.utils import find_app

    try:
        return find_app(name)
    except (AttributeError, ImportError, ValueError) as exc:
        raise _NotFound(f"--celery {name}: {exc}") from exc


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
