"""What a process knows about its own tracing: asked here, and by a probe in the worker."""

import os
import sys
from dataclasses import dataclass, field
from typing import Any

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.semconv.attributes.service_attributes import SERVICE_NAME

from ..propagation import TRACEPARENT, extract, inject
from ..setup import DEFAULT_SERVICE_NAME

__all__ = ["Process", "describe"]

#: Its low 64 bits are zero: a sampler by ratio takes it, unless it takes none.
_TRACE_ID = 1 << 64
_CONTRIB = {
    "opentelemetry.instrumentation.celery": "CeleryInstrumentor",
    "opentelemetry.instrumentation.flask": "FlaskInstrumentor",
}


@dataclass(frozen=True, slots=True)
class Process:
    """One process: its *provider* makes spans, *drops* them all, its propagator *carries*."""

    pid: int
    provider: bool
    drops: bool
    carries: bool
    service: str
    doubled: list[str] = field(default_factory=list)

    @property
    def default_service(self) -> bool:
        """Whether nobody has named the service."""
        return self.service == DEFAULT_SERVICE_NAME or self.service.startswith("unknown_service")


def describe() -> Process:
    """Describe the process that this is called in."""
    provider: Any = trace.get_tracer_provider()
    is_sdk = isinstance(provider, TracerProvider)
    return Process(
        pid=os.getpid(),
        provider=is_sdk,
        drops=is_sdk and _drops(provider),
        carries=_carries(),
        service=str(provider.resource.attributes.get(SERVICE_NAME, "")) if is_sdk else "",
        doubled=[module for module in _CONTRIB if _is_active(module)],
    )


def _drops(provider: Any) -> bool:
    return not provider.sampler.should_sample(None, _TRACE_ID, "probe").decision.is_sampled()


def _carries() -> bool:
    """Whether a context comes back from the headers that it was written to."""
    origin = trace.SpanContext(_TRACE_ID, 1, True, trace.TraceFlags(1))
    carrier: dict[str, str] = {}
    inject(carrier, trace.set_span_in_context(trace.NonRecordingSpan(origin)))
    arrived = trace.get_current_span(extract(carrier)).get_span_context()
    return TRACEPARENT in carrier and arrived.trace_id == _TRACE_ID


def _is_active(module: str) -> bool:
    instrumentor = getattr(sys.modules.get(module), _CONTRIB[module], None)
    return bool(instrumentor and instrumentor().is_instrumented_by_opentelemetry)
