"""Runs beside the signal handlers of others, and requests and apps that are copied or freed."""

import copy
import gc
import pickle
import textwrap
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery, Task, signals
from celery.exceptions import WorkerShutdown
from opentelemetry import context, trace
from opentelemetry.context import Context
from opentelemetry.trace import Span

from telemetry.celery import instrument_celery
from telemetry.otlp.receiver import Receiver

from ...conftest import Broker
from ...processes import ROOT, Starter
from ..tracing.sinks import ListSink

tracer = trace.get_tracer("tests")


@pytest.fixture
def app(sink: ListSink) -> Iterator[Celery]:
    app = Celery("beside", broker="memory://", set_as_default=False)
    yield instrument_celery(app)
    app.close()


class OtherTracer:
    """Attaches a context in ``task_prerun``, and detaches it in ``task_postrun``."""

    def __init__(self) -> None:
        self.tokens: list[Any] = []

    def on_prerun(self, **_: Any) -> None:
        span = tracer.start_span("theirs", Context())
        self.tokens.append(context.attach(trace.set_span_in_context(span, Context())))

    def on_postrun(self, **_: Any) -> None:
        context.detach(self.tokens.pop())

    def connect(self, first: bool) -> None:
        for signal, receiver in (
            (signals.task_prerun, self.on_prerun),
            (signals.task_postrun, self.on_postrun),
        ):
            signal.connect(receiver)
            if first:
                signal.receivers.insert(0, signal.receivers.pop())

    def disconnect(self) -> None:
        signals.task_prerun.disconnect(self.on_prerun)
        signals.task_postrun.disconnect(self.on_postrun)


@pytest.fixture(params=["before", "after"])
def other_tracer(request: pytest.FixtureRequest, app: Celery) -> Iterator[OtherTracer]:
    other = OtherTracer()
    other.connect(first=request.param == "before")
    yield other
    other.disconnect()


@pytest.mark.usefixtures("other_tracer")
def test_beside_another_tracer_a_run_leaves_the_context_that_it_found(app: Celery) -> None:
    @app.task(name="work", shared=False)
    def work() -> None:
        """Do nothing."""

    @app.task(name="outer", shared=False)
    def outer() -> Span:
        inside = trace.get_current_span()
        work.apply()
        assert trace.get_current_span() is inside
        return inside

    before = context.get_current()
    outer.apply().get()
    assert context.get_current() is before
    with tracer.start_as_current_span("request") as request:
        outer.apply().get()
        assert trace.get_current_span() is request


@pytest.mark.parametrize("first", [True, False])
def test_in_a_handler_of_task_postrun_the_run_is_current(
    app: Celery, sink: ListSink, first: bool
) -> None:
    def publish(**_: Any) -> None:
        app.send_task("mail", ignore_result=True)
        trace.get_current_span().set_attribute("handled", True)

    @app.task(name="work", shared=False)
    def work() -> None:
        """Do nothing."""

    signals.task_postrun.connect(publish)
    if first:
        signals.task_postrun.receivers.insert(0, signals.task_postrun.receivers.pop())
    work.apply().get()
    signals.task_postrun.disconnect(publish)
    send, run = sorted(sink.received(), key=lambda span: span.name, reverse=True)
    assert (send.name, run.name) == ("send mail", "process work")
    assert send.parent_id == run.span_id
    assert run.attributes["handled"] is True


def test_a_run_ends_where_a_handler_of_task_postrun_ends_the_worker(
    app: Celery, sink: ListSink
) -> None:
    def stop(**_: Any) -> None:
        raise WorkerShutdown

    @app.task(name="work", shared=False)
    def work() -> None:
        """Do nothing."""

    before = context.get_current()
    signals.task_postrun.connect(stop)
    with pytest.raises(WorkerShutdown):
        work.apply()
    signals.task_postrun.disconnect(stop)
    assert context.get_current() is before
    (run,) = sink.received()
    assert (run.attributes["celery.task.state"], run.status) == ("SUCCESS", "UNSET")


@pytest.mark.parametrize("left", [Context(), {"key": "value"}])
def test_a_context_that_a_task_leaves_ends_with_its_run(app: Celery, left: Any) -> None:
    @app.task(name="work", shared=False)
    def work() -> None:
        context.attach(Context(left) if not left else Context({**context.get_current(), **left}))

    before = context.get_current()
    work.apply().get()
    assert context.get_current() is before


