"""The spans and log records that ``bench.viewer`` sends."""

import os
import random
import time
from collections.abc import Iterator, Mapping
from typing import TypeAlias

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

#: Spans of one trace and of one export: the SDK's batch is 512.
TRACE, EXPORT = 8, 512

#: The messages of the large trace. Each has a send and a run.
LARGE = 4_500

TASKS = [f"shop.tasks.task{number}" for number in range(20)]
QUEUES = ["celery", "mail", "reports"]

Kind: TypeAlias = Span.SpanKind.ValueType
Says = Mapping[str, str | float]

#: The words of log records. Each record has some of them.
WORDS = ("card", "declined", "accepted", "order", "paid", "mail", "cart", "stock", "refund")


def exports(
    seed: int,
) -> Iterator[tuple[int, ExportTraceServiceRequest, ExportLogsServiceRequest]]:
    """Yield exports without end, with the number of spans: web's and worker's in turn.

    Each comes with half as many log records.
    """
    chance = random.Random(seed)
    while True:
        web: list[Span] = []
        worker: list[Span] = []
        for _ in range(EXPORT // (TRACE // 2)):
            _add_trace(chance, web, worker)
        for service, spans in (("shop-web", web), ("shop-worker", worker)):
            request = _request(service, spans)
            logs = ResourceLogs(scope_logs=[ScopeLogs(log_records=_logs(chance, spans))])
            logs.resource.CopyFrom(request.resource_spans[0].resource)
            yield len(spans), request, ExportLogsServiceRequest(resource_logs=[logs])


def backlog(count: int) -> Iterator[ExportTraceServiceRequest]:
    """Yield the exports of *count* messages that no worker takes. They were sent in the last hour.

    Each is a trace of its own.
    """
    chance = random.Random(count)
    for first in range(0, count, EXPORT):
        now = time.time_ns()
        sends = [
            _untaken(chance, now - chance.randrange(3600 * 10**9))
            for _ in range(min(EXPORT, count - first))
        ]
        yield _request("shop-web", sends)


def _untaken(chance: random.Random, at: int) -> Span:
    trace_id = os.urandom(16)
    task = chance.choice(TASKS)
    says = {
        **_message(chance.choice(QUEUES)),
        "messaging.message.id": trace_id.hex(),
        "celery.task.name": task,
    }
    return Span(
        trace_id=trace_id,
        span_id=os.urandom(8),
        name=f"send {task}",
        kind=Span.SPAN_KIND_PRODUCER,
        start_time_unix_nano=at,
        end_time_unix_nano=at + 10**6,
        attributes=[_attribute(key, value) for key, value in says.items()],
    )


def large_trace() -> tuple[str, Iterator[ExportTraceServiceRequest]]:
    """Return the id and the exports of one trace: a request that sends LARGE messages."""
    trace_id = os.urandom(16)
    return trace_id.hex(), _large_trace(trace_id)


def _large_trace(trace_id: bytes) -> Iterator[ExportTraceServiceRequest]:
    root, now = os.urandom(8), time.time_ns()
    task = {"celery.task.name": TASKS[0], **_message("celery")}

    def span(span_id: bytes, parent: bytes, name: str, kind: Kind, ms: float, says: Says) -> Span:
        return Span(
            trace_id=trace_id,
            span_id=span_id,
            parent_span_id=parent,
            name=name,
            kind=kind,
            start_time_unix_nano=now + int(ms * 1e6),
            end_time_unix_nano=now + int(ms * 1e6) + 10**6,
            attributes=[_attribute(key, value) for key, value in says.items()],
        )

    yield _request("shop-web", [span(root, b"", "POST /mailing", Span.SPAN_KIND_SERVER, 0, {})])
    for first in range(0, LARGE, EXPORT):
        sends, runs = [], []
        for at in range(first, min(first + EXPORT, LARGE)):
            send, says = os.urandom(8), {**task, "messaging.message.id": f"{trace_id.hex()}-{at}"}
            sends.append(span(send, root, f"send {TASKS[0]}", Span.SPAN_KIND_PRODUCER, at, says))
            run = os.urandom(8), send, f"process {TASKS[0]}", Span.SPAN_KIND_CONSUMER, 2 * at + 3
            runs.append(span(*run, {**says, **_run(at / 1e3)}))
        yield _request("shop-web", sends)
        yield _request("shop-worker", runs)


def _request(service: str, spans: list[Span]) -> ExportTraceServiceRequest:
    resource = ResourceSpans(scope_spans=[ScopeSpans(spans=spans)])
    resource.resource.attributes.append(_attribute("service.name", service))
    resource.resource.attributes.append(_attribute("service.instance.id", service))
    return ExportTraceServiceRequest(resource_spans=[resource])


def _message(queue: str) -> dict[str, str]:
    return {"messaging.system": "redis", "messaging.destination.name": queue}


def _run(waited: float) -> dict[str, str | float]:
    return {
        "messaging.operation.type": "process",
        "celery.wait.scheduled": 0.0,
        "celery.wait.queue": waited,
        "celery.wait.prefetch": 0.001,
        "celery.task.state": "SUCCESS",
    }


def _logs(chance: random.Random, spans: list[Span]) -> Iterator[LogRecord]:
    for span in spans[::2]:
        text = f"{' '.join(chance.choices(WORDS, k=6))}, order {chance.randrange(10**6)}"
        yield LogRecord(
            trace_id=span.trace_id,
            span_id=span.span_id,
            time_unix_nano=span.start_time_unix_nano,
            severity_number=chance.choices((9, 17), (10_000, 1))[0],  # type: ignore[arg-type]
            body=AnyValue(string_value=text),
        )


def _add_trace(chance: random.Random, web: list[Span], worker: list[Span]) -> None:
    task, queue = chance.choice(TASKS), chance.choice(QUEUES)
    trace_id = chance.randbytes(16)
    ids = [chance.randbytes(8) for _ in range(TRACE)]
    now = time.time_ns()
    waited = chance.lognormvariate(-4, 1.2)
    message = {
        **_message(queue),
        "messaging.message.id": trace_id.hex(),
        "celery.task.name": task,
    }
    run = {**message, **_run(waited)}
    request = {"http.request.method": "POST", "http.route": "/orders", "url.path": "/orders"}
    store = {"db.system.name": "redis", "db.operation.name": "SET"}
    started = now + int(waited * 1e9) + 6_000_000

    def span(
        at: int,
        parent: int | None,
        name: str,
        kind: Kind,
        start: int,
        ms: float,
        says: Says,
    ) -> Span:
        failed = at == 4 and chance.random() < 0.01
        return Span(
            trace_id=trace_id,
            span_id=ids[at],
            parent_span_id=b"" if parent is None else ids[parent],
            name=name,
            kind=kind,
            start_time_unix_nano=start,
            end_time_unix_nano=start + int(ms * 1e6),
            attributes=[_attribute(key, value) for key, value in says.items()],
            status=Status(code=Status.STATUS_CODE_ERROR) if failed else None,
        )

    web += [
        span(0, None, "POST /orders", Span.SPAN_KIND_SERVER, now, 8, request),
        span(
            1,
            0,
            "SELECT orders",
            Span.SPAN_KIND_CLIENT,
            now + 10**6,
            2,
            {"db.system.name": "postgresql"},
        ),
        span(2, 0, f"send {task}", Span.SPAN_KIND_PRODUCER, now + 4 * 10**6, 1, message),
        span(3, 0, "render", Span.SPAN_KIND_INTERNAL, now + 6 * 10**6, 1, {}),
    ]
    worker += [
        span(4, 2, f"process {task}", Span.SPAN_KIND_CONSUMER, started, 20, run),
        span(5, 4, "SET", Span.SPAN_KIND_CLIENT, started + 10**6, 1, store),
        span(6, 4, "GET", Span.SPAN_KIND_CLIENT, started + 3 * 10**6, 1, store),
        span(
            7,
            4,
            "INSERT orders",
            Span.SPAN_KIND_CLIENT,
            started + 6 * 10**6,
            5,
            {"db.system.name": "postgresql"},
        ),
    ]


def _attribute(key: str, value: str | float) -> KeyValue:
    if isinstance(value, float):
        return KeyValue(key=key, value=AnyValue(double_value=value))
    return KeyValue(key=key, value=AnyValue(string_value=value))
