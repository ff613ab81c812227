"""How much the viewer takes in, and how fast it finds: ``python -m bench.viewer``.

Starts the real viewer on a database of its own and sends it traces and log records over OTLP/gRPC
from another process: first at a given rate, then as fast as it accepts them. Then it queries the
API, first while nothing else happens and then while spans arrive at the rate and the oldest are
deleted.
"""

import argparse
import json
import multiprocessing
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from socket import create_server
from urllib.request import urlopen

import grpc
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2_grpc
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

#: Spans of one trace and of one export: the SDK's batch is 512.
TRACE, EXPORT = 8, 512

#: How often each question is asked.
TIMES = 9

TASKS = [f"shop.tasks.task{number}" for number in range(20)]
QUEUES = ["celery", "mail", "reports"]

QUESTIONS = {
    "recent": "/api/traces",
    "one task": "/api/traces?task=shop.tasks.task7",
    "one service, slowest": "/api/traces?service=shop-worker&sort=duration",
    "task and queue, longest wait": "/api/traces?task=shop.tasks.task7&queue=mail&sort=wait",
    "errors": "/api/traces?status=error",
    "waited over 1.9 s (few)": "/api/traces?min_wait_ms=1900&service=shop-web",
    "lasted over an hour (none)": "/api/traces?min_ms=3600000&service=shop-web&queue=celery",
    "trace id, prefix": "/api/traces?trace_id=abc",
    "part of a name": "/api/traces?q=TASK1",
    "part of a name, longest wait": "/api/traces?q=TASK1&sort=wait",
    "a word that is nowhere": "/api/traces?q=nothing-like-it",
    "task id (none)": "/api/traces?q=5f0c2b7e-6a0e-4d0e-9a55-0f7f2d3b6c11",
    "span id (none)": "/api/traces?q=00f067aa0ba902b7",
    "attribute": "/api/traces?q=db.system.name%3Dpostgresql",
    "attribute (none)": "/api/traces?q=user.id%3D7",
    "wait > 1.9 s, of one task": "/api/traces?q=wait%3E1.9s%20task%3Atask7",
    "stuck (none)": "/api/traces?q=status%3Astuck",
    "failed": "/api/traces?q=status%3Aerror",
    "text of a log record": "/api/traces?q=log%3A%22card+declined%22",
    "text of one log record": "/api/traces?q=log%3A%22order+123%22",
    "text of a log record (none)": "/api/traces?q=log%3Anothing-like-it",
    "log records, errors": "/api/logs?all=1&severity=17",
    "log records without a trace": "/api/logs",
    "facets": "/api/facets",
    "suggestions": "/api/suggest?q=task",
    "queues, last hour": "/api/queues?since_s=3600",
    "queues, last week": "/api/queues?since_s=604800",
    "one queue, last hour": "/api/queue?queue=mail&since_s=3600",
    "one queue, last week": "/api/queue?queue=mail&since_s=604800",
    "one task, last hour": "/api/queue?queue=mail&task=shop.tasks.task7&since_s=3600",
    "map, last hour": "/api/map?since_s=3600",
    "stats": "/api/stats",
}


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
            resource = ResourceSpans(scope_spans=[ScopeSpans(spans=spans)])
            resource.resource.attributes.append(_attribute("service.name", service))
            resource.resource.attributes.append(_attribute("service.instance.id", service))
            logs = ResourceLogs(scope_logs=[ScopeLogs(log_records=_logs(chance, spans))])
            logs.resource.CopyFrom(resource.resource)
            yield (
                len(spans),
                ExportTraceServiceRequest(resource_spans=[resource]),
                ExportLogsServiceRequest(resource_logs=[logs]),
            )


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
        "messaging.system": "redis",
        "messaging.destination.name": queue,
        "messaging.message.id": trace_id.hex(),
        "celery.task.name": task,
    }
    run: dict[str, str | float] = {
        **message,
        "messaging.operation.type": "process",
        "celery.wait.scheduled": 0.0,
        "celery.wait.queue": waited,
        "celery.wait.prefetch": 0.001,
        "celery.task.state": "SUCCESS",
    }
    request = {"http.request.method": "POST", "http.route": "/orders", "url.path": "/orders"}
    store = {"db.system.name": "redis", "db.operation.name": "SET"}
    started = now + int(waited * 1e9) + 6_000_000

    def span(
        at: int,
        parent: int | None,
        name: str,
        kind: Span.SpanKind.ValueType,
        start: int,
        ms: float,
        says: Mapping[str, str | float],
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


def send(address: str, count: int, rate: float, result) -> None:  # type: ignore[no-untyped-def]
    """Send *count* spans, at *rate* a second or as fast as they are taken (0)."""
    source = exports(os.getpid())
    sent = refused = 0
    began = time.perf_counter()
    with grpc.insecure_channel(address) as channel:
        stub = trace_service_pb2_grpc.TraceServiceStub(channel)  # type: ignore[no-untyped-call]
        logs = logs_service_pb2_grpc.LogsServiceStub(channel)  # type: ignore[no-untyped-call]
        while sent < count:
            size, request, log_request = next(source)
            refused += stub.Export(request, timeout=60).partial_success.rejected_spans
            logs.Export(log_request, timeout=60)
            sent += size
            if rate:
                time.sleep(max(0.0, began + sent / rate - time.perf_counter()))
    result.put((sent, refused, time.perf_counter() - began))


def start_load(
    address: str, count: int, rate: float
) -> tuple[multiprocessing.Process, "multiprocessing.Queue[tuple[int, int, float]]"]:
    """Start to send from a process of its own; return it, and the queue of its result."""
    result: multiprocessing.Queue[tuple[int, int, float]] = multiprocessing.Queue()
    sender = multiprocessing.Process(target=send, args=(address, count, rate, result))
    sender.start()
    return sender, result


def load(address: str, count: int, rate: float) -> tuple[int, int, float]:
    """Send from a process of its own; return spans sent, spans refused, and seconds."""
    sender, result = start_load(address, count, rate)
    answer = result.get()
    sender.join()
    return answer


def get(base: str, path: str) -> tuple[float, bytes]:
    began = time.perf_counter()
    with urlopen(base + path, timeout=60) as answer:
        body = answer.read()
    return (time.perf_counter() - began) * 1e3, body


def stats(base: str) -> dict[str, int]:
    said: dict[str, int] = json.loads(get(base, "/api/stats")[1])
    return said


def settled(base: str, spans: int) -> float:
    """Wait until *spans* are written and every trace is summed up; return the seconds."""
    began = time.perf_counter()
    while (now := stats(base))["spans"] < spans or now["pending"]:
        if time.perf_counter() - began > 600:
            sys.exit(f"{spans} spans were sent, and this is what there is: {now}")
        time.sleep(0.2)
    return time.perf_counter() - began


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    with create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=5000, help="spans a second (%(default)s)")
    parser.add_argument("--seconds", type=float, default=60, help="for so long (%(default)s)")
    parser.add_argument("--total", type=int, default=1_000_000, help="spans in all (%(default)s)")
    options = parser.parse_args()
    print(f"{platform.platform()}, Python {platform.python_version()}, {os.cpu_count()} cores")
    address, http = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    base = f"http://{http}"
    with tempfile.TemporaryDirectory() as directory:
        viewer = subprocess.Popen(
            [
                *(sys.executable, "-m", "telemetry", "view", "--grpc", address, "--http", http),
                *("--db", f"{directory}/traces.db", "--max-spans", str(options.total + 2000)),
            ],
            stdout=subprocess.PIPE,
        )
        assert viewer.stdout is not None
        viewer.stdout.readline()
        try:
            measure(options, base, address, viewer.pid)
        finally:
            viewer.terminate()
            viewer.wait()
    return 0


