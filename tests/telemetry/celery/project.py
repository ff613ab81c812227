"""A Celery app like a user's, for the workers of these tests."""

import gc
import logging
import os
import select
import signal
import sys
import time
import weakref
from collections.abc import Callable

from celery import Celery, Task, shared_task, signals
from celery.exceptions import Ignore, Reject
from celery.utils.log import get_task_logger
from opentelemetry import trace

from telemetry.celery import instrument_celery

#: Called when the run of a task has ended.
_at_the_end: list[Callable[[], object]] = []


def _look_for_a_leak() -> None:
    """Print a line if a span is current outside of a run."""
    if trace.get_current_span().get_span_context().is_valid:
        print("a span is current outside of tasks", flush=True)


@signals.task_prerun.connect(weak=False)
def _before_task(task: Task, **_: object) -> None:
    if not task.request.is_eager:
        _look_for_a_leak()


def _after_task() -> None:
    _look_for_a_leak()
    while _at_the_end:
        _at_the_end.pop()()


def make_app(broker: str, **options: str) -> Celery:
    """Return an instrumented app on *broker*, which is the result backend too."""
    backend = broker if broker.startswith("redis") else os.environ.get("RESULT_BACKEND", "rpc://")
    app = Celery("project", broker=broker, backend=backend)
    app.conf.update(
        broker_connection_retry_on_startup=True,
        worker_pool_restarts=True,
        worker_cancel_long_running_tasks_on_connection_loss=True,
        task_acks_late=os.environ.get("ACKS_LATE") == "1",
        result_backend_thread_safe=os.environ.get("SHARED_BACKEND") == "1",
    )
    if "VISIBILITY_TIMEOUT" in os.environ:
        app.conf.broker_transport_options = {
            "visibility_timeout": float(os.environ["VISIBILITY_TIMEOUT"]),
            "unacked_restore_interval": 1,
            "unacked_restore_throttle": 1,
        }
    if "TICKS" in os.environ:
        tick = {"task": f"{__name__}.add", "schedule": 0.3, "args": (1, 2)}
        app.conf.beat_schedule = {"tick": tick}
    if "LOG_IDS" in os.environ:
        line = "%(processName)s %(trace_id)s %(span_id)s %(message)s"
        app.conf.update(worker_log_format=line, worker_task_log_format=line)
    app.loader.on_process_cleanup = _after_task
    app.set_default()
    return instrument_celery(app, service_name="worker", **options)  # type: ignore[arg-type]


app = make_app(
    os.environ.get("CELERY_BROKER_URL", "redis://127.0.0.1:1/0"),
    **({"relation": os.environ["RELATION"]} if "RELATION" in os.environ else {}),
)


class Expected(Exception):
    """An exception in the ``throws`` of a task."""


@app.task(shared=False)
def only_here() -> None:
    """The workers have this task, and the app of the tests does not."""


@shared_task
def add(x: int, y: int) -> int:
    return x + y


@shared_task
def fail() -> None:
    raise LookupError("nothing here")


@shared_task(throws=(Expected,))
def expected() -> None:
    raise Expected


@shared_task(bind=True, max_retries=2)
def retry(self: Task, countdown: float = 0.3) -> int:
    if self.request.retries < 2:
        raise self.retry(countdown=countdown, exc=LookupError("not yet"))
    return int(self.request.retries)


@shared_task(bind=True)
def again(self: Task) -> str:
    """Retry with headers of its own, because of the exception that is being handled."""
    try:
        if not self.request.retries:
            raise ConnectionError("away")
    except ConnectionError:
        raise self.retry(countdown=0, headers={"mine": "1"}) from None
    return str(getattr(self.request, "mine", None) or self.request.headers["mine"])


@shared_task(bind=True)
def elsewhere(self: Task, queue: str) -> str:
    """Retry in another queue, a little later."""
    if not self.request.retries:
        raise self.retry(countdown=0.2, queue=queue)
    return str(self.request.delivery_info["routing_key"])


@shared_task
def eagerly() -> str:
    """Run another task here, without a message."""
    return str(add.apply((1, 2)).id)


@shared_task
def outer() -> str:
    return str(add.delay(1, 2).id)


@shared_task
def where() -> str:
    """Return the id of the trace that is current in the task."""
    return f"{trace.get_current_span().get_span_context().trace_id:032x}"


class Held:
    """An object that a task has on its request, such as a connection."""


_held: weakref.WeakSet[Held] = weakref.WeakSet()


