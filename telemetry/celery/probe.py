"""A worker's answers to the doctor: from its main process, and from the process that runs tasks.

The main process answers a remote-control command. A child answers by a task of the library, with
the contents of its message. Neither runs code of the application.
"""

import time
from dataclasses import asdict
from typing import Any

from celery import Celery, Task
from celery.worker import state as worker_state
from celery.worker.control import inspect_command
from opentelemetry import trace

from ..propagation.doctor import DOCTOR_TASK, REPLY_TO
from ..propagation.message import trace_headers
from ..propagation.traceparent import TRACEPARENT
from ..selfcheck import describe_process
from ..setup import flush, sink
from ..tracing.scope import SCOPE_NAME, hop_scope

COMMAND = "queuehop_doctor"

#: Seconds that the spans of a probe may take to the collector: a little less than a doctor waits.
FLUSH = 8.0


class _DoctorTask(Task):
    """The doctor's task. The application's own Task class may expect arguments of its tasks."""

    #: No limit, even if the application limits all of its tasks by default.
    rate_limit = 0

    @classmethod
    def annotate(cls) -> None:
        """Ignore ``task_annotations``, which may limit all tasks too."""


def answer_doctor(app: Celery) -> None:
    """Let the workers of *app* answer ``python -m telemetry doctor``."""

    @app.task(
        base=_DoctorTask, name=DOCTOR_TASK, bind=True, shared=False, ignore_result=True,
        max_retries=0,
    )  # fmt: skip
    def doctor(task: Task) -> None:
        request = task.request
        reply_to = trace_headers(vars(request)).get(REPLY_TO)
        if not reply_to:
            return  # no doctor waits for an answer
        with task.app.producer_or_acquire() as producer:
            producer.publish(
                _of_run(request),
                exchange="",
                routing_key=reply_to,
                serializer="json",
                correlation_id=request.id,
            )


def _of_run(request: Any) -> dict[str, Any]:
    span = trace.get_current_span()
    context = span.get_span_context()
    trace.get_tracer(SCOPE_NAME).start_span("doctor").end()  # something for the flush to deliver
    delivered, error = flush(FLUSH), sink().last_export_error()
    return {
        "process": asdict(describe_process()),
        "worker": request.hostname,
        "traceparent": trace_headers(vars(request)).get(TRACEPARENT),
        "trace_id": trace.format_trace_id(context.trace_id),
        "recording": span.is_recording(),
        "delivered": delivered and not error,
        "last_export_error": error,
    }


@inspect_command(name=COMMAND)
def of_main_process(state: Any, **_: Any) -> dict[str, Any]:
    """Describe the main process of a worker: Celery's remote control."""
    consumer = state.consumer
    # The queue of a broadcast has a random name, and belongs to this worker alone: no probe.
    queues = [each.name for each in consumer.task_consumer.queues if each.exchange.type != "fanout"]
    pool = type(consumer.pool)
    app = consumer.app
    tasks = {name: task for name, task in app.tasks.items() if not name.startswith("celery.")}
    return {
        "process": asdict(describe_process()),
        "version": hop_scope().version,
        "tasks": sorted(tasks),
        "rate_limits": {name: str(t.rate_limit) for name, t in tasks.items() if t.rate_limit},
        "backend": _backend(app),
        "pool": f"{pool.__module__}.{pool.__qualname__}",
        "queues": queues,
        "probed": DOCTOR_TASK in tasks,
        "running": len(worker_state.active_requests),
        "waiting": len(worker_state.reserved_requests) - len(worker_state.active_requests),
        "time": time.time(),
    }


def _backend(app: Celery) -> str:
    """Return the URL of the result backend without its password; empty if there is none."""
    try:
        return str(app.backend.as_uri(include_password=False) or "")
    except Exception:
        return ""