def measure(options: argparse.Namespace, base: str, address: str, pid: int) -> None:
    before = cpu_seconds(pid)
    sent, refused, seconds = load(address, int(options.rate * options.seconds), options.rate)
    rest = settled(base, sent - refused)
    used = cpu_seconds(pid) - before
    print(
        f"at {options.rate:.0f}/s: {sent} spans in {seconds:.1f} s ({sent / seconds:.0f}/s), "
        f"{refused} refused; all written and summed up {rest:.1f} s later; "
        f"{used / (seconds + rest):.2f} cores"
    )
    more, lost, seconds = load(address, options.total - sent, 0)
    rest = settled(base, sent + more - refused - lost)
    print(
        f"as fast as it accepts them: {more} spans in {seconds:.1f} s ({more / seconds:.0f}/s), "
        f"{lost} refused; all written and summed up {rest:.1f} s later"
    )
    now = stats(base)
    print(f"{now['spans']} spans, {now['traces']} traces, {now['db_bytes'] / 1e6:.0f} MB")
    idle = ask(base)
    sender, _ = start_load(address, 10**9, options.rate)
    time.sleep(10)  # until the rate is steady
    received, start = stats(base)["received"], time.monotonic()
    busy = ask(base)
    rate = (stats(base)["received"] - received) / (time.monotonic() - start)
    sender.terminate()
    sender.join()
    print(f"milliseconds: median and slowest of {TIMES}; then while {rate:.0f} spans/s arrive")
    for name in QUESTIONS:
        row = [f(times[name]) for times in (idle, busy) for f in (statistics.median, max)]
        print(f"  {name:32}" + "".join(f"{ms:9.1f}" for ms in row))


def ask(base: str) -> dict[str, list[float]]:
    """Return how long each question takes, in milliseconds, several times."""
    times: dict[str, list[float]] = {name: [] for name in QUESTIONS}
    for _ in range(TIMES):
        for name, path in QUESTIONS.items():
            times[name].append(get(base, path)[0])
    return times


if __name__ == "__main__":
    sys.exit(main())
