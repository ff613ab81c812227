"""The instrumentation scope of the hops' spans and metrics."""

from functools import cache
from importlib import metadata
from typing import Any

from msgspec import Struct, field
from opentelemetry.semconv.schemas import Schemas

from .interrupts import uninterrupted

#: The scope's name, and that of the distribution.
SCOPE_NAME = "queuehop"


class Scope(Struct, array_like=True, frozen=True):
    """An OpenTelemetry instrumentation scope."""

    name: str
    version: str = ""
    schema_url: str = ""
    attributes: dict[str, Any] = field(default_factory=dict)


@cache
@uninterrupted  # importlib.metadata swallows exceptions
def hop_scope() -> Scope:
    """Return the scope of the hops: the installed version, and the newest conventions known."""
    try:
        version = metadata.version(SCOPE_NAME)
    except metadata.PackageNotFoundError:  # a copied folder
        version = ""
    return Scope(SCOPE_NAME, version, list(Schemas)[-1].value)
