"""An application with another tracer beside this library: web side and worker.

``BESIDE`` names that tracer, ``FIRST`` is ``ours`` or ``theirs``: the tracer that is set up first.
Both sides import this module, with another ``SERVICE``.
"""

import logging
import os
from contextlib import AbstractContextManager, nullcontext
from typing import Any
from unittest.mock import patch

BESIDE, FIRST, SERVICE = os.environ["BESIDE"], os.environ["FIRST"], os.environ["SERVICE"]
#: The address for tracers without OTLP: Sentry's envelopes, and the traces for Datadog's agent.
INTAKE = os.environ["INTAKE"]


def no_tracer() -> None:
    """Set up nothing."""


def sentry() -> None:
    import sentry_sdk

    sentry_sdk.init(
        dsn=INTAKE.replace("//", "//key@") + "/1", traces_sample_rate=1.0, environment="tests"
    )


def datadog() -> None:
    import ddtrace

    ddtrace.patch(flask=True, celery=True, requests=True, redis=True)


def datadog_provider() -> None:
    from ddtrace.opentelemetry import TracerProvider
    from opentelemetry import trace

    datadog()
    trace.set_tracer_provider(TracerProvider())


def logfire() -> None:
    import logfire as product
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor

    # Wherever an endpoint is set, Logfire exports to it over HTTP by itself. This one is for gRPC.
    exporters = ("OTEL_TRACES_EXPORTER", "OTEL_METRICS_EXPORTER", "OTEL_LOGS_EXPORTER")
    with patch.dict(os.environ, dict.fromkeys(exporters, "none")):
        product.configure(
            send_to_logfire=False,
            console=False,
            service_name=f"{SERVICE} by Logfire",
            additional_span_processors=[SimpleSpanProcessor(OTLPSpanExporter())],
        )


def contrib() -> None:
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.instrumentation.celery import CeleryInstrumentor
    from opentelemetry.instrumentation.flask import FlaskInstrumentor
    from opentelemetry.instrumentation.requests import RequestsInstrumentor
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor

    if FIRST == "theirs":
        provider = TracerProvider(resource=Resource({"service.name": f"{SERVICE} by contrib"}))
        provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter()))
        trace.set_tracer_provider(provider)
    if "web" in globals():
        FlaskInstrumentor().instrument_app(web)
    else:
        FlaskInstrumentor().instrument()
    RequestsInstrumentor().instrument()
    CeleryInstrumentor().instrument()


THEIRS = {
    "nothing": no_tracer,
    "sentry": sentry,
    "datadog": datadog,
    "datadog-provider": datadog_provider,
    "logfire": logfire,
    "contrib": contrib,
}

if FIRST == "theirs":
    THEIRS[BESIDE]()

import celery  # noqa: E402  # as their manuals want it
import flask  # noqa: E402
from opentelemetry import baggage, context  # noqa: E402

import telemetry  # noqa: E402
from telemetry.celery import instrument_celery  # noqa: E402
from telemetry.flask import instrument_flask  # noqa: E402

telemetry.setup(SERVICE)
logging.basicConfig(format="%(levelname)s %(name)s %(trace_id)s %(message)s", level="INFO")
broker = os.environ["CELERY_BROKER_URL"]
app = instrument_celery(celery.Celery("shop", broker=broker, backend=broker), SERVICE)
app.conf.broker_connection_retry_on_startup = True
web = instrument_flask(flask.Flask("shop"))

if FIRST == "ours":
    THEIRS[BESIDE]()


def inside() -> AbstractContextManager[Any]:
    """Return a span of the other tracer's own."""
    if BESIDE == "logfire":
        import logfire as product

        return product.span("in the task")
    return nullcontext()


def message_of(task: celery.Task) -> dict[str, Any]:
    """Return the headers of the message of *task*."""
    found = {name: value for name, value in vars(task.request).items() if isinstance(value, str)}
    mine = {name: value for name, value in baggage.get_all().items() if name == "tenant"}
    return {"top": found, "table": dict(task.request.headers or {}), "baggage": mine}


@app.task(name="work", bind=True)
def work(task: celery.Task) -> dict[str, Any]:
    with inside():
        return message_of(task)


@app.task(name="retry", bind=True)
def retry(task: celery.Task) -> dict[str, Any]:
    if not task.request.retries:
        raise task.retry(countdown=0)
    return message_of(task)


@web.get("/<task>")
def publish(task: str) -> dict[str, Any]:
    """Publish *task* and wait for its result."""
    options: dict[str, Any] = {"queue": flask.request.args["queue"]}
    token = context.attach(baggage.set_baggage("tenant", "blue"))
    if "by_name" in flask.request.args:
        result = app.send_task(task, **options)
    else:
        result = app.tasks[task].apply_async(**options)
    context.detach(token)
    returned: dict[str, Any] = result.get(timeout=60)
    return returned
