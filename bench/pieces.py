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
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind

from telemetry.celery.consumer import Consumer
from telemetry.celery.message import Facts
from telemetry.celery.run import RECEIVED_AT
from telemetry.hop import scope, start
from telemetry.instruments import Instruments
from telemetry.light import Provider, Shape, light
from telemetry.otlp import encode_span
from telemetry.propagation import arrived, extract, inject
from telemetry.series import Series
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
NAMES = (
    *("messaging.client.consumed.messages", "messaging.process.duration"),
    *("celery.wait.scheduled", "celery.wait.queue", "celery.wait.prefetch"),
)
VALUES = (1, 0.01, 0.0, 0.2, 0.001)


def main(directory: Path) -> None:
    """Measure every piece; what is kept on disk is kept in *directory*."""
    provider = Provider(shutdown_on_exit=False)
    trace.set_tracer_provider(provider)
    consumer = Consumer(Celery("bench", broker=os.environ["BENCH_BROKER"]), "child")
    place = Place(directory / "place")
    place.make()
    writer = Writer(place, size=1 << 30, age=3600.0)
    spool = SpoolProcessor(writer, scope(), provider.resource)
    instruments = Instruments(provider.resource)

    parent, context = arrived(MESSAGE)
    shape = Shape("process", SpanKind.CONSUMER, {"messaging.operation.type": "process"})
    facts = Facts(MESSAGE)
    links = (parent,) if parent is not None else ()
    measured = Series(NAMES, {**shape.attributes, "celery.task.name": TASK})

    def span() -> trace.Span:
        made = start(shape, parent, context=context, facts=facts, links=links)
        made.end()
        return made

    made = span()
    assert isinstance(made, ReadableSpan)
    run = trace.set_span_in_context(made, Context())
    pieces: dict[str, Callable[[], object]] = {
        "a message's headers read": lambda: arrived(MESSAGE),
        "the same by extract": lambda: extract(MESSAGE),
        "inject": lambda: inject({}, run),
        "a span by the SDK, started and ended": span,
        "encoding a span": lambda: encode_span(made),
        "encoding a span, the SDK's way": lambda: encode_spans([made]).SerializeToString(),
        "keeping a span of the SDK's": lambda: spool.on_end(made),
        "keeping what a run measured": lambda: spool.measure(measured, VALUES),
        "aggregating it, in the sender": lambda: instruments.record(measured, VALUES),
    }
    found = {name: _seconds(piece) for name, piece in pieces.items()}
    provider.light = light(provider, scope(), spool)
    fast: dict[str, Callable[[], object]] = {
        "a light span, started, ended and kept": span,
        "all of a run, kept and measured": lambda: consumer.begin(TASK, MESSAGE).end(),
    }
    print(json.dumps(found | {name: _seconds(piece) for name, piece in fast.items()}))


def _seconds(piece: Callable[[], object], number: int = 2_000) -> float:
    piece()
    return sorted(timeit.repeat(piece, number=number, repeat=7))[3] / number


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        main(Path(directory))
