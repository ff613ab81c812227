"""How much the viewer takes in, and how fast it answers: ``.venv/bin/python -m bench.viewer``.

Run it in the development environment, which ``make`` creates in .venv: bench/.venv has no viewer.
It starts the real viewer and sends it traces and log records over OTLP/gRPC from another process:
first at a given rate, then as fast as the viewer accepts them. Then it queries the API, first while
nothing else happens and then while spans arrive at the rate and the oldest are deleted.

``--pages`` measures only the queries. ``--db FILE`` keeps the database; if it already has spans,
only the missing ones are sent.
"""

import argparse
import json
import multiprocessing
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from socket import create_server
from urllib.request import urlopen

import grpc
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from .viewer_spans import backlog, exports, large_trace

#: How often each question is asked.
TIMES = 9

#: It ends where the page can draw its first screen.
FIRST_ROWS = "trace of 9,001 spans, first rows"

QUESTIONS = {
    "recent": "/api/traces",
    "last received": "/api/traces?sort=received",
    "one task": "/api/traces?task=shop.tasks.task7",
    "one service, slowest": "/api/traces?service=shop-worker&sort=duration",
    "task and queue, longest wait": "/api/traces?task=shop.tasks.task7&queue=mail&sort=wait",
    "errors": "/api/traces?status=error",
    "waited over 1.9 s (few)": "/api/traces?min_wait_ms=1900&service=shop-web",
    "lasted over an hour": "/api/traces?min_ms=3600000&service=shop-web&queue=celery",
    "trace id, prefix": "/api/traces?trace_id=abc",
    "part of a name": "/api/traces?q=TASK1",
    "part of a name, longest wait": "/api/traces?q=TASK1&sort=wait",
    "a word that is nowhere": "/api/traces?q=nothing-like-it",
    "task id (none)": "/api/traces?q=5f0c2b7e-6a0e-4d0e-9a55-0f7f2d3b6c11",
    "task id, prefix (none)": "/api/traces?q=5f0c2b7e",
    "without a queue (none)": "/api/traces?q=queue%3A%22%22",
    "span id (none)": "/api/traces?q=00f067aa0ba902b7",
    "attribute": "/api/traces?q=db.system.name%3Dpostgresql",
    "attribute (none)": "/api/traces?q=user.id%3D7",
    "wait > 1.9 s, of one task": "/api/traces?q=wait%3E1.9s%20task%3Atask7",
    "stuck": "/api/traces?q=status%3Astuck",
    "failed": "/api/traces?q=status%3Aerror",
    "last hour, longest wait": "/api/traces?since_s=3600&sort=wait",
    "last minute, longest wait": "/api/traces?since_s=60&sort=wait",
    "last hour, slowest": "/api/traces?since_s=3600&sort=duration",
    "last hour, last received": "/api/traces?since_s=3600&sort=received",
    "last minute, stuck": "/api/traces?since_s=60&q=status%3Astuck",
    "last hour, stuck, longest wait": "/api/traces?since_s=3600&q=status%3Astuck&sort=wait",
    "last hour, one queue, failed": "/api/traces?since_s=3600&queue=mail&status=failure",
    "last hour, nowhere": "/api/traces?since_s=3600&q=nothing-like-it",
    "last hour, part of a name, wait": "/api/traces?since_s=3600&q=TASK1&sort=wait",
    "last hour, wait > 1 day (none)": "/api/traces?since_s=3600&q=wait%3E1d",
    "an hour ago, longest wait": "/api/traces?from={begin}&to={end}&sort=wait",
    "an hour ago, part of a name": "/api/traces?from={begin}&to={end}&q=TASK1",
    "last hour, attribute (none)": "/api/traces?since_s=3600&q=user.id%3D7&sort=wait",
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
    FIRST_ROWS: "/api/traces/{large}/hops",
    "trace of 9,001 spans, whole": "/api/traces/{large}/hops",
    "download of it": "/api/traces/{large}?download=1",
}


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
    arguments = (address, count, rate, result)
    sender = multiprocessing.Process(target=send, args=arguments, daemon=True)
    sender.start()
    return sender, result


def load(address: str, count: int, rate: float) -> tuple[int, int, float]:
    """Send from a process of its own; return spans sent, spans refused, and seconds."""
    sender, result = start_load(address, count, rate)
    answer = result.get()
    sender.join()
    return answer


def get(base: str, path: str) -> tuple[float, bytes]:
    """Return the milliseconds until the answer is whole, and the answer."""
    began = time.perf_counter()
    with urlopen(base + path, timeout=60) as answer:
        body = answer.read()
    return (time.perf_counter() - began) * 1e3, body


def get_line(base: str, path: str) -> tuple[float, bytes]:
    """Return the milliseconds until the first line of the answer, and the line."""
    began = time.perf_counter()
    with urlopen(base + path, timeout=60) as answer:
        line = answer.readline()
        elapsed = (time.perf_counter() - began) * 1e3
        answer.read()
    return elapsed, line


def stats(base: str) -> dict[str, int]:
    said: dict[str, int] = json.loads(get(base, "/api/stats")[1])
    return said


def settled(base: str, spans: int) -> float:
    """Wait until *spans* are written and every trace is summarized; return the seconds."""
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


