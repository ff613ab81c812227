"""Where our time goes: each piece of a publish and of a run by itself: ``python -m bench.pieces``.

Prints one line of JSON: seconds by the name of the piece.
"""

import json
import os
import tempfile
import timeit
from collections.abc import Callable
from pathlib import Path

from celery import Celery
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.trace import Link, SpanKind

from telemetry.celery.consumer import RECEIVED_AT, Consumer
from telemetry.celery.message import Broker, facts, measured
from telemetry.hop import start
from telemetry.instruments import Instruments
from telemetry.otlp import encode_span
from telemetry.propagation import extract, inject
from telemetry.spool.meter import Meter
from telemetry.spool.place import Place
from telemetry.spool.processor import SpoolProcessor
from telemetry.spool.writer import Writer

TASK = "bench.application.nothing"

MESSAGE = {
    **{"lang": "py", "task": TASK, "id": "3f2b8b7e-6a3e-4a53-9d57-6f3a9a5cbb3f", "retries": 0},
    **{"root_id": "3f2b8b7e-6a3e-4a53-9d57-6f3a9a5cbb3f", "parent_id": None, "group": None},
    **{"eta": None, "expires": None, "queuehop-sent-at": "1800000000.5"},
    **{"delivery_info": {"routing_key": "celery", "redelivered": False}},
    **{"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
    RECEIVED_AT: 1800000000.6,
}

#: What a run counts and times.
VALUES = {
    **{"messaging.client.consumed.messages": 1, "messaging.process.duration": 0.01},
    **{"celery.wait.scheduled": 0.0, "celery.wait.queue": 0.2, "celery.wait.prefetch": 0.001},
}


def main(directory: Path) -> None:
    """Measure every piece; what is kept on disk is kept in *directory*."""
    provider = TracerProvider(shutdown_on_exit=False)
    trace.set_tracer_provider(provider)
    consumer = Consumer(Celery("bench", broker=os.environ["BENCH_BROKER"]), "child")
    place = Place(directory / "place")
    place.make()
    writer = Writer(place, size=1 << 30, age=3600.0)
    spool, meter = SpoolProcessor(writer), Meter(writer, provider.resource)
    instruments = Instruments(provider.resource)

    broker = Broker(Celery("bench", broker=os.environ["BENCH_BROKER"]))
    attributes = {
        **facts("celery", MESSAGE),
        **broker.fixed("process", TASK),
        "celery.wait.queue": 0.1,
    }
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
        "attributes of a message": lambda: facts("celery", MESSAGE),
        "extract": lambda: extract(MESSAGE),
        "inject": lambda: inject({}, run),
        "a span, started and ended": span,
        "all of a run's begin, its span included": lambda: consumer.begin(TASK, MESSAGE).span.end(),
        "encoding a span": lambda: encode_span(made),
        "encoding a span, the SDK's way": lambda: encode_spans([made]).SerializeToString(),
        "keeping a span: encoded and written": lambda: spool.on_end(made),
        "keeping what a run measured": lambda: meter.record(VALUES, metric),
        "aggregating it, in the sender": lambda: instruments.record(VALUES, metric),
    }
    print(json.dumps({name: _seconds(piece) for name, piece in pieces.items()}))


def _seconds(piece: Callable[[], object], number: int = 2_000) -> float:
    piece()
    return sorted(timeit.repeat(piece, number=number, repeat=7))[3] / number


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        main(Path(directory))
