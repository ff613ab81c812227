"""Provider and exporter of this process, from OpenTelemetry's own environment."""

import atexit
import logging
import os
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from opentelemetry import trace
from opentelemetry.propagate import set_global_textmap
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.semconv._incubating.attributes.host_attributes import HOST_NAME
from opentelemetry.semconv.attributes.service_attributes import SERVICE_NAME
from opentelemetry.util.types import AttributeValue

from . import settings
from .logs import correlate_logs
from .propagation import propagator
from .sdk import TracerProvider

if TYPE_CHECKING:
    from .export import PerProcessExporter, Processor
    from .metrics import Metrics

__all__ = ["flush", "measure", "setup", "shutdown"]

logger = logging.getLogger(__package__)

DEFAULT_SERVICE_NAME = "test-py-manual-otlp"


@dataclass(frozen=True, slots=True)
class _Pipeline:
    provider: TracerProvider
    processor: "Processor | None"
    exporter: "PerProcessExporter | None"
    metrics: "Metrics | None"


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
        if isinstance(trace.get_tracer_provider(), TracerProvider):
            logger.info("a tracer provider is set already: spans go where it sends them")
            return
        _pipeline = _start(service_name)
        trace.set_tracer_provider(_pipeline.provider)


def _start(service_name: str | None) -> _Pipeline:
    provider = TracerProvider(
        sampler=settings.sampler(),
        resource=_resource(service_name),
        span_limits=settings.span_limits(),
        shutdown_on_exit=False,
    )
    target = settings.otlp()
    if target is None:
        return _Pipeline(provider, None, None, None)
    # gRPC is loaded by those who send, and then at once: it cannot be when the interpreter ends.
    from .export import PerProcessExporter, Processor

    exporter = PerProcessExporter(target)
    batch = settings.batch()
    processor = Processor(
        exporter,
        max_queue_size=batch.max_queue_size,
        schedule_delay_millis=batch.schedule_delay,
        max_export_batch_size=batch.max_export_batch_size,
        export_timeout_millis=batch.export_timeout,
    )
    provider.add_span_processor(processor)
    atexit.register(shutdown)
    return _Pipeline(provider, processor, exporter, _metrics(target, provider))


def _metrics(traces: settings.Otlp, provider: TracerProvider) -> "Metrics | None":
    if not settings.metrics_enabled():
        return None
    target: settings.Otlp | None = traces
    if any(name.startswith(_OF_A_SIGNAL) for name in os.environ):
        target = settings.otlp("METRICS")
    if target is None:
        return None
    from .metrics import Metrics

    # The provider knows after a fork which process it is in.
    return Metrics(target, lambda: provider.resource, settings.metric_interval())


#: With none of these set, metrics go where spans go.
_OF_A_SIGNAL = ("OTEL_EXPORTER_OTLP_TRACES_", "OTEL_EXPORTER_OTLP_METRICS_")


def measure(values: Mapping[str, float], attributes: Mapping[str, AttributeValue]) -> None:
    """Count or time what *values* names, in the conventions' words and seconds."""
    if _pipeline is not None and _pipeline.metrics is not None:
        _pipeline.metrics.record(values, attributes)


def _resource(service_name: str | None) -> Resource:
    from_environment = OTELResourceDetector().detect().attributes
    if service_name is None and SERVICE_NAME not in from_environment:
        service_name = DEFAULT_SERVICE_NAME
        logger.warning("no service name: set OTEL_SERVICE_NAME; spans say %s", service_name)
    attributes = {SERVICE_NAME: service_name, HOST_NAME: socket.gethostname(), **from_environment}
    return Resource.create({key: value for key, value in attributes.items() if value is not None})


def flush(timeout: float = 10.0) -> bool:
    """Send what has ended so far; say whether all of it was delivered within *timeout* seconds."""
    provider = trace.get_tracer_provider()
    if not isinstance(provider, TracerProvider):
        return True
    exporter = _pipeline.exporter if _pipeline is not None else None
    failures = exporter.failures if exporter is not None else 0
    done: list[bool] = []
    metrics = _pipeline.metrics if _pipeline is not None else None

    def send() -> None:
        delivered = provider.force_flush()
        done.append((metrics is None or metrics.flush()) and delivered)

    # The SDK's own flush takes no notice of its timeout.
    thread = threading.Thread(target=send, name="queuehop-flush", daemon=True)
    thread.start()
    thread.join(timeout)
    return bool(done and done[0]) and (exporter is None or exporter.failures == failures)


def shutdown(timeout: float = 5.0) -> None:
    """Send what is left and stop. A collector that is away is given up after *timeout* seconds.

    Runs by itself when the interpreter exits.
    """
    if _pipeline is not None and _pipeline.processor is not None:
        _pipeline.processor.shutdown(int(timeout * 1000))
    if _pipeline is not None and _pipeline.metrics is not None:
        _pipeline.metrics.shutdown()
