"""A run of many messages: the package celery-batches passes a list of them to a task."""

from collections.abc import Mapping
from typing import Any

__all__ = ["batch_of"]


def batch_of(args: Any) -> list[Mapping[str, Any]]:
    """Return the messages of a batch: *args* is a list of their requests. Else return none."""
    if not args or not isinstance(args[0], list):
        return []
    requests = args[0]
    if not all(isinstance(getattr(one, "request_dict", None), Mapping) for one in requests):
        return []
    return [{**one.request_dict, "delivery_info": one.delivery_info} for one in requests]