@dataclass(frozen=True, slots=True)
class Viewer:
    """A running viewer: its process id, its OTLP/gRPC address and the URL of its API."""

    pid: int
    address: str
    base: str


@contextmanager
def started(db: str, most: int) -> Iterator[Viewer]:
    """Run the viewer on the database *db*, which has at most *most* spans."""
    address, http = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    arguments = ["--grpc", address, "--http", http, "--db", db, "--max-spans", str(most)]
    command = [sys.executable, "-m", "telemetry", "view", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        if not process.stdout.readline():
            sys.exit(
                "the viewer did not start, for the reason above; "
                "in the development environment it does: .venv/bin/python -m bench.viewer"
            )
        try:
            yield Viewer(process.pid, address, f"http://{http}")
        finally:
            # After Ctrl-C, Popen waits only a moment. The next run needs the database.
            process.terminate()
            process.wait()


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rate", type=float, default=5000, help="spans a second (%(default)s)")
    parser.add_argument("--seconds", type=float, default=60, help="for so long (%(default)s)")
    parser.add_argument("--total", type=int, default=1_000_000, help="spans in all (%(default)s)")
    parser.add_argument("--pages", action="store_true", help="measure only the queries")
    parser.add_argument("--db", metavar="FILE", help="keep the database in this file")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # end the viewer, too
    print(f"{platform.platform()}, Python {platform.python_version()}, {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory() as directory:
        db = options.db or f"{directory}/traces.db"
        with started(db, max(options.total, 500_000) + 20_000) as viewer:
            if not options.pages:
                measure_rate(viewer, options.rate, options.seconds)
            fill(viewer, options.total)
            measure_pages(viewer, options.rate)
    return 0


def measure_rate(viewer: Viewer, rate: float, seconds: float) -> None:
    """Send spans at *rate*."""
    before, stored = cpu_seconds(viewer.pid), stats(viewer.base)["spans"]
    sent, refused, seconds = load(viewer.address, int(rate * seconds), rate)
    rest = settled(viewer.base, stored + sent - refused)
    used = cpu_seconds(viewer.pid) - before
    print(
        f"at {rate:.0f}/s: {sent} spans in {seconds:.1f} s ({sent / seconds:.0f}/s), "
        f"{refused} refused; all written and summarized {rest:.1f} s later; "
        f"{used / (seconds + rest):.2f} cores"
    )


def fill(viewer: Viewer, total: int) -> None:
    """Send spans as fast as the viewer accepts them, until it has *total*.

    A tenth of them are messages that no worker takes. They are last: the oldest will be deleted.
    """
    waiting = total // 10
    stored = stats(viewer.base)["spans"]
    if stored < total - waiting:
        sent, refused, seconds = load(viewer.address, total - waiting - stored, 0)
        rest = settled(viewer.base, stored + sent - refused)
        print(
            f"as fast as it accepts them: {sent} spans in {seconds:.1f} s ({sent / seconds:.0f}/s),"
            f" {refused} refused; all written and summarized {rest:.1f} s later"
        )
        send_all(viewer, backlog(waiting))
    now = stats(viewer.base)
    print(f"{now['spans']} spans, {now['traces']} traces, {now['db_bytes'] / 1e6:.0f} MB")


def send_all(viewer: Viewer, requests: Iterable[ExportTraceServiceRequest]) -> None:
    """Send *requests*, and wait until their traces are summarized."""
    with grpc.insecure_channel(viewer.address) as channel:
        stub = trace_service_pb2_grpc.TraceServiceStub(channel)  # type: ignore[no-untyped-call]
        for request in requests:
            stub.Export(request, timeout=60)
    settled(viewer.base, 0)


def measure_pages(viewer: Viewer, rate: float) -> None:
    """Query the API, first at rest and then while spans arrive at *rate*."""
    large, requests = large_trace()
    send_all(viewer, requests)
    idle = ask(viewer.base, large)
    sender, _ = start_load(viewer.address, 10**9, rate)
    try:
        time.sleep(10)  # until the rate is steady
        received, start = stats(viewer.base)["received"], time.monotonic()
        used = cpu_seconds(viewer.pid)
        busy = ask(viewer.base, large)
        seconds = time.monotonic() - start
        arrived = (stats(viewer.base)["received"] - received) / seconds
        cores = (cpu_seconds(viewer.pid) - used) / seconds
    finally:
        sender.terminate()
        sender.join()
    print(
        f"milliseconds, median and slowest of {TIMES}: at rest, "
        f"and while {arrived:.0f} spans/s arrive ({cores:.2f} cores)"
    )
    for name in QUESTIONS:
        row = [f(times[name]) for times in (idle, busy) for f in (statistics.median, max)]
        print(f"  {name:32}" + "".join(f"{ms:9.1f}" for ms in row))


def ask(base: str, large: str) -> dict[str, list[float]]:
    """Return how long each question takes, in milliseconds, several times."""
    times: dict[str, list[float]] = {name: [] for name in QUESTIONS}
    begin, end = (time.strftime("%FT%TZ", time.gmtime(time.time() - ago)) for ago in (3600, 1800))
    for _ in range(TIMES):
        for name, path in QUESTIONS.items():
            ask_one = get_line if name == FIRST_ROWS else get
            times[name].append(ask_one(base, path.format(large=large, begin=begin, end=end))[0])
    return times


if __name__ == "__main__":
    sys.exit(main())
