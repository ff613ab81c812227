"""The queue of a message by its name, at both ends, however the message was routed."""

import re
from collections.abc import Collection, Sequence
from functools import lru_cache
from typing import Any

from celery import Celery
from kombu.entity import Exchange, Queue
from kombu.transport.native_delayed_delivery import MAX_NUMBER_OF_BITS_TO_USE

from ..tracing.faults import log_internal_error

#: The exchanges in which RabbitMQ holds a message with a countdown. Its routing key there has the
#: bits of the countdown in front of its own.
_DELAYED = "celery_delayed_"


def destination(
    app: Celery, exchange: Any, routing_key: Any, declare: Sequence[Queue] | None
) -> tuple[str | None, str | None]:
    """Return the destination of a message: the queue, or the exchange and its routing key.

    The destination is the exchange if no known queue, or several, are bound to it. It is None if
    RabbitMQ delays the message and several exchanges, or an unknown one, will get it.
    """
    if not isinstance(routing_key, str):
        return None, None
    if exchange:
        exchange = getattr(exchange, "name", exchange)
    if not exchange:  # on the default exchange, the routing key is the queue's name
        return routing_key, None
    known = {queue.name: queue for queue in [*app.amqp.queues.values(), *(declare or ())]}
    name, exchange, routing_key = _find(known.values(), exchange, routing_key)
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
        name, exchange, _ = _find(consumer.task_consumer.queues, exchange, routing_key)
        return name or exchange
    except Exception:
        log_internal_error("determine the queue of a message")
        return None


def _find(
    queues: Collection[Queue], exchange: str, routing_key: str
) -> tuple[str | None, str | None, str]:
    """Return queue, exchange and routing key of a message, behind the exchanges of a countdown.

    Queue and exchange are None if the message goes to several of them, or to unknown ones.
    """
    exchanges = {exchange}
    if exchange.startswith(_DELAYED):
        routing_key = routing_key.split(".", MAX_NUMBER_OF_BITS_TO_USE)[-1]
        exchanges = {
            binding.exchange.name
            for queue in queues
            for binding in _bindings(queue)
            if binding.exchange.type != "direct" and _matches(binding.routing_key, routing_key)
        }
    names = {
        _name(queue)
        for queue in queues
        if any(_is_bound(queue, exchange, routing_key) for exchange in exchanges)
    }
    return _only(names), _only(exchanges), routing_key


def _only(names: set[str]) -> str | None:
    return names.pop() if len(names) == 1 else None


def _name(queue: Queue) -> str:
    # A broadcast has a queue for each worker, with a random name. Its alias is the name in code.
    return str(getattr(queue, "alias", None) or queue.name)


def _bindings(queue: Queue) -> list[Any]:
    """Return *queue*, which has an exchange of its own, and its bindings."""
    return [each for each in (queue, *(queue.bindings or ())) if each.exchange is not None]


def _is_bound(queue: Queue, exchange: str, routing_key: str) -> bool:
    for binding in _bindings(queue):
        if binding.exchange.name != exchange:
            continue
        match _kind(binding.exchange):
            case "direct" if binding.routing_key != routing_key:
                continue
            case "topic" if not _matches(binding.routing_key, routing_key):
                continue
        return True  # with any other kind of exchange, each bound queue may get the message
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
