"""The same application, traced in several ways. The variants differ in nothing else.

``BENCH_VARIANT`` chooses. Every variant runs ``bench.application``.
"""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from celery import Celery, signals

from .names import SINK

CHOICE = "BENCH_VARIANT"

#: Seconds that Sentry may take to send what is left.
SENTRY_TIMEOUT = 600

#: The environment that has Sentry and Datadog: `make instructions` installs it.
_OTHERS = Path(__file__).parent / ".venv-others" / "bin" / "python"


class Variant:
    """Not traced at all."""

    name = "bare"
    #: Whether a receiver gets spans of it.
    seen = False
    #: Added to the environment of its processes.
    env: Mapping[str, str] = {}
    #: The interpreter that its processes run on.
    python = sys.executable

    def is_installed(self) -> bool:
        """Return whether its interpreter exists."""
        return os.access(self.python, os.X_OK)

    def instrument_queue(self, app: Celery) -> None:
        """Prepare the Celery *app*, as at its import."""

    def instrument_web(self, app: Any) -> None:
        """Prepare the Flask *app*, in the process that serves it."""

    def begin(self) -> None:
        """Begin to trace in a process that publishes and runs nothing."""

    def flush(self) -> None:
        """Send the spans that have ended, or write them to disk, as the variant does."""

    def settle(self) -> None:
        """Do what this process still has to do for the spans that have ended."""
        self.flush()


class _Contrib(Variant):
    """OpenTelemetry's own instrumentations, as their documentation sets them up."""

    name = "contrib"
    seen = True

    def instrument_queue(self, app: Celery) -> None:
        signals.worker_process_init.connect(lambda **_: self.begin(), weak=False)

    def instrument_web(self, app: Any) -> None:
        from opentelemetry.instrumentation.flask import FlaskInstrumentor
        from opentelemetry.instrumentation.requests import RequestsInstrumentor

        self.begin()
        FlaskInstrumentor().instrument_app(app)
        RequestsInstrumentor().instrument()

    def begin(self) -> None:
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.instrumentation.celery import CeleryInstrumentor
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        provider = TracerProvider()
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        trace.set_tracer_provider(provider)
        CeleryInstrumentor().instrument()  # type: ignore[no-untyped-call]

    def flush(self) -> None:
        from opentelemetry import trace

        trace.get_tracer_provider().force_flush()  # type: ignore[attr-defined]


@dataclass
class _Ours(Variant):
    name: str = "ours"
    seen: bool = True
    env: Mapping[str, str] = field(default_factory=dict)

    def instrument_queue(self, app: Celery) -> None:
        from telemetry.celery import instrument_celery

        instrument_celery(app)

    def instrument_web(self, app: Any) -> None:
        from telemetry.flask import instrument_flask

        self.begin()
        instrument_flask(app)

    def begin(self) -> None:
        import telemetry

        telemetry.setup()

    def flush(self) -> None:
        import telemetry

        telemetry.flush()

    def settle(self) -> None:
        """Do nothing: each span is in the spool when it ends, and another process sends it."""


class _Sentry(Variant):
    """Sentry's integrations of Flask and Celery, all traces sampled.

    It records a publish only inside a transaction, so a publish outside of a request has no span.
    """

    name = "Sentry"
    python = str(_OTHERS)

    def instrument_queue(self, app: Celery) -> None:
        import sentry_sdk
        from sentry_sdk.integrations.celery import CeleryIntegration
        from sentry_sdk.integrations.flask import FlaskIntegration

        sentry_sdk.init(
            dsn=f"http://public@{os.environ[SINK]}/1",
            traces_sample_rate=1.0,
            integrations=[CeleryIntegration(propagate_traces=True), FlaskIntegration()],
            # No other variant makes a span for each command to Redis.
            auto_enabling_integrations=False,
            # The defaults drop spans if tasks end faster than they are sent, as no-op tasks do.
            transport_queue_size=100_000,
            shutdown_timeout=SENTRY_TIMEOUT,
        )

    def flush(self) -> None:
        import sentry_sdk

        sentry_sdk.flush(timeout=SENTRY_TIMEOUT)


class _Datadog(Variant):
    """Datadog's integrations of Celery, Flask and requests."""

    name = "Datadog"
    python = str(_OTHERS)
    # Both run by the clock and do not trace. Valgrind would multiply their share.
    env: Mapping[str, str] = {
        "DD_INSTRUMENTATION_TELEMETRY_ENABLED": "false",
        "DD_REMOTE_CONFIGURATION_ENABLED": "false",
    }

    def instrument_queue(self, app: Celery) -> None:
        os.environ["DD_TRACE_AGENT_URL"] = f"http://{os.environ[SINK]}"
        from ddtrace import patch

        patch(celery=True, flask=True, requests=True)

    def flush(self) -> None:
        from ddtrace.trace import tracer

        tracer.flush()


BARE = Variant()
CONTRIB = _Contrib()
OURS = _Ours()
UNSAMPLED = _Ours("ours, sampled out", False, {"OTEL_TRACES_SAMPLER": "always_off"})
SENTRY = _Sentry()
DATADOG = _Datadog()

_ALL = {variant.name: variant for variant in (BARE, CONTRIB, OURS, UNSAMPLED, SENTRY, DATADOG)}


def chosen() -> Variant:
    """Return the variant that this process is."""
    return _ALL[os.environ[CHOICE]]
