"""Hop 5 of 5: the work. Each task makes a random string; ``ping`` touches the stores too."""

import random
import string
from typing import Any

from celery import Task

from . import stores
from .celery import app

#: The lengths that a string may have.
LENGTHS = range(1, 1025)

_FAILING_ATTEMPTS = 2


class Unavailable(Exception):
    """A service that the task needs is down for a moment. A retry helps."""


@app.task(resultrepr_maxsize=120)
def ping(length: int | None = None) -> dict[str, Any]:
    """Make a string and write to every store. A store that fails does not fail the task."""
    answer = _answer(length)
    return {**answer, "stores": stores.touch(answer["length"])}


@app.task(bind=True, max_retries=_FAILING_ATTEMPTS, resultrepr_maxsize=120)
def retry(self: Task, length: int | None = None) -> dict[str, Any]:
    """Fail twice with a passing error, then make a string."""
    retries = self.request.retries
    if retries < _FAILING_ATTEMPTS:
        reason = Unavailable(f"attempt {retries + 1} of {_FAILING_ATTEMPTS + 1} fails")
        raise self.retry(exc=reason, countdown=0.2 * 2**retries)
    return {**_answer(length), "retries": retries}


@app.task
def fail(length: int | None = None) -> None:
    """Fail, always."""
    raise RuntimeError("this task always fails")


def _answer(length: int | None) -> dict[str, Any]:
    length = random.choice(LENGTHS) if length is None else length
    alphabet = string.ascii_letters + string.digits
    return {"string": "".join(random.choices(alphabet, k=length)), "length": length}
