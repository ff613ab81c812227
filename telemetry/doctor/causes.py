"""Which finding explains which, so that one cause is one finding with its consequences below."""

from collections.abc import Iterable, Sequence

from .finding import Finding

#: Each cause, and the codes (or beginnings of codes) that it explains. A cause that explains
#: another cause comes first. ``@hop`` limits a code to a hop, since a cause on one host explains
#: nothing on another.
_CAUSES: Sequence[tuple[str, tuple[str, ...]]] = (
    ("flask-not-loadable", ("celery-not-loadable",)),
    ("exporter-", ("worker-export-failed", "url-export-failed")),
    ("directory-not-writable@settings", ("directory-not-writable@worker",)),
    ("directory-not-writable", ("worker-export-failed", "url-export-failed")),
    ("flask-doubled", ("provider-without-exporter@web", "service-name-default@web")),
    ("celery-doubled@queue", ("celery-doubled@worker",)),
    ("celery-doubled", ("provider-without-exporter@worker", "service-name-")),
    ("no-provider@web", ("server-span-missing", "service-name-", "celery-not-instrumented")),
    ("set-up-only-in-", ("no-provider@worker",)),
    ("no-provider@worker", ("run-apart",)),
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
    """Return *findings* without duplicates, and with each consequence below its cause.

    A cause takes the place of its first consequence, if that comes before it.
    """
    found = list(dict.fromkeys(findings))
    for cause, consequences in _CAUSES:
        first = next((each for each in found if _is(each, cause)), None)
        if first is None:
            continue
        below = [
            each
            for each in found
            if each is not first
            and any(_is(each, code) for code in consequences)
            and _exception(each) == _exception(first)
        ]
        if not below:
            continue
        at = min(found.index(each) for each in (first, *below))
        rest = [each for each in found if each is not first and each not in below]
        # A consequence keeps its own consequences below it.
        found = [*rest[:at], first.with_consequences(below), *rest[at:]]
    return found


def _exception(finding: Finding) -> str:
    """Return the exception that an application raised while it was loaded."""
    return finding.problem.partition(" cannot be loaded: ")[2]


def _is(finding: Finding, code: str) -> bool:
    """Return whether *finding* matches *code*: a code, the beginning of one, or ``code@hop``."""
    name, _, hop = code.partition("@")
    matches = finding.code.startswith(name) if name.endswith("-") else finding.code == name
    return matches and (not hop or finding.hop == hop)
