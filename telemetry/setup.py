"""Provider and exporter of this process, from OpenTelemetry's own environment."""

import atexit
import logging
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from opentelemetry import trace
from opentelemetry.environment_variables import OTEL_PYTHON_TRACER_PROVIDER
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.semconv._incubating.attributes.host_attributes import HOST_NAME
from opentelemetry.semconv.attributes.service_attributes import (
    SERVICE_INSTANCE_ID,
    SERVICE_NAME,
)

from . import faults, settings
from .light import Provider
from .logs import correlate_logs
from .propagation import propagator
from .sdk import TracerProvider, set_global_textmap
from .series import Series

__all__ = [
    "flush",
    "in_memory",
    "is_set_up",
    "kept",
    "leave",
    "measure",
    "setup",
    "shutdown",
    "trouble",
]

logger = logging.getLogger(__package__)

DEFAULT_SERVICE_NAME = "test-py-manual-otlp"


class _Export(Protocol):
    """What becomes of spans and measurements: ``spool.DiskExport`` or ``memory.MemoryExport``."""

    @property
    def measure(self) -> Callable[[Series, Sequence[float]], None]: ...
    def flush(self, timeout: float) -> bool: ...
    def kept(self) -> Iterator[bytes]: ...
    def trouble(self) -> str: ...
    def leave(self) -> None: ...
    def shutdown(self, timeout: float) -> None: ...


@dataclass(frozen=True, slots=True)
class _Pipeline:
    provider: TracerProvider
    export: _Export | None
    #: Whether spans wait in memory for want of the directory that they should wait in.
    in_memory: bool = False


_pipeline: _Pipeline | None = None
_lock = threading.Lock()


def setup(service_name: str | None = None) -> None:
    """Make spans and send them over OTLP/gRPC, as the ``OTEL_*`` environment says.

    *service_name* is the name written in code; ``OTEL_SERVICE_NAME``, or the one in
    ``OTEL_RESOURCE_ATTRIBUTES``, wins over it. Once a process is enough, again is harmless, and so
    is a fork afterwards. An application that has set a tracer provider of its own keeps it. Nothing
    raises: a setting that cannot be used is one line in the log.
    """
    global _pipeline
    with _lock:
        if _pipeline is not None:
            return
        correlate_logs()
        set_global_textmap(propagator())
        if not settings.traces_enabled():
            return
        if isinstance(_provider(), TracerProvider):
            logger.info("a tracer provider is set already: spans go where it sends them")
            return
        _pipeline = _start(service_name)
        trace.set_tracer_provider(_pipeline.provider)


def _provider() -> trace.TracerProvider | None:
    """Return the provider that there is; None where a variable names one that there is not."""
    try:
        return trace.get_tracer_provider()
    except Exception:
        logger.warning(
            "%s names no tracer provider that is installed: using the one of setup",
            OTEL_PYTHON_TRACER_PROVIDER,
        )
        return None


def _start(service_name: str | None) -> _Pipeline:
    provider = Provider(
        sampler=settings.sampler(),
        resource=_resource(service_name),
        span_limits=settings.span_limits(),
        shutdown_on_exit=False,
    )
    target = settings.otlp()
    if target is None:
        return _Pipeline(provider, None)
    atexit.register(shutdown)
    # Read here in any case: the sender, which reads them too, has nobody to tell what is wrong.
    pace = settings.batch(), settings.metric_interval()
    spool = settings.spool()
    if spool and (on_disk := _on_disk(provider, target, spool)):
        return _Pipeline(provider, on_disk)
    return _Pipeline(provider, _in_memory(provider, target, *pace), in_memory=spool is not None)


def _on_disk(provider: Provider, target: settings.Otlp, spool: settings.Spool) -> _Export | None:
    try:
        from .spool.export import DiskExport

        metrics = settings.metrics_target(target)
        return DiskExport(provider, _of_all_processes(provider.resource), target, metrics, spool)
    except (ImportError, OSError) as exc:
        logger.warning(
            "spans cannot be kept on disk (%s): they wait in memory, where a process that is "
            "killed takes them with it; set %s to a directory of this user",
            exc,
            settings.QUEUEHOP_STATE_DIR,
        )
        return None


def _in_memory(
    provider: TracerProvider, target: settings.Otlp, batch: settings.Batch, interval: float
) -> _Export:
    # gRPC is loaded by those who send, and then at once: it cannot be when the interpreter ends.
    from .memory import MemoryExport

    return MemoryExport(provider, target, settings.metrics_target(target), batch, interval)


def is_set_up() -> bool:
    """Say whether the provider of this process is the one that ``setup`` has made."""
    return _pipeline is not None and trace.get_tracer_provider() is _pipeline.provider


def in_memory() -> bool:
    """Say whether spans wait in memory because their directory cannot be written."""
    return _pipeline is not None and _pipeline.in_memory


def measure(series: Series, values: Sequence[float]) -> None:
    """Count or time *values*, in seconds, one for each of *series*' names."""
    if _pipeline is not None and _pipeline.export is not None:
        _pipeline.export.measure(series, values)


def _resource(service_name: str | None) -> Resource:
    from_environment = OTELResourceDetector().detect().attributes
    if service_name is None and SERVICE_NAME not in from_environment:
        service_name = DEFAULT_SERVICE_NAME
        logger.warning("no service name: set OTEL_SERVICE_NAME; spans say %s", service_name)
    attributes = {SERVICE_NAME: service_name, HOST_NAME: socket.gethostname(), **from_environment}
    return Resource.create({key: value for key, value in attributes.items() if value is not None})


def _of_all_processes(resource: Resource) -> Resource:
    """Return *resource* without the instance that the SDK has made up for this process."""
    given = OTELResourceDetector().detect().attributes
    kept = resource.attributes.items()
    return Resource({k: v for k, v in kept if k != SERVICE_INSTANCE_ID or k in given})


def flush(timeout: float = 10.0) -> bool:
    """Have delivered what has ended so far; say whether it was, or is durably kept.

    Returns after *timeout* seconds at the latest, and as soon as it is known that the collector
    is away.
    """
    if _pipeline is not None and _pipeline.export is not None:
        try:
            return _pipeline.export.flush(timeout)
        except Exception:  # of another user since, to whom the directory does not belong
            faults.report("deliver what it has")
            return False
    provider = trace.get_tracer_provider()
    return not isinstance(provider, TracerProvider) or provider.force_flush(int(timeout * 1000))


def kept() -> Iterator[bytes]:
    """Yield what this process and its children lately ended, each a ``Span``."""
    if _pipeline is not None and _pipeline.export is not None:
        yield from _pipeline.export.kept()


def trouble() -> str:
    """Return why spans are not delivered at the moment; empty where nothing is known against it."""
    if _pipeline is not None and _pipeline.export is not None:
        return _pipeline.export.trouble()
    return ""


def leave() -> None:
    """Do what must be done before a forked process ends, where nothing runs at its exit."""
    if _pipeline is not None and _pipeline.export is not None:
        _pipeline.export.leave()


def shutdown(timeout: float = 5.0) -> None:
    """Have delivered what is left. A collector that is away is given up after *timeout* seconds.

    What was not delivered waits on disk for the next start. Runs by itself when the interpreter
    exits.
    """
    if _pipeline is not None and _pipeline.export is not None:
        _pipeline.export.shutdown(timeout)
