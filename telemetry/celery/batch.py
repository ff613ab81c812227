"""A run of many messages: the package celery-batches hands a task a list of them."""

from collections.abc import Mapping
from typing import Any

__all__ = ["batch_of"]


def batch_of(args: Any) -> list[Mapping[str, Any]]:
    """Return the messages of a batch, whose requests are a list in *args*; empty for any other."""
    if not args or not isinstance(args[0], list):
        return []
    requests = args[0]
    if not all(isinstance(getattr(one, "request_dict", None), Mapping) for one in requests):
        return []
    return [{**one.request_dict, "delivery_info": one.delivery_info} for one in requests]
