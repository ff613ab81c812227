"""The queue of a message by its name, at both ends, however the message was routed."""

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

from celery import Celery
from kombu.entity import Exchange, Queue
from kombu.transport.native_delayed_delivery import MAX_NUMBER_OF_BITS_TO_USE

from ..tracing.faults import log_internal_error

__all__ = ["destination", "queue_of"]

#: The exchanges in which RabbitMQ holds a message with a countdown. Its routing key there has the
#: bits of the countdown in front of its own.
_DELAYED = "celery_delayed_"


def destination(
    app: Celery, exchange: Any, routing_key: Any, declare: Sequence[Queue] | None
) -> tuple[str | None, str | None]:
    """Return the destination of a message: the queue, or the exchange and its routing key.

    An exchange is the destination if no queue, or more than one, is known to be bound to it.
    """
    if not isinstance(routing_key, str):
        return None, None
    if exchange:
        exchange = getattr(exchange, "name", exchange)
    if not exchange:  # the default exchange takes the queue's name as the routing key
        return routing_key, None
    known = {queue.name: queue for queue in [*app.amqp.queues.values(), *(declare or ())]}
    name = _one_bound(known.values(), exchange, routing_key)
    return (name, None) if name is not None else (exchange, routing_key)


def queue_of(consumer: Any, message: Any) -> str | None:
    """Return the queue from which Celery's *consumer* took a raw kombu *message*.

    Return the exchange if several of the worker's queues are bound to it, None if it is unknown.
    """
    try:
        delivery = message.delivery_info or {}
        exchange, routing_key = delivery.get("exchange"), delivery.get("routing_key")
        if not exchange or not isinstance(routing_key, str):
            return routing_key if isinstance(routing_key, str) else None
        return _one_bound(consumer.task_consumer.queues, exchange, routing_key) or str(exchange)
    except Exception:
        log_internal_error("determine the queue of a message")
        return None


def _one_bound(queues: Iterable[Queue], exchange: str, routing_key: str) -> str | None:
    names = {_name(queue) for queue in queues if _is_bound(queue, exchange, routing_key)}
    return names.pop() if len(names) == 1 else None


def _name(queue: Queue) -> str:
    # A broadcast has a queue for each worker, with a random name. Its alias is the name in code.
    return str(getattr(queue, "alias", None) or queue.name)


def _is_bound(queue: Queue, exchange: str, routing_key: str) -> bool:
    if exchange.startswith(_DELAYED):
        routing_key = routing_key.split(".", MAX_NUMBER_OF_BITS_TO_USE)[-1]
        return queue.exchange.type != "direct" and _matches(queue.routing_key, routing_key)
    for binding in [queue, *(queue.bindings or ())]:
        if binding.exchange is None or binding.exchange.name != exchange:
            continue
        match _kind(binding.exchange):
            case "direct" if binding.routing_key != routing_key:
                continue
            case "topic" if not _matches(binding.routing_key, routing_key):
                continue
        return True  # of an exchange of another kind, each of its queues may get the message
    return False


def _kind(exchange: Exchange) -> str | None:
    """Return how *exchange* routes a message: for RabbitMQ's plugin for delays, after the delay."""
    arguments = getattr(exchange, "arguments", None) or {}
    kind: str | None = arguments.get("x-delayed-type", exchange.type)
    return kind


def _matches(pattern: str | None, routing_key: str) -> bool:
    return _topic(pattern or "").fullmatch(routing_key) is not None


@lru_cache(maxsize=1024)
def _topic(pattern: str) -> re.Pattern[str]:
    """Return a topic's *pattern* as a regular expression: ``*`` is a word, ``#`` any number."""
    escaped = re.escape(pattern).replace(r"\*", r"[^.]+")
    return re.compile(
        escaped.replace(r"\#\.", r"(?:[^.]+\.)*")
        .replace(r"\.\#", r"(?:\.[^.]+)*")
        .replace(r"\#", ".*")
    )
