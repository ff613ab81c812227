"""Import OpenTelemetry's SDK so that no environment variable can stop the application.

The SDK raises on a malformed limit while it is imported, and the API on a propagator that is not
installed. This module hides such a variable from them meanwhile. ``settings.span_limits`` and
``propagation.configured`` read the variables later and log the problem.
"""

import logging
import os
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from typing import Any

from opentelemetry.environment_variables import OTEL_PROPAGATORS
from opentelemetry.sdk.environment_variables import OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT
from opentelemetry.sdk.resources import Resource

__all__ = [
    "Event",
    "ReadableSpan",
    "SpanLimits",
    "SpanProcessor",
    "TracerProvider",
    "create_resource",
    "logger",
    "remove_span_processor",
    "sampling",
    "set_global_textmap",
    "span_processors",
]

#: The logger of the whole library.
logger = logging.getLogger("telemetry")


def _load(module: str, variable: str) -> None:
    """Import *module*, which reads *variable*. If it raises, import it without the variable."""
    try:
        import_module(module)
    except Exception:
        if variable not in os.environ:
            raise
        value = os.environ.pop(variable)
        try:
            import_module(module)
        finally:
            os.environ[variable] = value


_load("opentelemetry.sdk.trace", OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT)
_load("opentelemetry.propagate", OTEL_PROPAGATORS)

from opentelemetry.propagate import set_global_textmap  # noqa: E402
from opentelemetry.sdk.trace import (  # noqa: E402
    Event,
    ReadableSpan,
    SpanLimits,
    SpanProcessor,
    TracerProvider,
    sampling,
)


def create_resource(attributes: Mapping[str, str]) -> Resource:
    """Return the resource of *attributes*, the SDK's own and those of the environment.

    The SDK logs each entry of ``OTEL_RESOURCE_ATTRIBUTES`` that it cannot read, without the name of
    the variable. ``settings.resource_attributes`` has logged that.
    """
    sdks_logger = logging.getLogger(Resource.__module__)
    sdks_logger.addFilter(_is_not_about_an_entry)
    try:
        return Resource.create(attributes)
    finally:
        sdks_logger.removeFilter(_is_not_about_an_entry)


def _is_not_about_an_entry(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith("Invalid key value resource attribute pair")


def span_processors(provider: TracerProvider) -> tuple[SpanProcessor, ...] | None:
    """Return the span processors of *provider*. None if the installed SDK does not expose them."""
    active = getattr(provider, "_active_span_processor", None)
    found = getattr(active, "_span_processors", None)
    if isinstance(found, tuple):
        return found
    _log_missing()
    return None


def remove_span_processor(provider: TracerProvider, processor: SpanProcessor) -> None:
    """Remove *processor* from *provider*. If the installed SDK does not allow it, it stays.

    The SDK's public API cannot remove one.
    """
    found = span_processors(provider)
    if found is None:
        return
    try:
        active: Any = provider._active_span_processor
        active._span_processors = tuple(one for one in found if one is not processor)
    except AttributeError:
        _log_missing()


@cache
def _log_missing() -> None:
    logger.info(
        "this version of opentelemetry-sdk has no usable _span_processors: span processors cannot "
        "be listed or removed"
    )
