"""Check this process, which has loaded the Flask app, and what every process needs."""

from collections.abc import Iterator

from flask import Flask
from opentelemetry.sdk.environment_variables import OTEL_SERVICE_NAME

from ..flask import EXTENSION
from ..selfcheck import Process, describe_process
from .finding import Finding


def check_web(app: Flask) -> Iterator[Finding]:
    """Check the set-up of *app* and of this process."""
    here = describe_process()
    yield from check_process(here, "web", "call telemetry.setup() where the Flask app is made")
    yield from check_unused_names(here, "web")
    if EXTENSION not in app.extensions:
        yield Finding(
            "flask-not-instrumented", "web",
            "the Flask app is not instrumented: a request makes no SERVER span",
            "call telemetry.flask.instrument_flask(app) where the Flask app is made",
        )  # fmt: skip
    if getattr(app, "_is_instrumented_by_opentelemetry", False) or any(
        module.endswith(".flask") for module in here.doubled
    ):
        yield Finding(
            "flask-doubled", "web",
            "OpenTelemetry's FlaskInstrumentor is active too: each request has two SERVER spans",
            "remove FlaskInstrumentor or instrument_flask()",
        )  # fmt: skip


def check_process(process: Process, hop: str, remedy: str) -> Iterator[Finding]:
    """Check what every process needs. *remedy* is for one without a provider."""
    if not process.provider and process.off:
        yield Finding(
            "no-provider", hop, f"{process.off} turns tracing off: there are no spans",
            f"do not set {process.off.partition('=')[0]} for this process",
        )  # fmt: skip
    elif not process.provider:
        yield Finding("no-provider", hop, "there is no tracer provider: there are no spans", remedy)
    elif process.mute:
        yield Finding(
            "provider-without-exporter", hop,
            "a tracer provider was set before telemetry.setup(), and has no exporter: spans are "
            "lost",
            "let telemetry.setup() make the provider, or add an exporter to yours",
        )  # fmt: skip
    elif process.default_service:
        yield Finding(
            "service-name-default", hop,
            f"the service has no name: backends show it as {process.service}",
            "set OTEL_SERVICE_NAME, or give telemetry.setup() or instrument_celery() a "
            "service_name",
        )  # fmt: skip
    if process.foreign and not process.mute:
        yield Finding(
            "provider-foreign", hop,
            "telemetry.setup() did not make the tracer provider, so its exporter was not checked",
            "make sure that it delivers spans", hint=True,
        )  # fmt: skip
    if not process.carries:
        yield Finding(
            "propagator-missing", hop, "the configured propagators do not write a trace context",
            "add tracecontext to OTEL_PROPAGATORS, or unset it",
        )  # fmt: skip
    if process.drops and hop == "web":
        yield Finding(
            "sampler-drops-all", hop, "the sampler drops every trace that starts here",
            "set OTEL_TRACES_SAMPLER to parentbased_always_on, or its ratio to more than 0",
        )  # fmt: skip


def check_unused_names(process: Process, hop: str) -> Iterator[Finding]:
    """Report service names in the code of *process* that another name overrides."""
    # A worker may import the web side, and does not use its name.
    given = process.names[-1:] if hop == "worker" else process.names
    for name in dict.fromkeys(given):
        if name == process.service or not process.service or process.default_service:
            continue
        yield Finding(
            "service-name-unused", hop,
            f"the service name {name!r} in the code has no effect: the name is {process.service}",
            f"remove it, or do not set {OTEL_SERVICE_NAME}" if process.named_by_environment
            else "give the name to the first call of telemetry.setup(), or to your own provider",
            hint=True,
        )  # fmt: skip
