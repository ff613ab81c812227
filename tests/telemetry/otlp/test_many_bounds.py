"""The viewer, while what is small on the wire and huge in memory comes from many at once."""

import gzip
import itertools
import re
import threading
from collections import Counter
from pathlib import Path

import grpc
import pytest
import requests

from ...conftest import free_port
from ...processes import Process, Starter
from .test_bounds import JSONS, MAX_OBJECTS, PROTOBUFS, field

#: Just below what is refused: these are built.
ALLOWED = {
    "application/x-protobuf": field(1, field(2, field(2, field(9, b"")) * 49_000)),
    "application/json": b'{"resourceSpans":[{"scopeSpans":[{"spans":['
    + b",".join([b'{"name":"x"}'] * (MAX_OBJECTS - 10))
    + b"]}]}]}",
}
BOMBS = [
    *[(body, "application/x-protobuf") for body in PROTOBUFS.values()],
    *[(body, "application/json") for body in JSONS.values()],
    *[(body, kind) for kind, body in ALLOWED.items()],
    (bytes(33_000_000), "application/x-protobuf"),
]

#: Bytes that the process may have more than before.
MOST = 400 * 1024 * 1024


def most_memory(process: Process) -> int:
    """Return the most bytes that *process* has had in memory."""
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
    packed = [(gzip.compress(body), kind) for body, kind in BOMBS]
    stop = threading.Event()

    def over_http(first: int) -> None:
        with requests.Session() as session:
            for body, kind in itertools.islice(itertools.cycle(packed), first, None):
                if stop.is_set():
                    return
                headers = {"Content-Type": kind, "Content-Encoding": "gzip"}
                answer = session.post(f"http://{address}/v1/traces", body, headers=headers)
                statuses[answer.status_code] += 1

    def send_over_grpc() -> None:
        with grpc.insecure_channel(other, compression=grpc.Compression.Gzip) as channel:
            export = channel.unary_unary(
                "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
            )
            while not stop.is_set():
                for body in (PROTOBUFS["attributes"], bytes(15_000_000)):
                    with pytest.raises(grpc.RpcError) as refused:
                        export(body)
                    statuses[refused.value.code()] += 1

    threads = [threading.Thread(target=over_http, args=(at * 4,)) for at in range(4)]
    threads += [threading.Thread(target=send_over_grpc) for _ in range(2)]
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
    codes = {grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.INVALID_ARGUMENT}
    assert set(statuses) <= {200, 400, 413, 503, grpc.StatusCode.UNAVAILABLE, *codes}
    assert most_memory(viewer) - before < MOST
