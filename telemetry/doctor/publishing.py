"""The project's own ways to publish: tasks of shared_task, and Task classes that publish."""

import inspect
import threading
from collections.abc import Iterator
from typing import Any

import celery
from celery import Celery, Task, _state
from opentelemetry import context as otel_context
from opentelemetry import trace

from ..propagation import extract_parent
from ..propagation.doctor import DOCTOR_TASK
from ..propagation.message import trace_headers
from .finding import Finding
from .mailbox import Mailbox
from .origin import context_of, origin
from .spans import EndedSpans

__all__ = ["app_of_threads", "check_send", "check_shared_tasks", "check_task_classes"]

#: Seconds for a message to arrive that was published to the doctor's own queue.
_TRAVEL = 2.0


def app_of_threads() -> Celery:
    """Return the Celery app that a new thread of this process has, such as a server's."""
    found: list[Celery] = []
    thread = threading.Thread(target=lambda: found.append(celery.current_app._get_current_object()))
    thread.start()
    thread.join()
    return found[0]


def check_shared_tasks(app: Celery, used: Celery) -> Iterator[Finding]:
    """Check that tasks of ``shared_task`` publish by *app*, not by *used*, the app of threads."""
    shared = [] if used is app else _shared_tasks(app)
    if shared:
        yield Finding(
            "shared-task-elsewhere", "queue",
            f"in the threads of a server {', '.join(shared[:3])} of shared_task publish by the app "
            f"{used.main!r} to {used.conf.broker_url or 'amqp://localhost'}, not by {app.main!r}",
            "import the module of the Celery app where the Flask app is made, and call "
            "app.set_default() there",
        )  # fmt: skip


def _shared_tasks(app: Celery) -> list[str]:
    """Return the names of all tasks of ``shared_task``, which Celery adds to each app."""
    added = [inspect.getclosurevars(each).nonlocals for each in _state._on_app_finalizers
             if each.__module__ == celery.shared_task.__module__]  # fmt: skip
    return sorted(
        each["options"].get("name")
        or app.gen_task_name(each["fun"].__name__, each["fun"].__module__)
        for each in added
        if "fun" in each and "options" in each
    )


def check_send(app: Celery, mailbox: Mailbox, counted: bool) -> Iterator[Finding]:
    """Send a message by *app* to the doctor's own queue: are the headers of the trace in it?"""
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
            "a message of this Celery app is published without the headers of the trace",
            f"let {cls.__qualname__}.send_task() call super().send_task() with all its options; "
            "look for a before_task_publish handler that drops headers",
        )  # fmt: skip


def check_task_classes(app: Celery, mailbox: Mailbox, counted: bool) -> Iterator[Finding]:
    """Publish by every Task class with an ``apply_async`` of its own, to the doctor's own queue.

    The message has the name of the doctor's own task, so nothing of the project runs.
    """
    for example, cls in _own_classes(app):
        sent = origin((1 << 64) - 1, counted)
        spans = EndedSpans()
        before = set(mailbox.messages)
        try:
            _publish(cls, app, mailbox, sent)
        except Exception as exc:
            yield Finding(
                "task-class-unknown", "queue",
                f"{cls.__qualname__}.apply_async() of {example} raises without arguments "
                f"({type(exc).__name__}: {exc}), so its way was not tried",
                "look whether it ends in super().apply_async()", hint=True,
            )  # fmt: skip
            continue
        mailbox.wait(_TRAVEL, lambda before=before: set(mailbox.messages) > before)  # type: ignore[misc]
        arrived = [headers for key, headers in mailbox.messages.items() if key not in before]
        is_traced = any(span.context.trace_id == sent.trace_id for span in spans.ended())
        # One that chooses a queue of its own is traced if its send is.
        if any(_is_in(headers, sent) for headers in arrived) or (is_traced and not arrived):
            continue
        yield Finding(
            "task-class-drops-headers" if is_traced else "task-class-past-send", "queue",
            f"{example} has the class {cls.__qualname__}, which publishes "
            + ("without the headers of the trace" if is_traced else "past Celery.send_task"),
            f"let {cls.__qualname__}.apply_async() call super().apply_async() with all its "
            "options, or write the trace with telemetry.inject(headers)",
        )  # fmt: skip


def _own_classes(app: Celery) -> list[tuple[str, type[Task]]]:
    """Return each class with an ``apply_async`` that is not Celery's, and a task that has it."""
    found: dict[Any, tuple[str, type[Task]]] = {}
    for name, task in sorted(app.tasks.items()):
        if name.startswith("celery.") or name == DOCTOR_TASK:
            continue
        cls = type(task)
        if cls.apply_async is not Task.apply_async:
            # A task that is made of a function has a class of its own, with no code in it.
            owner = next(each for each in cls.__mro__ if "apply_async" in vars(each))
            found.setdefault(owner, (name, owner))
    return list(found.values())


def _is_in(headers: Any, origin: trace.SpanContext) -> bool:
    """Return whether the *headers* of a message continue the trace of *origin*."""
    parent, _ = extract_parent(trace_headers(headers))
    return parent is not None and int.from_bytes(parent.trace_id, "big") == origin.trace_id


def _publish(cls: type[Task], app: Celery, mailbox: Mailbox, parent: trace.SpanContext) -> None:
    members = {
        "name": DOCTOR_TASK, "run": lambda self: None, "typing": False, "abstract": False,
        "__module__": cls.__module__, "__init__": lambda self: None,
    }  # fmt: skip
    made: Any = type(cls.__name__, (cls,), members)
    made.bind(app)
    task = made()
    token = otel_context.attach(context_of(parent))
    try:
        task.apply_async(
            (), {}, queue=mailbox.queue, exchange="", routing_key=mailbox.name,
            ignore_result=True,
        )  # fmt: skip
    finally:
        otel_context.detach(token)
