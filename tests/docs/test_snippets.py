"""The code that the guide suggests for the reader's own program works."""

import queue
import re

from celery import Celery
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

import telemetry

from ..processes import ROOT

GUIDE = (ROOT / "docs" / "guide.md").read_text()
SNIPPETS = dict(re.findall(r"^<!-- snippet: (\w+) -->\n```python\n(.*?)^```$", GUIDE, re.M | re.S))


def test_every_block_of_code_is_of_a_kind_that_is_tested() -> None:
    blocks = re.findall(r"^(.*)\n```\w+\n", GUIDE, re.M)
    assert [mark for mark in blocks if not re.match(r"<!-- (code|run|snippet): ", mark)] == []
    assert set(SNIPPETS) == {"transport", "relation"}


def test_any_other_transport() -> None:
    exporter, packed = InMemorySpanExporter(), []
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("shop")

    def pack(order: str) -> None:
        packed.append((order, trace.get_current_span().get_span_context().trace_id))

    names = {"telemetry": telemetry, "tracer": tracer, "SpanKind": SpanKind, "pack": pack}
    exec(SNIPPETS["transport"], names)
    channel: queue.Queue = queue.Queue()
    names["publish"](channel, "bread")
    names["consume"](channel)
    send, run = exporter.get_finished_spans()
    assert run.parent.span_id == send.context.span_id
    assert packed == [("bread", send.context.trace_id)]


def test_one_message_chooses_for_itself() -> None:
    app = Celery("shop", broker="memory://", set_as_current=False)
    # Every test of the process that uses memory:// publishes to the default queue.
    app.conf.task_default_queue = "of-this-test"

    @app.task
    def import_orders() -> None:
        pass

    exec(SNIPPETS["relation"], {"import_orders": import_orders})
    with app.connection_for_read() as connection, connection.SimpleQueue("of-this-test") as waiting:
        assert waiting.get(timeout=5).headers["queuehop-relation"] == "link"