class CallsCelerys(Task):
    """A base class of tasks that calls that of Celery, which copies the request."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return super().__call__(*args, **kwargs)


@pytest.mark.parametrize(
    "duplicate", [copy.copy, copy.deepcopy, lambda request: pickle.loads(pickle.dumps(request))]
)
@pytest.mark.parametrize("base", [Task, CallsCelerys])
def test_a_request_has_no_headers_of_ours_and_can_be_copied(
    app: Celery, base: type[Task], duplicate: Callable[[Any], Any]
) -> None:
    @app.task(name="work", shared=False, bind=True, base=base)
    def work(task: Task) -> tuple[Any, Any]:
        copied = duplicate(task.request)
        assert copied.id == task.request.id
        return task.request.headers, copied.headers

    assert work.apply().get() == (None, None)


@pytest.mark.usefixtures("sink")
def test_an_app_that_is_dropped_is_freed() -> None:
    def made() -> Celery:
        app = instrument_celery(Celery("freed", broker="memory://", set_as_default=False))
        app.close()
        return app

    freed = weakref.ref(made())
    receivers = len(signals.task_prerun.receivers)
    made()  # Celery has a reference to the last one
    gc.collect()
    assert freed() is None
    assert len(signals.task_prerun.receivers) == receivers


CONTRIB = """
    import os
    import telemetry
    from celery import Celery
    from opentelemetry import trace
    from opentelemetry.instrumentation.celery import CeleryInstrumentor
    from telemetry.celery import instrument_celery

    if os.environ["FIRST"] == "theirs":
        CeleryInstrumentor().instrument()
    app = instrument_celery(Celery("shop", broker=os.environ["CELERY_BROKER_URL"]), "shop")
    CeleryInstrumentor().instrument()

    def after_task():
        print(f"after it: {trace.get_current_span().get_span_context().is_valid}", flush=True)

    app.loader.on_process_cleanup = after_task

    @app.task(name="work")
    def work():
        print(f"in a run: {trace.get_current_span().get_span_context().is_valid}", flush=True)
"""


@pytest.mark.parametrize("first", ["ours", "theirs"])
@pytest.mark.parametrize("pool", ["solo", "prefork"])
def test_beside_contrib_no_run_is_current_after_its_end(
    start: Starter, broker: Broker, tmp_path: Path, pool: str, first: str
) -> None:
    (tmp_path / "shop.py").write_text(textwrap.dedent(CONTRIB))
    worker = start(
        *("celery", "-A", "shop:app", "worker", "-P", pool, "-c", "1", "--loglevel=INFO"),
        *("--without-mingle", "--without-gossip"),
        PYTHONPATH=f"{tmp_path}:{ROOT}", FIRST=first,
    )  # fmt: skip
    with Celery("sender", broker=broker.url, set_as_default=False) as sender:
        sender.send_task("work", ignore_result=True)
    assert worker.wait_for_line("in a run").endswith("True")
    assert worker.wait_for_line("after it").endswith("False")


TWO_APPS = """
    import os
    from celery import Celery
    from telemetry.celery import instrument_celery

    first = instrument_celery(Celery("first", broker=os.environ["CELERY_BROKER_URL"]), "first")
    second = instrument_celery(Celery("second", broker=os.environ["CELERY_BROKER_URL"]), "second")

    def work():
        pass

    for app in first, second:
        app.task(name="work", shared=False)(work)
"""


@pytest.mark.parametrize("name", ["first", "second"])
def test_a_worker_has_the_name_of_its_own_app(
    start: Starter, broker: Broker, receiver: Receiver, tmp_path: Path, name: str
) -> None:
    (tmp_path / "shop.py").write_text(textwrap.dedent(TWO_APPS))
    start(
        *("celery", "-A", f"shop:{name}", "worker", "-c", "1"),
        *("--without-mingle", "--without-gossip"),
        PYTHONPATH=f"{tmp_path}:{ROOT}",
    )  # fmt: skip
    with Celery("sender", broker=broker.url, set_as_default=False) as sender:
        sender.send_task("work", ignore_result=True)
    (run,) = receiver.wait_for(len, 30)
    assert (run.name, run.service) == ("process work", name)
