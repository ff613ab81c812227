"""Publishes what it is told and says what that has cost: ``python -m bench.publisher PLAN …``.

A plan is words such as ``nothing=200 mark=start nothing=4000``: a task and how often, or the name
of a mark. It prints a line of JSON for each of the former. For ``page=200`` the page that publishes
is asked for so often, without a server.
"""

import json
import sys
import time
from collections.abc import Callable

from werkzeug.test import EnvironBuilder

from .application import NO_FLUSH, app, create_app
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
    once = _page() if name == "page" else app.tasks[f"bench.application.{name}"].delay
    flush()
    before, seconds = Usage.now(), []
    for _ in range(count):
        began = time.perf_counter()
        once()
        seconds.append(time.perf_counter() - began)
    flush()
    after = Usage.now()
    return {
        "count": count,
        "cpu": after.cpu - before.cpu,
        "helpers_before": before.helpers,
        "p99": sorted(seconds)[int(count * 0.99)],
    }


def _page() -> Callable[[], None]:
    """Return what asks for the page as a WSGI server does, and reads the answer."""
    web = create_app()
    environ = EnvironBuilder(path="/ping", environ_base={"REMOTE_ADDR": "127.0.0.1"}).get_environ()

    def once() -> None:
        body = web(dict(environ), lambda status, headers, exc_info=None: _ignore)
        for _ in body:
            pass
        body.close()  # type: ignore[attr-defined]

    return once


def _ignore(data: bytes) -> None:
    pass


if __name__ == "__main__":
    main(sys.argv[1:])
