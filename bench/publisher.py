"""Publish tasks and print their cost: ``python -m bench.publisher [PLAN …]``.

A plan is words such as ``nothing=200 mark=start nothing=4000``: a task and how often, or the name
of a mark. It prints a line of JSON for each of the former. Without a
plan it takes one after the other from a list of the broker's, and puts what it has to say into
another.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping

import redis

from .application import NO_FLUSH, app
from .measure import Usage
from .names import BROKER, PLANS, PUBLISHED
from .variants import chosen


def main(plan: list[str]) -> None:
    """Publish all of *plan*, or of each that comes."""
    chosen().begin()
    if plan:
        for line in _publish_all(plan):
            print(json.dumps(line), flush=True)
        return
    broker = redis.Redis.from_url(os.environ[BROKER], decode_responses=True, socket_timeout=None)
    while True:
        _, words = broker.blpop([PLANS])  # type: ignore[misc]  # None is for a timeout
        broker.rpush(PUBLISHED, json.dumps(list(_publish_all(str(words).split()))))


def _publish_all(plan: list[str]) -> Iterator[Mapping[str, object]]:
    flush = chosen().flush if f"mark={NO_FLUSH}" not in plan else _no_flush
    for word in plan:
        task, _, argument = word.partition("=")
        if task == "mark":
            app.tasks["bench.application.mark"].delay(argument)
        else:
            yield {"task": task, **_publish(task, int(argument), flush)}


def _no_flush() -> None:
    pass


def _publish(name: str, count: int, flush: Callable[[], None]) -> Mapping[str, object]:
    once = app.tasks[f"bench.application.{name}"].delay
    flush()
    before = Usage.now()
    for _ in range(count):
        once()
    flush()
    cpu = time.process_time() - before.cpu
    helpers = Usage.now().helpers - before.helpers
    return {"count": count, "cpu": cpu, "helpers": helpers}


if __name__ == "__main__":
    main(sys.argv[1:])
