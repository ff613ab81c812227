"""Where our time goes: each piece of a publish and of a run by itself, in seconds."""

import timeit
from collections.abc import Callable, Mapping

from celery import Celery
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.trace import Link, SpanKind

from telemetry.celery.consumer import RECEIVED_AT, Consumer
from telemetry.celery.message import facts, measured
from telemetry.hop import start
from telemetry.metrics import Metrics
from telemetry.otlp import encode_span
from telemetry.propagation import extract, inject
from telemetry.settings import Otlp

__all__ = ["pieces"]

TASK = "bench.application.nothing"

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

MESSAGE = {
    **{"lang": "py", "task": TASK, "id": "3f2b8b7e-6a3e-4a53-9d57-6f3a9a5cbb3f", "retries": 0},
    **{"root_id": "3f2b8b7e-6a3e-4a53-9d57-6f3a9a5cbb3f", "parent_id": None, "group": None},
    **{
        "eta": None,
        "expires": None,
        "traceparent": TRACEPARENT,
        "queuehop-sent-at": "1800000000.5",
    },
    **{"delivery_info": {"routing_key": "celery", "redelivered": False}},
    RECEIVED_AT: 1800000000.6,
}


def pieces(target: str) -> Mapping[str, float]:
    """Return the median seconds of each piece; metrics, if any are sent, go to *target*."""
    app = Celery("bench", broker="redis://127.0.0.1:6379/0")
    consumer = Consumer(app, "child")
    provider = TracerProvider(shutdown_on_exit=False)
    trace.set_tracer_provider(provider)
    otlp = Otlp(endpoint=target, insecure=True, headers=(), timeout=10.0, gzip=False)
    metrics = Metrics(otlp, lambda: provider.resource, 3600.0)

    attributes = {**facts("process", TASK, "celery", MESSAGE), "celery.wait.queue": 0.1}
    metric = measured(attributes)
    context = extract(MESSAGE)
    links = [Link(trace.get_current_span(context).get_span_context())]

    def span() -> trace.Span:
        made = start(
            "process", SpanKind.CONSUMER, context=context, attributes=attributes, links=links
        )
        made.end()
        return made

    made = span()
    assert isinstance(made, ReadableSpan)
    run = trace.set_span_in_context(made, Context())
    pieces: dict[str, Callable[[], object]] = {
        "attributes of a message": lambda: facts("process", TASK, "celery", MESSAGE),
        "extract": lambda: extract(MESSAGE),
        "inject": lambda: inject({}, run),
        "the SDK's span, started and ended": span,
        "a run begun, span included": lambda: consumer.begin(TASK, MESSAGE).span.end(),
        "encoding, ours": lambda: encode_span(made),
        "encoding, the SDK's": lambda: encode_spans([made]).SerializeToString(),
        "metrics of a run": lambda: metrics.record(
            {"messaging.client.consumed.messages": 1, "messaging.process.duration": 0.01}, metric
        ),
    }
    try:
        return {name: _seconds(piece) for name, piece in pieces.items()}
    finally:
        metrics.shutdown()


def _seconds(piece: Callable[[], object], number: int = 2_000) -> float:
    piece()
    return sorted(timeit.repeat(piece, number=number, repeat=7))[3] / number
