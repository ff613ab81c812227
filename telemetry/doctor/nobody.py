"""Explain why no worker answers remote control."""

from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from typing import Any

from celery import Celery
from kombu.exceptions import ContentDisallowed

from ..celery import probe
from .bounded import within
from .broker import TIMEOUT, address
from .finding import Finding

_SERIALIZERS = ("json", "pickle", "msgpack", "yaml")

#: Seconds to wait for an answer in another serializer.
_PATIENCE = 0.5

#: How often to ask if a worker is connected. A question that it refuses makes it connect again, and
#: Redis loses the questions of that moment.
_TRIES = 4


def nobody(app: Celery) -> Finding:
    """Explain why no worker answers. It may refuse the serializer, so ask again in others."""
    serializer = app.conf.task_serializer
    for _ in range(_TRIES):
        if other := _accepted(app, [each for each in _SERIALIZERS if each != serializer]):
            return Finding(
                "serializer-refused", "worker",
                f"the workers accept messages in {other} and not in {serializer}",
                f"add {serializer} to the workers' accept_content, or set another task_serializer",
            )  # fmt: skip
        is_connected = _is_connected(app)
        if not is_connected:
            break
    with app.connection_for_write() as connection:
        uri = address(connection)
    if is_connected:
        return Finding(
            "worker-silent", "worker",
            f"a worker is connected to {uri} and does not answer: it is stopped, or it runs "
            "a task with --pool solo",
            "wait until its task ends, or give --timeout; if it is stopped, continue or restart it",
        )  # fmt: skip
    prefix = app.conf.broker_transport_options.get("global_keyprefix")
    with_prefix = f" with global_keyprefix {prefix!r}" if prefix else ""
    return Finding(
        "no-worker", "worker",
        f"no worker on {uri}{with_prefix} answered",
        "start a worker; if one runs, compare its broker_url (host, virtual host, database) and "
        "broker_transport_options (global_keyprefix, sep)",
    )  # fmt: skip


def _accepted(app: Celery, serializers: Iterable[str]) -> str | None:
    """Return one of *serializers* in which a worker answers, None if there is none."""
    with app.connection_for_write() as connection:
        mailbox = app.control.mailbox(connection)
        return next((each for each in serializers if _answers_in(mailbox, each)), None)


def _answers_in(mailbox: Any, serializer: str) -> bool:
    """Return whether a worker answers a question in *serializer*."""
    mailbox.accept = ["json"]
    try:
        question = partial(
            mailbox._broadcast, probe.COMMAND, reply=True, timeout=_PATIENCE, serializer=serializer
        )
        answers = within(_PATIENCE + 2 * TIMEOUT, question)
    except ContentDisallowed:
        return True  # an answer, which is not read
    except Exception:
        return False  # not installed here, or not permitted
    return bool(answers)


def _is_connected(app: Celery) -> bool:
    """Return whether the broker has a worker of *app*."""
    # Not permitted, or no such queue. Not on a connection that may wait for answers.
    with suppress(Exception), app.connection_for_write() as connection:
        transport = connection.transport.driver_type
        if transport == "amqp":
            return any(_consumers(connection, name) for name in list(app.amqp.queues))
        if transport == "redis":
            return _is_subscribed(connection.default_channel, app.control.mailbox.exchange.name)
    return False


def _consumers(connection: Any, queue: str) -> int:
    """Return how many consumers RabbitMQ counts for *queue*."""
    with connection.channel() as channel:
        return int(channel.queue_declare(queue, passive=True).consumer_count)


def _is_subscribed(channel: Any, exchange: str) -> bool:
    """Return whether Redis has a client that receives remote control.

    A worker that was killed stays in kombu's table, so a client must be subscribed too.
    """
    client = channel.client
    database = str(client.connection_pool.connection_kwargs.get("db", 0))
    return bool(channel.get_table(exchange)) and any(
        each["db"] == database and each["psub"] != "0"
        for each in client.client_list(_type="pubsub")
    )
