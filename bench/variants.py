"""The same application, traced in several ways: the one thing in which the variants differ.

``BENCH_VARIANT`` chooses. What runs in every variant is ``bench.application``.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from celery import Celery, signals

__all__ = ["BARE", "CONTRIB", "OURS", "UNSAMPLED", "Variant", "chosen"]

CHOICE = "BENCH_VARIANT"


class Variant:
    """Not traced at all."""

    name = "bare"
    #: Whether a receiver gets spans of it.
    seen = False
    #: What it adds to the environment of its processes.
    env: Mapping[str, str] = {}

    def instrument_queue(self, app: Celery) -> None:
        """Prepare the Celery *app*, as at its import."""

    def instrument_web(self, app: Any) -> None:
        """Prepare the Flask *app*, in the process that serves it."""

    def begin(self) -> None:
        """Begin to trace in a process that publishes and runs nothing."""

    def flush(self) -> None:
        """Send what has ended, or keep it durably: whatever the variant promises."""


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


BARE = Variant()
CONTRIB = _Contrib()
OURS = _Ours()
UNSAMPLED = _Ours("ours, sampled out", False, {"OTEL_TRACES_SAMPLER": "always_off"})

_ALL = {variant.name: variant for variant in (BARE, CONTRIB, OURS, UNSAMPLED)}


def chosen() -> Variant:
    """Return the variant that this process is."""
    return _ALL[os.environ[CHOICE]]
