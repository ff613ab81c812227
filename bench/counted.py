"""Publish, then answer requests, for Valgrind to count: ``python -m bench.counted WARM COUNT``.

Each is done WARM times, then COUNT times between two snapshots. A line of JSON has the process id
of a snapshot (see ``bench.cachegrind``). The worker that runs the published tasks takes snapshots
at the same places of its queue.
"""

import json
import sys
from collections.abc import Callable

from werkzeug.test import EnvironBuilder

from .application import count, create_app, nothing, take_snapshot
from .variants import chosen


def main(warm: int, number: int) -> None:
    """Do *warm* and *number* publishes, and as many requests."""
    chosen().begin()
    parts = ((warm, True), (number, False))
    for times, begin in parts:
        for _ in range(times):
            nothing.delay()
        count.delay(begin)
        _print_snapshot(begin)
    ask = _page()
    for times, begin in parts:
        for _ in range(times):
            ask()
        _print_snapshot(begin)


def _print_snapshot(begin: bool) -> None:
    print(json.dumps({"snapshot": take_snapshot(begin)}), flush=True)


def _page() -> Callable[[], None]:
    """Return a function that requests the page as a WSGI server does, and reads the answer."""
    web = create_app()
    environ = EnvironBuilder(path="/ping", environ_base={"REMOTE_ADDR": "127.0.0.1"}).get_environ()

    def ask() -> None:
        body = web(dict(environ), lambda status, headers, exc_info=None: _ignore)
        for _ in body:
            pass
        body.close()  # type: ignore[attr-defined]

    return ask


def _ignore(data: bytes) -> None:
    pass


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
