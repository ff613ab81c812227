"""Hops 3 and 4: the whole set-up of a Celery app, in every kind of process."""

from typing import Any, Literal, TypeVar
from weakref import WeakKeyDictionary

from celery import Celery, current_app, signals

from ..setup import setup_worker, sink
from ..tracing.logs import correlate_logs
from .consumer import RunTracer, trace_runs
from .main_process import trace_main_process
from .probe import answer_doctor
from .producer import SEND_TRACER, SendTracer, trace_sends

__all__ = ["Relation", "instrument_celery"]

Relation = Literal["child", "link"]
App = TypeVar("App", bound=Celery)


def instrument_celery(
    app: App, service_name: str | None = None, relation: Relation = "child"
) -> App:
    """Make a span of every publish and every run of *app*; return *app*.

    Workers, on every pool, and beat need no other call. They are set up under *service_name*, even
    if they import a web side with another name. Any other process that publishes, such as a web
    server, calls ``telemetry.setup``. With *relation* ``"link"`` each run is a trace of its own
    with a link to its send. A second call does nothing.
    """
    if relation not in ("child", "link"):
        raise ValueError(f"relation is {relation!r}, not 'child' or 'link'")
    app = getattr(app, "_get_current_object", lambda: app)()
    if hasattr(app, SEND_TRACER):
        return app
    correlate_logs()
    trace_sends(app, SendTracer(app))
    trace_runs(app, RunTracer(app, relation))
    trace_main_process(app)
    answer_doctor(app)

    _service_names[app] = service_name
    for signal in _BEGINNINGS:
        signal.connect(_begin, weak=False)
    for signal in _ENDINGS:
        signal.connect(_end, weak=False)
    return app


#: Sent once a worker, a child of its pool, or beat has started, and before one ends.
_BEGINNINGS = (
    signals.celeryd_init,
    signals.worker_process_init,
    signals.beat_init,
    signals.beat_embedded_init,
)
_ENDINGS = (signals.worker_process_shutdown, signals.worker_shutdown)

#: The instrumented apps. The receivers of signals refer to none of them: an app may be freed.
_service_names: WeakKeyDictionary[Celery, str | None] = WeakKeyDictionary()


def _begin(sender: Any, instance: Any = None, **_: object) -> None:
    """Set up a worker, a child of its pool, or beat. Its app may be another than the instrumented.

    A worker is the *instance* of its signal, beat the *sender*. A child names no app.
    """
    app = getattr(instance or sender, "app", None) or current_app._get_current_object()
    names = dict(_service_names)
    setup_worker(names.get(app, next(iter(names.values()), None)))


def _end(**_: object) -> None:
    sink().before_exit()
