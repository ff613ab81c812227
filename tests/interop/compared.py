"""A Celery app under one tracer, named by ``TRACER``. Run as a module, it publishes every case.

Each tracer is set up as its own documentation says, with every span sampled.
"""

import os
import signal
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

TRACER = os.environ["TRACER"]
#: The address for tracers without OTLP: Sentry's envelopes, and the traces for Datadog's agent.
INTAKE = os.environ["INTAKE"]

#: How many children run one task and end.
RECYCLED = 12

Span = Callable[[str], AbstractContextManager[Any]]

#: Makes a span around the application's work. The tracer sets it.
span: Span


def opentelemetry_span(name: str) -> AbstractContextManager[Any]:
    from opentelemetry import trace

    return trace.get_tracer("shop").start_as_current_span(name)


def sentry() -> Span:
    import sentry_sdk

    sentry_sdk.init(dsn=INTAKE.replace("//", "//key@") + "/1", traces_sample_rate=1.0)

    def span(name: str) -> AbstractContextManager[Any]:
        if sentry_sdk.get_current_span() is None:
            return sentry_sdk.start_transaction(name=name)
        return sentry_sdk.start_span(name=name)

    return span


def datadog() -> Span:
    import ddtrace

    ddtrace.patch(celery=True)
    return lambda name: ddtrace.trace.tracer.trace(name)


def contrib() -> Span:
    from celery.signals import worker_process_init
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.instrumentation.celery import CeleryInstrumentor
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    def set_up(**_: object) -> None:
        provider = TracerProvider()
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        trace.set_tracer_provider(provider)
        CeleryInstrumentor().instrument()

    if "worker" in sys.argv:
        worker_process_init.connect(set_up, weak=False)
    else:
        set_up()
    return opentelemetry_span


def queuehop() -> Span:
    import telemetry

    telemetry.setup("shop")
    return opentelemetry_span


TRACERS = {"contrib": contrib, "sentry": sentry, "datadog": datadog, "queuehop": queuehop}

span = TRACERS[TRACER]()

import celery  # noqa: E402  # after the tracer, as their manuals want it
from kombu.exceptions import EncodeError  # noqa: E402

broker = os.environ["CELERY_BROKER_URL"]
app = celery.Celery("shop", broker=broker, backend=broker)
app.conf.broker_connection_retry_on_startup = True
if TRACER == "queuehop":
    from telemetry.celery import instrument_celery

    instrument_celery(app, "shop")


@app.task(name="work")
def work(*_: object) -> None:
    pass


@app.task(name="refused")
def refused(*_: object) -> None:
    pass


@app.task(name="retry", bind=True)
def retry(task: celery.Task) -> None:
    if task.request.retries < 2:
        raise task.retry(countdown=0)


@app.task(name="killed")
def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(name="part")
def part() -> None:
    pass


@app.task(name="whole")
def whole() -> None:
    pass


@app.task(name="recycled")
def recycled() -> None:
    pass


@app.task(name="expired")
def expired() -> None:
    pass


def main() -> None:
    """Publish the messages of each case, each inside a span of its own."""
    # First: a child that is killed takes the spans with it that it has not sent.
    with span("kills"):
        killed.delay()
    with span("fails"):
        try:
            refused.delay(object())  # JSON has no such type
        except EncodeError:
            with span("afterwards"):
                pass
    with span("waits"):
        work.delay()
    with span("recycles"):
        for _ in range(RECYCLED):
            recycled.apply_async(queue="recycled")
    with span("expires"):
        expired.apply_async(expires=-1)
    with span("chord"):
        celery.chord([part.si(), part.si()])(whole.si())
    with span("retries"):
        retry.delay()


if __name__ == "__main__":
    main()
