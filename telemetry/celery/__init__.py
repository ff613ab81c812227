"""Hops 3 and 4: the whole set-up of a Celery app, in every kind of process."""

from typing import Literal

from celery import Celery, signals

from ..setup import setup_worker, sink
from ..tracing.logs import correlate_logs
from .consumer import RunTracer
from .main_process import MainProcess
from .probe import answer_doctor
from .producer import SEND_TRACER, SendTracer, trace_sends

__all__ = ["Relation", "instrument_celery"]

Relation = Literal["child", "link"]


def instrument_celery(
    app: Celery, service_name: str | None = None, relation: Relation = "child"
) -> Celery:
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
    sends, runs = SendTracer(app), RunTracer(app, relation)
    main_process = MainProcess(app, runs)
    answer_doctor(app)

    trace_sends(app, sends)
    signals.before_task_publish.connect(sends.on_publish, weak=False)
    signals.task_prerun.connect(runs.on_prerun, weak=False)
    signals.task_postrun.connect(runs.on_postrun, weak=False)
    signals.task_revoked.connect(main_process.on_revoked, weak=False)
    signals.task_unknown.connect(main_process.on_unknown, weak=False)
    signals.task_rejected.connect(main_process.on_rejected, weak=False)

    def begin(**_: object) -> None:
        setup_worker(service_name)

    def end(**_: object) -> None:
        sink().before_exit()

    for signal in (
        signals.celeryd_init,
        signals.worker_process_init,
        signals.beat_init,
        signals.beat_embedded_init,
    ):
        signal.connect(begin, weak=False)
    for signal in (signals.worker_process_shutdown, signals.worker_shutdown):
        signal.connect(end, weak=False)
    return app
