"""Which finding explains which: one cause is reported once, with its consequences below it."""

from collections.abc import Iterable, Sequence

from .finding import Finding

__all__ = ["explain"]

#: Codes, or their beginnings, by the cause that explains them. Causes that explain others come
#: first. A cause on one host explains nothing on another, so each names its hops where it matters.
_CAUSES: Sequence[tuple[str, tuple[str, ...]]] = (
    ("exporter-", ("worker-export-failed", "url-export-failed")),
    ("directory-not-writable", ("worker-export-failed", "url-export-failed")),
    ("flask-doubled", ("provider-without-exporter@web", "service-name-default@web")),
    ("celery-doubled", ("provider-without-exporter@worker", "service-name-")),
    ("no-provider@web", ("server-span-missing", "service-name-", "celery-not-instrumented")),
    ("no-provider@worker", ("run-apart", "set-up-only-in-parent")),
    ("sampler-drops-all@web", ("server-span-missing",)),
    ("flask-not-instrumented", ("server-span-missing", "request-apart")),
    ("propagator-missing@worker", ("run-apart",)),
    (
        "propagator-missing@web",
        ("request-apart", "header-stripped", "run-apart", "task-class-drops-headers"),
    ),
    ("celery-not-instrumented", ("header-stripped", "run-apart", "task-class-past-send")),
    ("header-stripped", ("task-class-drops-headers", "run-apart", "probe-unanswered")),
    ("worker-not-instrumented", ("worker-lacks-task", "version-differs")),
    ("provider-without-exporter@worker", ("worker-export-failed",)),
    ("result-backend-", ("not-published", "result-missing")),
    ("service-name-default", ("service-name-shared",)),
    ("worker-lacks-task", ("version-differs",)),
)


def explain(findings: Iterable[Finding]) -> list[Finding]:
    """Return *findings* without repetitions, each that has a cause among them below its cause.

    A cause takes the place of the first of its consequences, if that came before it.
    """
    found = list(dict.fromkeys(findings))
    for cause, consequences in _CAUSES:
        first = next((each for each in found if _is(each, cause)), None)
        if first is None:
            continue
        below = [e for e in found if e is not first and any(_is(e, code) for code in consequences)]
        if not below:
            continue
        at = min(found.index(each) for each in (first, *below))
        rest = [each for each in found if each is not first and each not in below]
        # What the consequences explain themselves stays below them.
        found = [*rest[:at], first.with_consequences(below), *rest[at:]]
    return found


def _is(finding: Finding, code: str) -> bool:
    """Return whether *finding* has *code*: a code, the beginning of one, or ``code@hop``."""
    name, _, hop = code.partition("@")
    matches = finding.code.startswith(name) if name.endswith("-") else finding.code == name
    return matches and (not hop or finding.hop == hop)
