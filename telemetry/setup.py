"""Set up tracing in this process: configuration, tracer provider and export."""

import atexit
import os
import socket
import sys
import threading
from contextlib import suppress
from functools import cache

from opentelemetry import trace
from opentelemetry.environment_variables import OTEL_LOGS_EXPORTER, OTEL_PYTHON_TRACER_PROVIDER
from opentelemetry.sdk.resources import Resource
from opentelemetry.semconv._incubating.attributes.host_attributes import HOST_NAME
from opentelemetry.semconv.attributes.service_attributes import (
    SERVICE_INSTANCE_ID,
    SERVICE_NAME,
)

from .config import exporter, settings
from .config.sdk import create_resource, set_global_textmap
from .propagation.configured import configured_propagators
from .tracing.faults import is_soft_time_limit, log_internal_error, logger
from .tracing.logs import correlate_logs
from .tracing.provider import HopTracerProvider
from .tracing.record import SpanTemplate
from .tracing.sink import Sink

DEFAULT_SERVICE_NAME = "test-py-manual-otlp"

_provider: HopTracerProvider | None = None
#: The service names that code has given to this process, even if they are not in effect.
_names: list[str] = []
_lock = threading.RLock()


def setup(service_name: str | None = None) -> None:
    """Set up this process: create spans, and send them over OTLP, with the ``OTEL_*`` variables.

    *service_name* names the service, unless ``OTEL_SERVICE_NAME`` or ``OTEL_RESOURCE_ATTRIBUTES``
    does. A second call does nothing. A forked child needs no call of its own. If the application
    has set a tracer provider, that provider stays.

    Never raises: a setting that cannot be used is one log line. On a free-threaded Python whose
    global interpreter lock is off, it logs one line and traces nothing.
    """
    global _provider
    _hold_forks()
    with _lock:
        if service_name is not None and service_name not in _names:
            _names.append(service_name)
        if _provider is not None or not _has_interpreter_lock():
            return
        try:
            correlate_logs()
            set_global_textmap(configured_propagators())
            if exporter.is_enabled("TRACES") and not _has_provider():
                _provider = _new_provider(service_name)
                trace.set_tracer_provider(_provider)
            elif exporter.is_enabled("LOGS"):
                settings.reject(
                    OTEL_LOGS_EXPORTER, "is otlp, but setup makes no spans", "sending none"
                )
        except Exception:
            log_internal_error("set itself up")


def setup_worker(service_name: str | None = None) -> None:
    """Do what ``setup`` does, in a process that is a worker or beat.

    *service_name* replaces the name that ``setup`` got from a web side in the same process.
    ``OTEL_SERVICE_NAME`` wins over both.
    """
    setup(service_name)
    with _lock:
        if _provider is None or service_name is None or is_named_by_environment():
            return
        if _provider.resource.attributes.get(SERVICE_NAME) != service_name:
            _provider.service_name = service_name
            _provider.sink.resource_changed()


@cache
def _hold_forks() -> None:
    """Keep other threads from forking while this one is in ``setup``.

    The child would wait for the lock of a thread that it does not have.
    """

    def before() -> None:
        _lock.acquire(timeout=5.0)

    def after_in_parent() -> None:
        with suppress(RuntimeError):  # it was not acquired in time
            _lock.release()

    def after_in_child() -> None:
        global _lock
        _lock = threading.RLock()

    os.register_at_fork(
        before=before, after_in_parent=after_in_parent, after_in_child=after_in_child
    )


@cache
def _has_interpreter_lock() -> bool:
    """Return whether the global interpreter lock is on; log once if it is not."""
    # Python 3.13 is the first version that can run without it.
    enabled: bool = getattr(sys, "_is_gil_enabled", lambda: True)()
    if not enabled:
        logger.warning(
            "this Python runs without its global interpreter lock, which queuehop needs: "
            "nothing is traced; set PYTHON_GIL=1 or use a build that is not free-threaded"
        )
    return enabled


