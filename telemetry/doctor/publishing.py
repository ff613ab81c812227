"""Check the project's own ways to publish: ``shared_task``, and Task classes."""

import inspect
import threading
from collections.abc import Iterator
from typing import Any

import celery
from celery import Celery, Task, _state
from opentelemetry import context as otel_context
from opentelemetry import trace

from ..celery.producer import SEND_TRACER
from ..propagation import extract_parent
from ..propagation.doctor import DOCTOR_TASK
from ..propagation.message import trace_headers
from ..propagation.traceparent import TRACEPARENT
from .broker import reason
from .finding import Finding
from .mailbox import Mailbox
from .origin import context_of, origin
from .spans import EndedSpans

#: Seconds for a message to arrive in the doctor's own queue.
_TRAVEL = 2.0


def app_of_threads() -> Celery:
    """Return the current Celery app of a new thread, such as a server's."""
    found: list[Celery] = []
    thread = threading.Thread(target=lambda: found.append(celery.current_app._get_current_object()))
    thread.start()
    thread.join()
    return found[0]


def check_shared_tasks(app: Celery, used: Celery) -> Iterator[Finding]:
    """Check that shared tasks publish as *app* does, also by *used*, the app of threads.

    A factory that is called twice makes two apps of one configuration. Either may publish.
    """
    shared = [] if _publishes_like(used, app) else _shared_tasks(app)
    untraced = "" if hasattr(used, SEND_TRACER) else ", which is not instrumented"
    if shared:
        yield Finding(
            "shared-task-elsewhere", "queue",
            f"in the threads of a server, the shared tasks {', '.join(shared[:3])} are published "
            f"by the app {used.main!r} to {used.conf.broker_url or 'amqp://localhost'}{untraced}, "
            f"not by {app.main!r}",
            "call app.set_default() in the module of the Celery app, and import that module where "
            "the Flask app is made",
        )  # fmt: skip


#: The settings that decide where a message goes, and whether a worker accepts it.
_ROUTING = (
    "broker_url", "broker_write_url", "broker_transport_options", "result_backend", "task_routes",
    "task_default_queue", "task_serializer",
)  # fmt: skip


def _publishes_like(used: Celery, app: Celery) -> bool:
    """Return whether messages of *used* go where those of *app* go, and with a trace if they do."""
    if used is app:
        return True
    return hasattr(used, SEND_TRACER) == hasattr(app, SEND_TRACER) and all(
        used.conf.get(name) == app.conf.get(name) for name in _ROUTING
    )


def _shared_tasks(app: Celery) -> list[str]:
    """Return the names of all shared tasks, which Celery adds to each app."""
    added = [inspect.getclosurevars(each).nonlocals for each in _state._on_app_finalizers
             if each.__module__ == celery.shared_task.__module__]  # fmt: skip
    return sorted(
        each["options"].get("name")
        or app.gen_task_name(each["fun"].__name__, each["fun"].__module__)
        for each in added
        if "fun" in each and "options" in each
    )


def check_send(app: Celery, mailbox: Mailbox, counted: bool) -> Iterator[Finding]:
    """Check that a message that *app* publishes has the headers of the trace."""
    sent = origin((1 << 64) - 1, counted)
    before = set(mailbox.messages)
    mailbox.send(
        sent, celery.uuid(), queue=mailbox.queue, exchange="", routing_key=mailbox.name,
        ignore_result=True,
    )  # fmt: skip
    mailbox.wait(_TRAVEL, lambda: set(mailbox.messages) > before)
    arrived = [headers for key, headers in mailbox.messages.items() if key not in before]
    if arrived and not any(_is_in(headers, sent) for headers in arrived):
        cls = type(app)
        yield Finding(
            "header-stripped", "queue",
            "messages of this Celery app have no headers of the trace",
            f"let {cls.__qualname__}.send_task() call super().send_task() with all its options; "
            "look for a before_task_publish handler that drops headers",
        )  # fmt: skip


def check_task_classes(app: Celery, mailbox: Mailbox, counted: bool) -> Iterator[Finding]:
    """Publish by each Task class with a way of its own, to the doctor's own queue.

    The message names the doctor's own task, so no task of the project runs.
    """
    for example, cls, method in _own_ways(app):
        sent = origin((1 << 64) - 1, counted)
        spans = EndedSpans()
        before = set(mailbox.messages)
        try:
            _publish(cls, method, app, mailbox, sent)
        except Exception as exc:
            yield Finding(
                "task-class-unknown", "queue",
                f"{cls.__qualname__}.{method}() of {example} was not checked: it raises without "
                f"arguments ({reason(exc)})",
                f"make sure that it calls super().{method}() with all its options", hint=True,
            )  # fmt: skip
            continue
        mailbox.wait(_TRAVEL, lambda before=before: set(mailbox.messages) > before)  # type: ignore[misc]
        arrived = [headers for key, headers in mailbox.messages.items() if key not in before]
        is_traced = any(span.context.trace_id == sent.trace_id for span in spans.ended())
        # The class may choose another queue. Then its span shows that it calls Celery's send.
        if any(_is_in(headers, sent) for headers in arrived) or (is_traced and not arrived):
            continue
        apart = not is_traced and any(TRACEPARENT in trace_headers(each) for each in arrived)
        yield Finding(
            "task-class-drops-headers" if is_traced else "task-class-past-send", "queue",
            f"{cls.__qualname__}.{method}() of {example} publishes "
            + ("without the headers of the trace" if is_traced else
               "in a trace of its own, perhaps from another thread" if apart else
               "without Celery.send_task"),
            "run it in the context of the caller: contextvars.copy_context().run" if apart else
            f"let it call super().{method}() with all its options, or write the trace with "
            "telemetry.inject(headers)",
        )  # fmt: skip


def _own_ways(app: Celery) -> list[tuple[str, type[Task], str]]:
    """Return each ``delay`` and ``apply_async`` that is not Celery's: a task, its class, a name."""
    found: dict[Any, tuple[str, type[Task], str]] = {}
    for name, task in sorted(app.tasks.items()):
        if name.startswith("celery.") or name == DOCTOR_TASK:
            continue
        for method in ("delay", "apply_async"):
            # Each task of a function has a class of its own, without code.
            owner = next(cls for cls in type(task).__mro__ if method in vars(cls))
            if owner is not Task:
                found.setdefault((owner, method), (name, owner, method))
    return list(found.values())


def _is_in(headers: Any, origin: trace.SpanContext) -> bool:
    """Return whether the *headers* of a message continue the trace of *origin*."""
    parent, _ = extract_parent(trace_headers(headers))
    return parent is not None and int.from_bytes(parent.trace_id, "big") == origin.trace_id


def _publish(
    cls: type[Task], method: str, app: Celery, mailbox: Mailbox, parent: trace.SpanContext
) -> None:
    to_mailbox = {"queue": mailbox.queue, "exchange": "", "routing_key": mailbox.name}
    members = {
        "name": DOCTOR_TASK, "run": lambda self: None, "typing": False, "abstract": False,
        "__module__": cls.__module__, "__init__": lambda self: None, "ignore_result": True,
        # delay() has no options, and apply_async() may drop those that it is given.
        **to_mailbox,
    }  # fmt: skip
    made: Any = type(cls.__name__, (cls,), members)
    made.bind(app)
    token = otel_context.attach(context_of(parent))
    try:
        if method == "delay":
            made().delay()
        else:
            made().apply_async((), {}, ignore_result=True, **to_mailbox)
    finally:
        otel_context.detach(token)
