"""One attempt at a task: its hop, and how the code inside finds it."""

from collections.abc import Mapping
from typing import Any, ClassVar

from celery import current_task
from opentelemetry.context import Context, create_key

from ..tracing.context import NO_CONTEXT
from ..tracing.hop import Hop
from ..tracing.record import RunFacts

#: The worker's main process adds these to the headers of a message for its child, and never sends
#: them: the time at which it received the message, the queue if that is not the routing key, and
#: 128 random bits for the ids of the run's span. If the child is killed, the main process reports
#: the span under these ids, and spans inside the run have their parent.
RECEIVED_AT = "queuehop-received-at"
QUEUE = "queuehop-queue"
IDS = "queuehop-ids"


class Run(Hop[RunFacts]):
    """One attempt at the task of *id*, in the *context* that its message brought.

    It lives on ``task.request`` as long as the task does.
    """

    key: ClassVar[str] = create_key("queuehop-run")

    #: The attribute of ``task.request`` that holds the run.
    attribute = "queuehop_run"

    id: object = None
    context: Context = NO_CONTEXT
    #: The context before the run.
    outside: Context = NO_CONTEXT
    #: The message: the attributes of ``task.request`` while that holds the run.
    message: dict[str, Any] | None = None

    def __reduce__(self) -> Any:
        """Leave the run out of a request that is pickled or copied deeply."""
        return type(None), ()


def id_bits(message: Mapping[str, Any]) -> int:
    """Return the bits for the ids of the run of *message*, 0 if no main process has added them."""
    bits = message.get(IDS)
    return bits if isinstance(bits, int) and 0 <= bits < 1 << 128 else 0


def current_run() -> Run | None:
    """Return the run of the task that is running, also if its code left the run's context."""
    run = Run.current()
    if run is None and current_task:
        run = vars(current_task.request).get(Run.attribute)
    return run
