"""Measurements on their way to the segment: numbers, under names that are written once."""

import json
import struct
from functools import lru_cache
from typing import Any

from opentelemetry.sdk.resources import Resource

from .. import faults
from ..hop import Attributes, Values
from . import frames
from .frames import Definition
from .writer import Writer

__all__ = ["VALUE", "Meter", "described"]

#: One value of a measurement.
VALUE = struct.Struct("<d")


class Meter:
    """Keeps measurements of the service that *resource* describes."""

    def __init__(self, writer: Writer, resource: Resource) -> None:
        self._writer = writer
        self._resource = frames.define(json.dumps(dict(resource.attributes)).encode())

    def record(self, values: Values, attributes: Attributes, span_follows: bool = False) -> None:
        """Count or time what *values* names, under *attributes*.

        With *span_follows* it is written with the span that this thread ends next.
        """
        try:
            self._writer.append(
                frames.MEASUREMENT,
                b"".join(map(VALUE.pack, values.values())),
                self._resource,
                _description(tuple(values), tuple(attributes.items())),
                more=span_follows,
            )
        except Exception:
            faults.report("keep a measurement")


@lru_cache(maxsize=1024)
def _description(names: tuple[str, ...], attributes: tuple[tuple[str, Any], ...]) -> Definition:
    return frames.define(json.dumps([names, dict(attributes)]).encode())


@lru_cache(maxsize=1024)
def described(description: bytes) -> tuple[list[str], dict[str, Any]]:
    """Return the names and the attributes of a measurement from its *description*."""
    names, attributes = json.loads(description)
    return names, attributes
