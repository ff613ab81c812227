"""A finding of the doctor: one problem, its place and its remedy."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class Finding:
    """One problem: what fails, what that means, and what to do.

    *code* is for programs and never changes. *hop* is ``settings``, ``web``, ``queue``, ``worker``
    or ``export``. A *hint* may be intended, and does not change the exit status. *consequences* are
    findings that this one explains. Passwords, tokens, query strings and control characters are
    removed from the texts, which may quote what a server has sent.
    """

    code: str
    hop: str
    problem: str
    remedy: str
    hint: bool = False
    consequences: tuple["Finding", ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "problem", _clean(self.problem))
        object.__setattr__(self, "remedy", _clean(self.remedy))

    def with_consequences(self, findings: Iterable["Finding"]) -> "Finding":
        """Return this finding with *findings* below it."""
        return replace(self, consequences=(*self.consequences, *findings))

    def as_dict(self) -> dict[str, Any]:
        """Return this finding as a JSON object."""
        found: dict[str, Any] = {
            "code": self.code,
            "hop": self.hop,
            "problem": self.problem,
            "remedy": self.remedy,
        }
        if self.consequences:
            found["consequences"] = [each.as_dict() for each in self.consequences]
        return found


def _clean(text: str) -> str:
    """Return *text* as one line without secrets and control characters."""
    return " ".join(hide_secrets(_CONTROL.sub(" ", text)).split())


_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]|\ufffd")

#: Patterns of secrets, in the order in which they are replaced.
_SECRETS = (
    # scheme://user:password@host, with any characters in the password; then scheme://token@host.
    (re.compile(r"(\w[\w+.-]*://)([^\s:/@]*):\S*@"), r"\1\2:**@"),
    (re.compile(r"(\w[\w+.-]*://)[^\s:/@]+@"), r"\1**@"),
    # user:password@host without a scheme. A worker's name, celery@host, has no colon before the @.
    (re.compile(r"(?<![\w/@.:*-])([\w.+%-]*):(?!//)\S+@(?=[\w\[])"), r"\1:**@"),
    # A query string, also of a URL without a scheme; then password=…, token=… and the like.
    (re.compile(r"(?<=[\w/\]*-])\?[^\s'\"),]+"), "?…"),
    (re.compile(r"(?i)\b([\w-]*(?:password|passwd|secret|token|(?:api|account|access)[_-]?key)[\w-]*=)[^\s'\",;&]+"),
     r"\1…"),
    # A password with a # or / that is not percent-encoded is the port for Python.
    (re.compile(r"((?:to integer value as|nonnumeric port:|with base 10:) )('[^']*'|\"[^\"]*\")"),
     r"\1'…'"),
)  # fmt: skip


def hide_secrets(text: str) -> str:
    """Return *text* without passwords, tokens and query strings of the URLs in it."""
    for pattern, shown in _SECRETS:
        text = pattern.sub(shown, text)
    return text
