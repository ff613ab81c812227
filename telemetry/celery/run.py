"""One attempt at a task: its hop, and how the code inside finds it."""

from typing import Any, ClassVar

from celery import current_task
from celery.app.task import Context
from opentelemetry import context as otel_context

from ..tracing.hop import NO_CONTEXT, Hop
from ..tracing.record import RunFacts

__all__ = ["QUEUE", "RECEIVED_AT", "Run", "current_run"]

#: The worker's main process adds these to the headers of a message for its child, and never sends
#: them: the time at which it received the message, and the queue if that is not the routing key.
RECEIVED_AT = "queuehop-received-at"
QUEUE = "queuehop-queue"


class Run(Hop[RunFacts]):
    """One attempt at the task of *id*, in the *context* that its message brought.

    It lives on ``task.request`` as long as the task does.
    """

    key: ClassVar[str] = otel_context.create_key("queuehop-run")

    #: The attribute of ``task.request`` that holds the run.
    attribute = "queuehop_run"

    id: object = None
    context: otel_context.Context = NO_CONTEXT
    #: The context before the run.
    outside: otel_context.Context = NO_CONTEXT
    is_over: bool = False
    #: The message: the attributes of ``task.request`` while that holds the run.
    message: dict[str, Any] | None = None

    def __reduce__(self) -> Any:
        """Leave the run out of a request that is pickled or copied deeply."""
        return type(None), ()


# Celery counts the attributes that it does not know among the headers in a copy of a request.
setattr(Context, Run.attribute, None)


def current_run() -> Run | None:
    """Return the run of the task that is running, also if its code left the run's context."""
    run = Run.current()
    if run is None and current_task:
        run = vars(current_task.request).get(Run.attribute)
    return run
