"""Explain why no worker answers remote control."""

import re
from contextlib import suppress
from typing import Any

from celery import Celery
from kombu.exceptions import ContentDisallowed

from ..celery import probe
from .broker import address
from .finding import Finding

__all__ = ["nobody"]

_SERIALIZERS = ("json", "pickle", "msgpack", "yaml")

#: Seconds to wait for an answer in another serializer.
_PATIENCE = 0.5


def nobody(app: Celery) -> Finding:
    """Explain why no worker answers. It may refuse the serializer, so ask again in others."""
    with app.connection_for_write() as connection:
        uri = address(connection)
        serializer = app.conf.task_serializer
        mailbox = app.control.mailbox(connection)
        for other in (each for each in _SERIALIZERS if each != serializer):
            if _answers_in(mailbox, other):
                return Finding(
                    "serializer-refused", "worker",
                    f"the workers accept messages in {other} and not in {serializer}",
                    f"let accept_content of the workers name {serializer}, or set another "
                    "task_serializer",
                )  # fmt: skip
        here, elsewhere = _connected(app, connection)
    if here:
        return Finding(
            "worker-silent", "worker",
            f"a worker is connected to {uri} and does not answer: it is stopped, or busy, "
            "which keeps a worker with --pool solo from answering",
            "wait until its task ends, or give --timeout; if it is stopped, continue or restart it",
        )  # fmt: skip
    prefix = app.conf.broker_transport_options.get("global_keyprefix")
    with_prefix = f" with global_keyprefix {prefix!r}" if prefix else ""
    return Finding(
        "no-worker", "worker",
        f"no worker on {uri}{with_prefix} answered"
        + (f"; workers are connected to {elsewhere}" if elsewhere else ""),
        "start a worker; if one runs, compare its broker_url (host, virtual host, database) and "
        "the global_keyprefix in its broker_transport_options",
    )  # fmt: skip


def _answers_in(mailbox: Any, serializer: str) -> bool:
    """Return whether a worker answers a question in *serializer*."""
    mailbox.accept = ["json"]
    try:
        answers = mailbox._broadcast(
            probe.COMMAND, reply=True, timeout=_PATIENCE, serializer=serializer
        )
    except ContentDisallowed:
        return True  # an answer, which is not read
    except Exception:
        return False  # not installed here, or not permitted
    return bool(answers)


def _connected(app: Celery, connection: Any) -> tuple[bool, str]:
    """Return whether the broker has a worker of *app*, and where else a Redis has workers."""
    transport = connection.transport.driver_type
    with suppress(Exception):  # not permitted, or no such queue
        if transport == "amqp":
            return any(_consumers(connection, name) for name in list(app.amqp.queues)), ""
        if transport == "redis":
            return _subscribed(connection.default_channel, app.control.mailbox.exchange.name)
    return False, ""


def _consumers(connection: Any, queue: str) -> int:
    """Return how many consumers RabbitMQ counts for *queue*."""
    with connection.channel() as channel:
        return int(channel.queue_declare(queue, passive=True).consumer_count)


def _subscribed(channel: Any, exchange: str) -> tuple[bool, str]:
    """Return what Redis lists of the channels by which workers receive remote control.

    The name of such a channel is ``prefix/database.exchange``.
    """
    pattern = re.compile(rf"(.*)/(\d+)\.{re.escape(exchange)}")
    own = channel.global_keyprefix + channel._get_publish_topic(exchange, "")
    names = {name.decode() for name in channel.client.pubsub_channels(f"*/*.{exchange}")}
    elsewhere = [
        f"database {found[2]}" + (f" with global_keyprefix {found[1]!r}" if found[1] else "")
        for name in sorted(names - {own})
        if (found := pattern.fullmatch(name))
    ]
    return own in names, " and ".join(elsewhere)
