"""The viewer, while many clients send exports that are small on the wire and huge in memory."""

import gzip
import itertools
import re
import threading
from collections import Counter
from pathlib import Path

import grpc
import requests

from ...conftest import free_port
from ...processes import Process, Starter
from .test_bounds import JSONS, PROTOBUFS, field

PROTOBUF, JSON = "application/x-protobuf", "application/json"


def as_logs(json: bytes) -> bytes:
    """Return an export of spans in JSON as one of log records."""
    json = json.replace(b"resourceSpans", b"resourceLogs").replace(b"scopeSpans", b"scopeLogs")
    return json.replace(b"spans", b"logRecords").replace(b"name", b"severityText")


#: Just below the limits: these are built.
JSON_SPANS = (
    b'{"resourceSpans":[{"scopeSpans":[{"spans":['
    + b",".join([b'{"name":"x","attributes":[{},{},{}]}'] * 49_000)
    + b"]}]}]}"
)
SPANS = field(1, field(2, field(2, field(9, b"")) * 49_000))
LOGS = field(1, field(2, field(2, field(6, b"")) * 49_000))

#: The paths of the bombs over HTTP, and their contents.
BOMBS = [
    *[("/v1/traces", body, PROTOBUF) for body in (*PROTOBUFS.values(), SPANS, bytes(33_000_000))],
    *[("/v1/traces", body, JSON) for body in (*JSONS.values(), JSON_SPANS)],
    *[("/v1/logs", body, PROTOBUF) for body in (*PROTOBUFS.values(), LOGS)],
    *[("/v1/logs", as_logs(body), JSON) for body in (*JSONS.values(), JSON_SPANS)],
    *[("/api/import", body, JSON) for body in (*JSONS.values(), JSON_SPANS, as_logs(JSON_SPANS))],
]

#: The service of gRPC that a bomb is sent to.
GRPC_BOMBS = [
    *[
        ("trace.v1.TraceService", body)
        for body in (PROTOBUFS["attributes"], SPANS, bytes(15_000_000))
    ],
    *[("logs.v1.LogsService", body) for body in (PROTOBUFS["numbers"], LOGS, bytes(15_000_000))],
]

#: Bytes by which the process may grow.
MOST = 400 * 1024 * 1024


def most_memory(process: Process) -> int:
    """Return the peak memory of *process*, in bytes."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    (kilobytes,) = re.findall(r"VmHWM:\s+(\d+) kB", status)
    return int(kilobytes) * 1024


def test_memory_is_bounded_and_others_are_answered(start: Starter, tmp_path: Path) -> None:
    address, other = (f"127.0.0.1:{free_port()}" for _ in range(2))
    viewer = start(
        *("telemetry", "view", "--http", address, "--grpc", other),
        *("--db", str(tmp_path / "traces.db")),
    )
    viewer.wait_for_line("traces at")
    before = most_memory(viewer)
    statuses: Counter[object] = Counter()
    packed = [(path, gzip.compress(body, 1), kind) for path, body, kind in BOMBS]
    stop = threading.Event()

    def over_http(first: int) -> None:
        with requests.Session() as session:
            for path, body, kind in itertools.islice(itertools.cycle(packed), first, None):
                if stop.is_set():
                    return
                headers = {"Content-Type": kind}
                if path != "/api/import":
                    headers["Content-Encoding"] = "gzip"
                answer = session.post(f"http://{address}{path}", body, headers=headers)
                statuses[answer.status_code] += 1

    def over_grpc(first: int) -> None:
        with grpc.insecure_channel(other, compression=grpc.Compression.Gzip) as channel:
            for service, body in itertools.islice(itertools.cycle(GRPC_BOMBS), first, None):
                if stop.is_set():
                    return
                export = channel.unary_unary(f"/opentelemetry.proto.collector.{service}/Export")
                try:
                    export(body)
                    statuses[grpc.StatusCode.OK] += 1
                except grpc.RpcError as refused:
                    statuses[refused.code()] += 1

    threads = [threading.Thread(target=over_http, args=(at * 8,)) for at in range(4)]
    threads += [threading.Thread(target=over_grpc, args=(at * 3,)) for at in range(2)]
    for thread in threads:
        thread.start()
    try:
        span = field(1, b"t" * 16) + field(2, b"s" * 8)
        small = field(1, field(2, field(2, span)))
        headers = {"Content-Type": "application/x-protobuf"}
        answered = 0
        while statuses.total() < 60:
            assert requests.get(f"http://{address}/api/traces", timeout=30).status_code == 200
            answer = requests.post(f"http://{address}/v1/traces", small, headers=headers)
            assert (answer.status_code, answer.content) == (200, b"")
            answered += 1
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert answered
    assert statuses[413], statuses
    assert statuses[grpc.StatusCode.RESOURCE_EXHAUSTED], statuses
    # A bomb is refused, or read in its turn. Imported spans without ids are refused one by one.
    assert statuses.keys() <= {
        *(200, 400, 413, 422, 503),
        *(grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE),
        *(grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.INVALID_ARGUMENT),
    }
    assert most_memory(viewer) - before < MOST
