"""The process that takes the request and publishes: this one, once it has loaded the Flask app."""

from collections.abc import Iterator

from flask import Flask
from opentelemetry.sdk.environment_variables import OTEL_SERVICE_NAME

from ..flask import EXTENSION
from ..selfcheck import Process, describe_process
from .finding import Finding

__all__ = ["check_process", "check_unused_names", "check_web"]


def check_web(app: Flask) -> Iterator[Finding]:
    """Check what *app* has set up by being made."""
    here = describe_process()
    yield from check_process(here, "web", "call telemetry.setup() where the Flask app is made")
    yield from check_unused_names(here, "web")
    if EXTENSION not in app.extensions:
        yield Finding(
            "flask-not-instrumented", "web", "no SERVER span is made of a request",
            "call telemetry.flask.instrument_flask(app) where the Flask app is made",
        )  # fmt: skip
    if getattr(app, "_is_instrumented_by_opentelemetry", False) or any(
        module.endswith(".flask") for module in here.doubled
    ):
        yield Finding(
            "flask-doubled", "web", "OpenTelemetry's FlaskInstrumentor is active as well",
            "remove one of the two: each request makes two SERVER spans",
        )  # fmt: skip


def check_process(process: Process, hop: str, remedy: str) -> Iterator[Finding]:
    """Check what every kind of process needs; *remedy* is for one that has no provider."""
    if not process.provider and process.off:
        yield Finding(
            "no-provider", hop, f"{process.off} turns tracing off: no span is made",
            f"do not set {process.off.partition('=')[0]} for this process",
        )  # fmt: skip
    elif not process.provider:
        yield Finding("no-provider", hop, "no tracer provider is set: no span is made", remedy)
    elif process.mute:
        yield Finding(
            "provider-without-exporter", hop,
            "a tracer provider was set before telemetry.setup(), and it has no exporter",
            "let setup() make the provider, or add an exporter to your own",
        )  # fmt: skip
    elif process.default_service:
        yield Finding(
            "service-name-default", hop, f"the service has no name but {process.service}",
            "set OTEL_SERVICE_NAME, or give setup() or instrument_celery() a service_name",
        )  # fmt: skip
    if not process.carries:
        yield Finding(
            "propagator-missing", hop, "a context is not carried as traceparent",
            "let OTEL_PROPAGATORS name tracecontext, or do not set it",
        )  # fmt: skip
    if process.drops and hop == "web":
        yield Finding(
            "sampler-drops-all", hop, "the sampler drops every trace that begins here",
            "set OTEL_TRACES_SAMPLER to parentbased_always_on, or give its ratio more than 0",
        )  # fmt: skip


def check_unused_names(process: Process, hop: str) -> Iterator[Finding]:
    """Name the service names in code that another one overrides in *process*."""
    # A worker may import a web side, whose name it does not take.
    given = process.names[-1:] if hop == "worker" else process.names
    for name in dict.fromkeys(given):
        if name == process.service or process.default_service:
            continue
        yield Finding(
            "service-name-unused", hop,
            f"the service name {name!r} in the code has no effect: {process.service} is used",
            f"remove it, or do not set {OTEL_SERVICE_NAME}" if process.named_by_environment
            else "pass the name to the first call of telemetry.setup() or to your own provider",
            hint=True,
        )  # fmt: skip