@shared_task(bind=True)
def hold(self: Task) -> int:
    """Return how many earlier tasks still have their object, without the garbage collector."""
    gc.disable()
    before = len(_held)
    self.request.held = Held()
    _held.add(self.request.held)
    return before


@shared_task
def talk(words: str) -> None:
    get_task_logger(f"{__name__}.talk").info("%s by the task's logger", words)
    logging.getLogger("shop").warning("%s by another", words)
    print(f"{words} printed")


@shared_task
def last_words() -> None:
    logging.getLogger("shop").warning("I am about to die")
    os.kill(os.getpid(), signal.SIGKILL)


@shared_task
def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@shared_task
def die_in_the_middle() -> None:
    """Be killed after a span and a publish."""
    trace.get_tracer("project").start_span("inside").end()
    add.delay(1, 2)
    die()


@shared_task(bind=True, retry_on_worker_lost=True, default_retry_delay=0, max_retries=1)
def die_once(self: Task) -> None:
    """Be killed, and be retried by the worker's main process."""
    if not self.request.retries:
        die()


@shared_task
def die_at_the_end() -> None:
    """Succeed; the child is killed before it can report that."""
    _at_the_end.append(die)


@shared_task
def die_in_a_handler() -> None:
    """Succeed; the child is killed by a handler of ``task_postrun``."""


@signals.task_postrun.connect(weak=False)
def _die(sender: Task, **_: object) -> None:
    if sender.name == die_in_a_handler.name:
        die()


@shared_task
def leave() -> None:
    sys.exit(3)


class Leaving(Task):
    """A base class of tasks that ends the child when the task has succeeded."""

    def on_success(self, *_: object) -> None:
        sys.exit(3)


@shared_task(base=Leaving)
def leave_at_the_end() -> None:
    """Succeed."""


@shared_task
def leave_eagerly() -> None:
    leave.apply()


class Panic(BaseException):
    """An exception outside of ``Exception``, such as ``asyncio.CancelledError``."""


@shared_task
def panic() -> None:
    raise Panic


@shared_task
def hang(seconds: float = 60.0) -> None:
    time.sleep(seconds)


@shared_task
def tell(path: str) -> None:
    """Report that the task runs, then hang until it is killed."""
    with open(path, "w") as file:
        file.write("running\n")
    time.sleep(60)


@shared_task(bind=True, acks_late=True)
def reject(self: Task, requeue: bool = False) -> None:
    again = requeue and not self.request.delivery_info.get("redelivered")
    raise Reject("not for me", requeue=again)


@shared_task
def ignore() -> None:
    raise Ignore


@shared_task(bind=True)
def replace(self: Task) -> None:
    raise self.replace(add.s(3, 4))


@shared_task
def total(numbers: list[int]) -> int:
    return sum(numbers)


@shared_task
def caught(task_id: str) -> str:
    """An errback that is published, as a task."""
    return where()


@shared_task
def inline(request: object, exc: object, traceback: object) -> None:
    """An errback that Celery calls where the failure is handled."""
    trace.get_tracer("project").start_span("inline errback").end()


@shared_task(bind=True, autoretry_for=(LookupError,), retry_backoff=False, max_retries=1)
def hopeless(self: Task) -> None:
    self.default_retry_delay = 0.1
    raise LookupError("never")


class WithBadHandlers(Task):
    """A task whose handlers have a bug."""

    def on_failure(self, *_: object) -> None:
        raise RuntimeError("a bug in a handler")

    on_retry = on_failure


@shared_task(base=WithBadHandlers, bind=True)
def mishandled(self: Task, retry: bool) -> None:
    if retry:
        raise self.retry(countdown=60)
    raise LookupError("nothing here")


class Unprintable(Exception):
    """An exception without a message."""

    def __str__(self) -> str:
        raise RuntimeError("no words")

    __repr__ = __str__


@shared_task
def unprintable() -> None:
    raise Unprintable


@shared_task
def gate(arrived: str, leave: str) -> None:
    """Report that the task runs, and wait for the test."""
    # Open before the report, so that the test finds this task.
    fd = os.open(leave, os.O_RDONLY | os.O_NONBLOCK)
    with open(arrived, "w") as file:
        file.write("running\n")
    select.select([fd], [], [])
    os.close(fd)


@shared_task
def nested(depth: int) -> str:
    """Publish itself *depth* times; return the id of the trace that is current."""
    if depth:
        nested.delay(depth - 1)
    return where()
