"""Thousands of tasks that publish tasks at once, on every pool: each has its own parent."""

import os
from collections import Counter
from pathlib import Path

import pytest
from opentelemetry import trace

from telemetry.otlp.decode import ReceivedSpan

from .conftest import Queue, short
from .test_nothing_lost import children

ROOTS, EACH, DEPTH = 20, 25, 3

#: The most by which the worker's memory may grow from the first thousand tasks to the last.
GROWTH = 1.03


def runs(spans: list[ReceivedSpan]) -> int:
    return sum(span.kind == "CONSUMER" for span in spans)


def memory(pids: list[int]) -> int:
    """Return the resident bytes of the processes *pids*."""
    pages = (int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids)
    return sum(pages) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.timeout(420)  # a slow machine takes a minute for each pool, a busy one more
@pytest.mark.conformance("thousands of tasks at once")
@pytest.mark.parametrize(
    ("pool", "concurrency"), [("prefork", 4), ("threads", 16), ("gevent", 200)]
)
def test_thousands_of_tasks(queue: Queue, pool: str, concurrency: int) -> None:
    total = ROOTS * EACH * (DEPTH + 1)
    # Else each greenlet makes a connection to the backend, which takes longer than the rest.
    worker = queue.worker(pool, concurrency, SHARED_BACKEND="1")
    tracer = trace.get_tracer("test")
    for _ in range(ROOTS):
        with tracer.start_as_current_span("root"):
            for _ in range(EACH):
                queue.send("nested", DEPTH)
    queue.receiver.wait_for(lambda spans: runs(spans) >= 1000, timeout=300)
    pids = [worker.pid, *children(worker)]
    early = memory(pids)
    spans = queue.receiver.wait_for(lambda spans: runs(spans) >= total, timeout=300)
    assert memory(pids) < early * GROWTH

    by_id = {span.span_id: span for span in spans}
    assert len(by_id) == len(spans)
    assert Counter(map(short, spans)) == {
        "root": ROOTS,
        "send nested": total,
        "process nested": total,
    }
    for span in spans:
        if short(span) == "root":
            continue
        parent = by_id[span.parent_id]
        assert parent.trace_id == span.trace_id
        if short(span) == "process nested":
            assert short(parent) == "send nested"
            message = span.attributes["messaging.message.id"]
            assert parent.attributes["messaging.message.id"] == message
        else:
            assert short(parent) in ("root", "process nested")
    published = Counter(span.parent_id for span in spans if short(span) == "send nested")
    for span in spans:
        if short(span) == "process nested":
            assert published[span.span_id] <= 1
        elif short(span) == "root":
            assert published[span.span_id] == EACH
    assert "a span is current outside of tasks" not in worker.output
    assert "tracing could not" not in worker.output