def _has_provider() -> bool:
    """Return whether another tracer provider is set, of any class. If one is, log it."""
    try:
        provider = trace.get_tracer_provider()
    except Exception as exc:
        if is_soft_time_limit(exc):
            raise
        logger.warning(
            "%s names a tracer provider that is not installed: using that of telemetry.setup",
            OTEL_PYTHON_TRACER_PROVIDER,
        )
        return False
    if isinstance(provider, trace.ProxyTracerProvider):  # no provider is set yet
        return False
    _log_other_provider()
    return True


@cache
def _log_other_provider() -> None:
    logger.info("a tracer provider is set already: it exports the spans")


def _new_provider(service_name: str | None) -> HopTracerProvider:
    provider = HopTracerProvider(
        settings.sampler(), _resource(service_name), settings.span_limits()
    )
    targets = exporter.targets()
    if targets is not None:
        atexit.register(shutdown)
        provider.sink = _sink_of(provider, targets)
        if targets.logs is not None:
            from .tracing.log_records import record_logs

            record_logs(provider.sink.append_log, settings.logs())
    return provider


def _sink_of(provider: HopTracerProvider, targets: exporter.Targets) -> Sink:
    """Return the sink of *provider*: in memory if the settings say so or the disk is unusable."""
    from .export.outgoing import Origin, origin_of

    instance_is_set = SERVICE_INSTANCE_ID in settings.resource_attributes()
    spool = settings.spool()

    def origin(template: SpanTemplate) -> Origin:
        return origin_of(provider.resource, template, instance_is_set)

    def in_memory() -> Sink:
        # gRPC reads this once, while it is loaded.
        os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "true")
        from .export.memory import MemorySink

        return MemorySink(origin, targets, settings.delivery(in_memory=True))

    if spool is None:
        return in_memory()
    try:
        from .export.spool.disk_sink import DiskSink

        disk = DiskSink(origin, targets, spool, in_memory)
    except (ImportError, OSError) as exc:
        logger.warning(
            "spans cannot be written to disk (%s): they wait in memory, and are lost if the "
            "process is killed; set %s to a directory of this user",
            exc,
            settings.QUEUEHOP_STATE_DIR,
        )
        return in_memory()
    settings.delivery()  # to log its problems: the sender reads it, but has no log
    return disk


def _resource(service_name: str | None) -> Resource:
    environment = settings.resource_attributes()
    if service_name is None and SERVICE_NAME not in environment:
        service_name = DEFAULT_SERVICE_NAME
        logger.warning("no service name: set OTEL_SERVICE_NAME; using %s", service_name)
    attributes = {HOST_NAME: socket.gethostname()}
    if service_name is not None:
        attributes[SERVICE_NAME] = service_name
    return create_resource({**attributes, **environment})


def is_named_by_environment() -> bool:
    """Return whether the environment names the service and so overrides the names in code."""
    return SERVICE_NAME in settings.resource_attributes()


def names_in_code() -> list[str]:
    """Return the service names that code has given to this process, in order."""
    return list(_names)


def sink() -> Sink:
    """Return the sink of this process. Without ``setup`` it drops all records."""
    return _provider.sink if _provider is not None else Sink()


def is_set_up() -> bool:
    """Return whether the provider of this process is the one that ``setup`` has made."""
    return trace.get_tracer_provider() is _provider


def flush(timeout: float = 10.0) -> bool:
    """Deliver all spans that have ended. Return whether they are delivered or durably on disk.

    Waits for at most *timeout* seconds, and returns as soon as an export fails. Log records are
    delivered too.
    """
    provider = trace.get_tracer_provider()
    try:
        force_flush = getattr(provider, "force_flush", None)  # not every provider has it
        delivered = force_flush is None or force_flush(int(timeout * 1000)) is not False
        return (is_set_up() or sink().flush(timeout)) and delivered
    except Exception:
        log_internal_error("flush")
        return False


def shutdown(timeout: float = 5.0) -> None:
    """Deliver the remaining spans within *timeout* seconds. Runs at the interpreter's exit.

    Undelivered spans wait on disk. The next start delivers them.
    """
    sink().shutdown(timeout)
