"""The doctor's report, as text and as JSON."""

import argparse
import json
from collections.abc import Iterator
from typing import Any

from .finding import Finding


def as_json(findings: list[Finding], hints: list[Finding]) -> str:
    """Return the report as a JSON object."""
    report: dict[str, Any] = {
        "ok": not findings,
        "findings": [each.as_dict() for each in findings],
    }
    if hints:
        report["hints"] = [each.as_dict() for each in hints]
    return json.dumps(report)


def as_text(
    findings: list[Finding], hints: list[Finding], options: argparse.Namespace, color: bool
) -> str:
    """Return the report as lines for a person."""
    red, green, yellow, plain = (
        ("\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[0m") if color else ("", "", "", "")
    )
    lines = [f"{green}{_sound(options)}{plain}"]
    if findings:
        lines = [f"{red}The first problem is at: {findings[0].hop}{plain}"]
    for mark, each in (
        *((f"{red}✗{plain}", finding) for finding in findings),
        *((f"{yellow}?{plain}", hint) for hint in hints),
    ):
        lines += [f"{mark} {each.hop}: {each.problem} [{each.code}]", f"  → {each.remedy}"]
        lines += [f"  and so: {e.hop}: {e.problem} [{e.code}]" for e in _below(each)]
    return "\n".join(lines)


def _sound(options: argparse.Namespace) -> str:
    """Return the first line of a report without findings."""
    if not options.celery:
        return "A request makes one trace."
    if not (options.flask or options.url):
        return "A task runs, in the trace of its sender."
    return "A request makes one trace, and a task runs in it."


def _below(finding: Finding) -> Iterator[Finding]:
    """Yield all consequences of *finding*, also those of its consequences."""
    for each in finding.consequences:
        yield each
        yield from _below(each)
