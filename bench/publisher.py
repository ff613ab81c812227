"""Publishes what it is told and says what that has cost: ``python -m bench.publisher PLAN …``.

A plan is words such as ``nothing=200 mark=start nothing=4000``: a task and how often, or the name
of a mark. It prints a line of JSON for each of the former.
"""

import json
import sys
import time
from collections.abc import Callable

from .application import NO_FLUSH, app
from .measure import Usage
from .variants import chosen


def main(plan: list[str]) -> None:
    """Publish all of *plan*."""
    variant = chosen()
    variant.begin()
    flush = variant.flush if f"mark={NO_FLUSH}" not in plan else _no_flush
    for word in plan:
        task, _, argument = word.partition("=")
        if task == "mark":
            app.tasks["bench.application.mark"].delay(argument)
        else:
            print(json.dumps({"task": task, **_publish(task, int(argument), flush)}), flush=True)


def _no_flush() -> None:
    pass


def _publish(name: str, count: int, flush: Callable[[], None]) -> dict[str, object]:
    task = app.tasks[f"bench.application.{name}"]
    flush()
    before, seconds = Usage.now(), []
    for _ in range(count):
        began = time.perf_counter()
        task.delay()
        seconds.append(time.perf_counter() - began)
    flush()
    after = Usage.now()
    return {
        "count": count,
        "cpu": after.cpu - before.cpu,
        "helpers_before": before.helpers,
        "p99": sorted(seconds)[int(count * 0.99)],
    }


if __name__ == "__main__":
    main(sys.argv[1:])
