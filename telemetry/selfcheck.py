"""The state of tracing in this process, for the doctor and for its probe in the worker."""

import os
import sys
import tempfile
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
    is_named_by_environment,
    is_set_up,
    names_in_code,
    sink,
)

#: Its low 64 bits are zero, so a sampler by ratio samples it unless the ratio is 0.
_TRACE_ID = 1 << 64
_CONTRIB = {
    "opentelemetry.instrumentation.celery": "CeleryInstrumentor",
    "opentelemetry.instrumentation.flask": "FlaskInstrumentor",
}


@dataclass(frozen=True, slots=True)
class Process:
    """The state of tracing in one process."""

    pid: int
    #: Whether a tracer provider is set, and whether its sampler drops all spans.
    provider: bool
    drops: bool
    #: Whether ``extract`` can read a context that ``inject`` has written.
    carries: bool
    #: The name of the service in the provider's resource.
    service: str
    #: The instrumentations of OpenTelemetry that are active beside this library.
    doubled: list[str] = field(default_factory=list)
    #: Whether the provider is another than that of ``telemetry.setup``, and exports nothing.
    foreign: bool = False
    mute: bool = False
    #: The setting that turns tracing off.
    off: str = ""
    #: The directory that cannot be used, so that spans wait in memory, and the number of the error.
    unwritable: str = ""
    unwritable_errno: int = 0
    #: The service names in the code, and whether the environment overrides them.
    names: list[str] = field(default_factory=list)
    named_by_environment: bool = False

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> "Process":
        """Read the *answer* of another process, whose version may have other fields."""
        known = {each.name for each in fields(cls)}
        return cls(**{name: value for name, value in answer.items() if name in known})

    @property
    def default_service(self) -> bool:
        """Whether nobody has named the service."""
        return self.service == DEFAULT_SERVICE_NAME or self.service.startswith("unknown_service")


def describe_process() -> Process:
    """Describe this process."""
    provider: Any = trace.get_tracer_provider()
    is_sdk = isinstance(provider, TracerProvider)
    is_set = not isinstance(provider, trace.ProxyTracerProvider | trace.NoOpTracerProvider)
    foreign = is_set and not is_set_up()
    unwritable, error = ("", 0) if foreign else _unwritable()
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
        unwritable=unwritable,
        unwritable_errno=error,
        names=names_in_code(),
        named_by_environment=is_named_by_environment(),
    )


def _unwritable() -> tuple[str, int]:
    """Return the directory of this process's spans if it cannot be written, and the error.

    Write a temporary file there, or in its first parent that exists. A disk may have filled since
    the directory was opened.
    """
    on_disk = spool()
    if on_disk is None:
        return "", 0
    directory = on_disk.directory
    try:
        existing = next(path for path in (directory, *directory.parents) if path.exists())
        with tempfile.TemporaryFile(dir=existing) as file:
            file.write(b"queuehop")
            file.flush()
    except OSError as exc:
        return str(directory), exc.errno or 0
    return (str(directory), 0) if sink().in_memory else ("", 0)


def _drops(provider: Any) -> bool:
    return not provider.sampler.should_sample(None, _TRACE_ID, "probe").decision.is_sampled()


def _carries() -> bool:
    """Return whether ``extract`` can read a context that ``inject`` has written."""
    origin = trace.SpanContext(_TRACE_ID, 1, True, trace.TraceFlags(1))
    carrier: dict[str, str] = {}
    inject(carrier, trace.set_span_in_context(trace.NonRecordingSpan(origin)))
    arrived = trace.get_current_span(extract(carrier)).get_span_context()
    return arrived.trace_id == _TRACE_ID


def _is_active(module: str) -> bool:
    instrumentor = getattr(sys.modules.get(module), _CONTRIB[module], None)
    return bool(instrumentor and instrumentor().is_instrumented_by_opentelemetry)
