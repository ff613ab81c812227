"""What the doctor says of one thing that it looked at."""

from dataclasses import dataclass

__all__ = ["Finding"]


@dataclass(frozen=True, slots=True)
class Finding:
    """A place where a trace breaks: where, what is wrong there, and what to do.

    *code* is for programs and does not change; *hop* is one of ``settings``, ``web``, ``queue``,
    ``worker``, ``export``.
    """

    code: str
    hop: str
    problem: str
    remedy: str
