"""Link the body of a chord to all of its parts.

The part that ends last publishes the body. On the Redis result backend, each part stores its
traceparent beside the results, and the last one reads them. Other backends publish the body from a
task of their own that polls, and do not expose its parts.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, wraps
from typing import Any

from ..propagation.traceparent import format_traceparent, parse_links
from ..tracing.context import get_current, parent_in
from ..tracing.faults import log_internal_error
from ..tracing.record import ParentContext

#: Set while the result of a part is stored: reads and deletes the list of all parts' runs.
_take_runs: ContextVar[Callable[[], list[ParentContext]] | None]
_take_runs = ContextVar("queuehop_chord", default=None)

_MARK = "queuehop_watched"

#: Seconds after which the traceparents of an unfinished chord expire, if results do not.
EXPIRES = 86_400


def watch_chord(backend: Any) -> None:
    """Let each part of a chord store its traceparent in *backend*, once."""
    if hasattr(backend, _MARK) or not _is_redis(backend):
        return
    store_part = backend.on_chord_part_return

    @wraps(store_part)
    def on_chord_part_return(request: Any, state: Any, result: Any, **options: Any) -> Any:
        with _storing_part(backend, request):
            return store_part(request, state, result, **options)

    backend.on_chord_part_return = on_chord_part_return
    setattr(backend, _MARK, True)


def _is_redis(backend: Any) -> bool:
    # Importing the module needs the redis package.
    module = sys.modules.get("celery.backends.redis")
    return module is not None and isinstance(backend, module.RedisBackend)


@contextmanager
def _storing_part(backend: Any, request: Any) -> Iterator[None]:
    group = getattr(request, "group", None)
    run = parent_in(get_current())
    if not group or run is None:
        yield
        return
    key = backend.get_key_for_group(group, ".queuehop")
    try:
        with backend.client.pipeline() as pipe:
            pipe.rpush(key, format_traceparent(run))
            pipe.expire(key, int(backend.expires or EXPIRES))
            pipe.execute()
    except Exception:
        log_internal_error("store the traceparent of a part of a chord")

    @cache  # a body that is a group reads them often
    def take_runs() -> list[ParentContext]:
        with backend.client.pipeline() as pipe:
            pipe.lrange(key, 0, -1)
            pipe.delete(key)
            runs, _ = pipe.execute()
        return parse_links(b",".join(runs))

    token = _take_runs.set(take_runs)
    try:
        yield
    finally:
        _take_runs.reset(token)


def chord_part_runs() -> list[ParentContext]:
    """Return the runs of the parts, if the message being published is a chord's body."""
    take_runs = _take_runs.get()
    if take_runs is None:
        return []
    try:
        return take_runs()
    except Exception:
        log_internal_error("collect the headers of a chord")
        return []
