"""A trace through a broker behind a real Redis Sentinel."""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis

from telemetry.otlp.decode import ReceivedSpan
from telemetry.otlp.receiver import Receiver

from ..conftest import _server_command, free_port
from ..processes import Process, Starter

NAME = "queuehop"


@dataclass(frozen=True)
class Sentinel:
    """A master, its replica, and the Sentinel that watches them."""

    url: str
    master: Process
    port: int

    def master_port(self) -> int:
        with redis.Redis(port=self.port, decode_responses=True) as client:
            _, port = client.sentinel_get_master_addr_by_name(NAME)
            return int(port)

    def sees_a_replica(self) -> bool:
        with redis.Redis(port=self.port, decode_responses=True) as client:
            replicas = client.sentinel_slaves(NAME)
            return any(replica["master-link-status"] == "ok" for replica in replicas)


@pytest.fixture
def sentinel(tmp_path: Path) -> Iterator[Sentinel]:
    started: list[Process] = []

    def begin(*options: str, ready: str) -> Process:
        process = Process([_server_command(), *options], env=dict(os.environ))
        started.append(process)
        process.wait_for_line(ready)
        return process

    def server(port: int, *options: str) -> Process:
        return begin(
            *("--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path)),
            *("--repl-diskless-sync-delay", "0", *options),
            ready="Ready to accept connections",
        )

    port, replica, sentinel = free_port(), free_port(), free_port()
    configuration = tmp_path / "sentinel.conf"
    configuration.write_text(
        f"port {sentinel}\n"
        "bind 127.0.0.1\n"
        f"dir {tmp_path}\n"
        f"sentinel monitor {NAME} 127.0.0.1 {port} 1\n"
        f"sentinel down-after-milliseconds {NAME} 500\n"
    )
    try:
        master = server(port)
        server(replica, "--replicaof", f"127.0.0.1 {port}")
        begin(str(configuration), "--sentinel", ready="+monitor")
        yield Sentinel(f"sentinel://127.0.0.1:{sentinel}/0", master, sentinel)
    finally:
        for process in reversed(started):
            process.kill()


def until(condition: Callable[[], bool], timeout: float = 20.0) -> None:
    """Ask a Sentinel until the answer is right: it sends no event when a server is down."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def one_trace(receiver: Receiver, start: Starter) -> ReceivedSpan:
    """Publish once, and check the send; return the run."""
    producer = start("tests.deploy.project")
    trace_id = producer.wait_for_line("ran in").split()[-1]

    def found(spans: list[ReceivedSpan]) -> dict[str, ReceivedSpan]:
        return {span.name: span for span in spans if span.trace_id == trace_id}

    names = {"send where", "process where"}
    spans = found(receiver.wait_for(lambda spans: found(spans).keys() == names))
    send, run = spans["send where"], spans["process where"]
    assert (send.service, run.service) == ("producer", "worker")
    assert run.parent_id == send.span_id
    assert {span.attributes["messaging.system"] for span in (send, run)} == {"redis"}
    return run


def test_a_trace_goes_through_the_master_that_sentinel_names_also_after_it_is_lost(
    sentinel: Sentinel, start: Starter, receiver: Receiver
) -> None:
    start.env["CELERY_BROKER_URL"] = sentinel.url
    worker = start("celery", "-A", "tests.deploy.project", "worker", "-c", "2", "-l", "INFO")
    worker.wait_for_line(" ready.")
    one_trace(receiver, start)

    first = sentinel.master_port()
    until(sentinel.sees_a_replica)
    sentinel.master.kill()
    until(lambda: sentinel.master_port() != first)
    one_trace(receiver, start)
