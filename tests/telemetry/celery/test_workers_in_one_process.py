"""Many workers and apps in one process, as in a long session of tests: each hop is traced once."""

from typing import Any

import pytest
from celery import Celery, Task
from celery.result import allow_join_result
from celery.utils.imports import symbol_by_name

from telemetry.celery import instrument_celery

from ...conftest import Broker
from ..tracing.sinks import ListSink
from .conftest import working

WORKERS = 3


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_the_third_wraps_nothing_more(broker: Broker, sink: ListSink) -> None:
    app = Celery("many", broker=broker.url, backend=broker.url, set_as_default=False)
    app.conf.worker_hijack_root_logger = False
    instrument_celery(app)

    @app.task(name="many.add")
    def add(x: int, y: int) -> int:
        return x + y

    shapes = []
    for _ in range(WORKERS):
        with working(app):
            assert add.delay(1, 2).get(timeout=60) == 3
        shapes.append(shape(app.tasks["many.add"]))
    assert shapes == [shapes[0]] * WORKERS
    names = [span.name for span in sink.received()]
    assert names == ["send many.add", "process many.add"] * WORKERS
    *_, send, run = sink.received()
    assert (run.trace_id, run.parent_id) == (send.trace_id, send.span_id)
    app.close()


def test_a_second_app_does_not_end_the_runs_of_the_first(sink: ListSink) -> None:
    """A task that runs in place is replaced. The replacement has the same id."""
    app, other = (Celery(name, broker="memory://", set_as_default=False) for name in "ab")
    instrument_celery(app)
    instrument_celery(other)

    @app.task(name="inner", shared=False)
    def inner() -> None:
        pass

    @app.task(name="outer", shared=False, bind=True)
    def outer(task: Task) -> None:
        with allow_join_result():
            task.replace(inner.si())
        inner.apply()

    outer.apply()
    replacement, second, run = sink.received()
    assert [each.name for each in (replacement, second, run)] == ["process inner"] * 2 + [
        "process outer"
    ]
    assert replacement.parent_id == second.parent_id == run.span_id


def shape(task: Any) -> tuple[int, int]:
    """Return how many classes the request of *task* has, and how often its strategy is wrapped."""
    depth, strategy = 0, task.start_strategy
    while (strategy := getattr(strategy, "__wrapped__", None)) is not None:
        depth += 1
    return len(symbol_by_name(task.Request).__mro__), depth
