"""OpenTelemetry's SDK, imported so that the environment cannot stop the application.

It reads three limits while it is being imported and raises on a malformed one. So such a value is
hidden from it for that moment; ``settings.span_limits`` reads them again and says what is wrong.
So are propagators that are not installed; ``propagation.propagator`` says that.
"""

import os

from opentelemetry.environment_variables import OTEL_PROPAGATORS
from opentelemetry.sdk.environment_variables import (
    OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT,
    OTEL_SPAN_EVENT_COUNT_LIMIT,
    OTEL_SPAN_LINK_COUNT_LIMIT,
)

__all__ = ["SpanLimits", "TracerProvider", "sampling", "set_global_textmap"]

_hidden = {
    variable: value
    for variable in (
        OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT,
        OTEL_SPAN_EVENT_COUNT_LIMIT,
        OTEL_SPAN_LINK_COUNT_LIMIT,
    )
    if (value := os.environ.get(variable)) is not None
    and not value.strip().isdecimal()
    and value.strip().lower() != "unset"
}
for _variable in _hidden:
    del os.environ[_variable]
try:
    from opentelemetry.sdk.trace import SpanLimits, TracerProvider, sampling
finally:
    os.environ.update(_hidden)

try:
    from opentelemetry.propagate import set_global_textmap
except Exception:
    if OTEL_PROPAGATORS not in os.environ:
        raise
    _named = os.environ.pop(OTEL_PROPAGATORS)
    try:
        from opentelemetry.propagate import set_global_textmap
    finally:
        os.environ[OTEL_PROPAGATORS] = _named
