"""The state of tracing in this process, for the doctor and for its probe in the worker."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from opentelemetry import trace
from opentelemetry.semconv.attributes.service_attributes import SERVICE_NAME

from .config.exporter import turned_off_by
from .config.sdk import TracerProvider, span_processors
from .config.settings import spool
from .propagation import extract, inject
from .setup import (
    DEFAULT_SERVICE_NAME,
    is_in_memory,
    is_named_by_environment,
    is_set_up,
    names_in_code,
)

__all__ = ["Process", "describe_process"]

#: Its low 64 bits are zero: a sampler by ratio takes it, unless it takes none.
_TRACE_ID = 1 << 64
_CONTRIB = {
    "opentelemetry.instrumentation.celery": "CeleryInstrumentor",
    "opentelemetry.instrumentation.flask": "FlaskInstrumentor",
}


@dataclass(frozen=True, slots=True)
class Process:
    """One process: its *provider* makes spans, *drops* them all, its propagator *carries*.

    A *foreign* provider is not ``telemetry.setup``'s; if it is *mute*, nothing exports its spans.
    *off* is the setting that turns tracing off, *unwritable* the directory that cannot be used, so
    that spans wait in memory. *names* are the service names that the code has given, in that
    order; *named_by_environment* is whether the environment names the service.
    """

    pid: int
    provider: bool
    drops: bool
    carries: bool
    service: str
    doubled: list[str] = field(default_factory=list)
    foreign: bool = False
    mute: bool = False
    off: str = ""
    unwritable: str = ""
    names: list[str] = field(default_factory=list)
    named_by_environment: bool = False

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> "Process":
        """Read the answer of another process. Its release may have other fields than this one."""
        known = {each.name for each in fields(cls)}
        return cls(**{name: value for name, value in answer.items() if name in known})

    @property
    def default_service(self) -> bool:
        """Whether the service has no name."""
        return self.service == DEFAULT_SERVICE_NAME or self.service.startswith("unknown_service")


def describe_process() -> Process:
    """Describe the process that this is called in."""
    provider: Any = trace.get_tracer_provider()
    is_sdk = isinstance(provider, TracerProvider)
    is_set = not isinstance(provider, trace.ProxyTracerProvider | trace.NoOpTracerProvider)
    foreign = is_set and not is_set_up()
    kept = spool() if is_in_memory() else None
    return Process(
        pid=os.getpid(),
        provider=is_set,
        drops=is_sdk and _drops(provider),
        carries=_carries(),
        service=str(provider.resource.attributes.get(SERVICE_NAME, "")) if is_sdk else "",
        doubled=[module for module in _CONTRIB if _is_active(module)],
        foreign=foreign,
        mute=is_sdk and foreign and span_processors(provider) == (),
        off="" if is_set else turned_off_by(),
        unwritable=str(kept.directory) if kept else "",
        names=names_in_code(),
        named_by_environment=is_named_by_environment(),
    )


def _drops(provider: Any) -> bool:
    return not provider.sampler.should_sample(None, _TRACE_ID, "probe").decision.is_sampled()


def _carries() -> bool:
    """Whether a context can be read from the headers that it was written to."""
    origin = trace.SpanContext(_TRACE_ID, 1, True, trace.TraceFlags(1))
    carrier: dict[str, str] = {}
    inject(carrier, trace.set_span_in_context(trace.NonRecordingSpan(origin)))
    arrived = trace.get_current_span(extract(carrier)).get_span_context()
    return arrived.trace_id == _TRACE_ID


def _is_active(module: str) -> bool:
    instrumentor = getattr(sys.modules.get(module), _CONTRIB[module], None)
    return bool(instrumentor and instrumentor().is_instrumented_by_opentelemetry)
