"""The web side of the queue: publish a task, read a result, check health; each in bounded time.

The settings hold for the web side only: a worker waits for its broker, a request does not.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from celery import Celery, Task, states
from celery.backends.redis import RedisBackend
from celery.backends.rpc import RPCBackend
from celery.exceptions import BackendGetMetaError
from celery.utils import uuid
from kombu.connection import Connection
from kombu.exceptions import KombuError
from kombu.messaging import Producer

T = TypeVar("T")

logger = logging.getLogger(__name__)

#: Seconds after which a broker that does not answer counts as down.
TIMEOUT = 0.8

#: Seconds between two reads of a result: the first pause, and the longest.
FIRST_PAUSE, LONGEST_PAUSE = 0.005, 0.04

#: The number of replies that the broker and the process hold. Most are never read.
MAX_REPLIES = 1000


class Unreachable(Exception):
    """The broker or the result backend is down. Try again later."""


@dataclass(frozen=True, slots=True)
class Result:
    """The state of a task. *value* is its result; *error* the type of its exception."""

    state: str
    value: Any = None
    error: str | None = None

    @property
    def is_ready(self) -> bool:
        return self.state in states.READY_STATES


class TaskQueue:
    """The queue as *celery* reaches it from a web process."""

    def __init__(self, celery: Celery) -> None:
        self._celery = celery
        celery.loader.override_backends = {
            "redis": f"{__name__}:RedisResults",
            "rediss": f"{__name__}:RedisResults",
            "rpc": f"{__name__}:Replies",
        }
        celery.conf.update(
            broker_connection_timeout=TIMEOUT,
            # Opened on demand. A request gets a free one, or fails after the timeout.
            broker_pool_limit=64,
            broker_transport_options=_transport_options(celery.connection_for_write()),
            redis_socket_connect_timeout=TIMEOUT,
            redis_socket_timeout=TIMEOUT,
            result_backend_thread_safe=True,
            task_publish_retry=False,
        )
        connection = celery.connection_for_write()
        self._errors = (
            *connection.connection_errors,
            *connection.channel_errors,
            *getattr(celery.backend, "connection_errors", ()),
            *(BackendGetMetaError, KombuError, OSError),
        )

    def publish(self, task: Task, **kwargs: Any) -> str:
        """Publish *task*; return its id."""
        task_id: str = uuid()

        def send() -> None:
            with (
                self._celery.producer_pool.acquire(block=True, timeout=TIMEOUT) as producer,
                _discard_on_failure(producer.connection),
            ):
                task.apply_async(
                    kwargs=kwargs,
                    task_id=task_id,
                    producer=producer,
                    # All threads of the process share one queue of replies.
                    reply_to=getattr(self._celery.backend, "oid", None),
                    timeout=TIMEOUT,
                    confirm_timeout=TIMEOUT,
                )

        self._call(send)
        return task_id

    def result(self, task_id: str) -> Result:
        """Return the state of the task; an unknown task is PENDING."""
        meta = self._call(lambda: self._celery.backend.get_task_meta(task_id))
        state, value = meta["status"], meta.get("result")
        if state == states.SUCCESS:
            return Result(state, value=value)
        if isinstance(value, BaseException):
            return Result(state, error=_error_type(value))
        return Result(state)

    def wait(self, task_id: str, seconds: float) -> Result:
        """Wait for the result for at most *seconds*; return the state of the task then."""
        deadline = time.monotonic() + seconds
        pause = FIRST_PAUSE
        while not (result := self.result(task_id)).is_ready:
            left = deadline - time.monotonic()
            if left <= 0:
                break
            time.sleep(min(pause, left))
            pause = min(pause * 2, LONGEST_PAUSE)
        return result

    def health(self) -> tuple[bool, bool]:
        """Return whether the broker answers, and whether any worker does."""
        broker = worker = False
        try:
            # A new connection: one from the pool may have been open before the broker stopped.
            with (
                self._celery.connection_for_write() as connection,
                _discard_on_failure(connection),
            ):
                broker = connection.default_channel is not None
                ping = self._celery.control.ping
                worker = bool(ping(timeout=TIMEOUT, limit=1, connection=connection))
        except self._errors as exc:
            logger.warning("the broker is down: %s", exc)
        return broker, worker

    def _call(self, operation: Callable[[], T]) -> T:
        """Return the result of *operation*; retry once if it fails quickly (a stale connection).

        Raises Unreachable.
        """
        begin = time.monotonic()
        try:
            return operation()
        except self._errors as exc:
            if time.monotonic() - begin > TIMEOUT / 2:
                raise Unreachable(str(exc)) from exc
        try:
            return operation()
        except self._errors as exc:
            raise Unreachable(str(exc)) from exc


@contextmanager
def _discard_on_failure(connection: Any) -> Iterator[None]:
    # Closing the connection would wait again. Reusing it would read a late answer as that to the
    # next request.
    try:
        yield
    except Exception:
        connection.collect()
        raise


class RedisResults(RedisBackend):
    """Results that are read on request. Celery's own class subscribes to each result."""

    def on_task_call(self, producer: Producer, task_id: str) -> None:
        pass


class Replies(RPCBackend):
    """Results that arrive as messages to this process.

    A thread that waits for one result reads all messages and stores the results of the others. With
    Celery's own class, a result is lost if several threads wait, each for its own.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._read: dict[str, dict[str, Any]] = {}
        self._reading = threading.Lock()

    def on_task_call(self, producer: Producer, task_id: str) -> None:
        self.binding(producer.channel).declare()

    def get_task_meta(self, task_id: str, backlog_limit: int = 1000) -> dict[str, Any]:
        # One thread reads at a time, so that an older state never replaces a newer one.
        if not self._reading.acquire(timeout=TIMEOUT):
            raise TimeoutError("the replies cannot be read")
        try:
            self._read_replies(backlog_limit)
        finally:
            self._reading.release()
        return self._read.get(task_id, {"status": states.PENDING})

    def _read_replies(self, limit: int) -> None:
        with (
            self.app.pool.acquire_channel(block=True) as (connection, channel),
            _discard_on_failure(connection),
        ):
            queue = self.binding(channel)
            queue.declare()
            for _ in range(limit):
                message = queue.get(no_ack=True, accept=self.accept)
                if message is None:
                    break
                meta = self.meta_from_decoded(message.payload)
                if self._read.get(meta["task_id"], {}).get("status") not in states.READY_STATES:
                    self._read[meta["task_id"]] = meta
                if len(self._read) > MAX_REPLIES:
                    del self._read[next(iter(self._read))]

    @property
    def binding(self) -> Any:
        queue: Any = super().binding
        queue.max_length = MAX_REPLIES
        return queue


def _transport_options(connection: Connection) -> dict[str, Any]:
    once = {"max_retries": 0, "interval_start": 0, "interval_step": 0, "interval_max": 0}
    if connection.transport_cls in ("amqp", "amqps", "pyamqp"):
        return {**once, "confirm_publish": True, "on_open": _limit_reads}
    return {**once, "socket_connect_timeout": TIMEOUT, "socket_timeout": TIMEOUT}


def _limit_reads(connection: Any) -> None:
    connection.sock.settimeout(TIMEOUT)


def _error_type(exc: BaseException) -> str:
    module, name = type(exc).__module__, type(exc).__qualname__
    return name if module == "builtins" else f"{module}.{name}"
