"""Kill every part of the system again and again, and check that no span or log record is lost.

Run it with ``make soak``, or ``python -m tests.soak --minutes 3 --seed 7``. Its parts are real:
gunicorn, a prefork worker, Redis, the sender and a collector, each in a process of its own. Each
process notes on disk which spans it has ended and which lines it has logged, and the collector
which of them have arrived. The exit status is 1 if any has not arrived.

``--untraced`` does the same with tracing off. It shows which messages Celery loses by itself.
"""

import argparse
import contextlib
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import redis
import requests
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from telemetry.otlp.decode import decode, decode_logs
from telemetry.otlp.server import grpc_server

from .conftest import free_port
from .processes import Process, Starter
from .system import Server

#: Seconds after the last task in which the system must run and deliver everything accepted.
SETTLE = 120.0

#: Seconds after which a worker that takes nothing, while messages wait, is killed.
STUCK = 20.0

TASKS = ("ping", "ping", "ping", "retry", "fail")


def collect(port: int, path: str) -> None:
    """Be a collector that notes each span and log record before it answers."""
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def note(items: Iterable[tuple[str, str, str]]) -> tuple[int, str]:
        os.write(fd, "".join(f"{' '.join(item)}\n" for item in items).encode())
        return 0, ""

    def take(request, _):  # type: ignore[no-untyped-def]
        return note((span.trace_id, span.span_id, span.name) for span in decode(request))

    def take_logs(request, _):  # type: ignore[no-untyped-def]
        logs = (log for log in decode_logs(request) if log.scope == "soak")
        return note((log.trace_id, log.span_id, log.text) for log in logs)

    takes = {ExportTraceServiceRequest: take, ExportLogsServiceRequest: take_logs}
    server, _ = grpc_server(f"127.0.0.1:{port}", takes)
    server.start()
    print("collecting", flush=True)
    server.wait_for_termination()


class System:
    """All the parts, and the ways to kill each."""

    def __init__(self, directory: Path, chance: random.Random, traced: bool) -> None:
        self.state = directory / "state"
        self.ended, self.arrived = directory / "ended", directory / "arrived"
        self.begun = directory / "begun"
        self.kills: Counter[str] = Counter()
        self._chance = chance
        self._redis = Server(directory, password="soak", keep=True)
        self._collector_port, self._web_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self._web_port}"
        self.start = Starter(
            CELERY_BROKER_URL=self._redis.url,
            DATABASE_URL=f"sqlite:///{directory / 'pings.sqlite3'}",
            OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{self._collector_port}",
            OTEL_BSP_SCHEDULE_DELAY="100",
            OTEL_LOGS_EXPORTER="otlp",
            OTEL_SDK_DISABLED="false" if traced else "true",
            QUEUEHOP_STATE_DIR=str(self.state),
            SOAK_ENDED=str(self.ended),
            SOAK_BEGUN=str(self.begun),
        )
        self._collector = self._start_collector()
        self._worker = self._start_worker()
        self._web = self._start_web()

    def _start_collector(self) -> Process:
        process = self.start(
            "tests.soak", "--collect", str(self._collector_port), str(self.arrived)
        )
        process.wait_for_line("collecting", 60)
        return process

    def _start_web(self) -> Process:
        process = self.start(
            *("gunicorn", "--bind", f"127.0.0.1:{self._web_port}", "--no-control-socket"),
            *("--workers", "2", "--threads", "4", "tests.soaked:create_app()"),
        )
        process.wait_for_line("Listening at", 60)
        return process

    def _start_worker(self) -> Process:
        process = self.start(
            *("celery", "-A", "tests.soaked", "worker", "-c", "2", "-l", "INFO"),
            *("--without-mingle", "--without-gossip"),
        )
        process.wait_for_line(" ready.", 60)
        return process

    def kill_web(self) -> None:
        self._web.kill()
        self._web = self._start_web()

    def kill_web_child(self) -> None:
        self._kill_child(self._web)

    def kill_worker_child(self) -> None:
        self._kill_child(self._worker)

    def kill_worker(self) -> None:
        self._worker.kill()
        self._worker = self._start_worker()

    def kill_worker_main(self) -> None:
        os.kill(self._worker.pid, signal.SIGKILL)
        self._worker.wait()
        self._worker = self._start_worker()

    def kill_sender(self) -> None:
        for pid in with_argument(str(self.state)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def kill_collector(self) -> None:
        self._collector.kill()
        time.sleep(self._chance.uniform(0, 4))
        self._collector = self._start_collector()

    def kill_redis(self) -> None:
        self._redis.process.kill()
        time.sleep(self._chance.uniform(0, 2))
        self._redis.start()

    def supervise(self) -> None:
        """Restart a part that has ended by itself: a worker may when it loses its Redis."""
        if self._worker.has_ended:
            self.kills["worker, by itself"] += 1
            self._worker.kill()
            self._worker = self._start_worker()
        if self._web.has_ended:
            self.kills["web, by itself"] += 1
            self._web.kill()
            self._web = self._start_web()

    def waiting(self) -> int:
        """Return the number of messages in the queue, and of those taken and not acknowledged."""
        with redis.Redis.from_url(self._redis.url) as client:
            return int(client.llen("celery")) + int(client.hlen("unacked"))

    def _kill_child(self, process: Process) -> None:
        children = children_of(process.pid)
        if children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._chance.choice(children), signal.SIGKILL)

    def kill_any(self) -> None:
        """Kill a part, and restart it if nothing else does."""
        ways: list[Callable[[], None]] = [
            *(self.kill_web, self.kill_web_child, self.kill_worker, self.kill_worker_main),
            *(self.kill_worker_child, self.kill_sender, self.kill_collector, self.kill_redis),
        ]
        way = self._chance.choice(ways)
        self.kills[way.__name__.removeprefix("kill_")] += 1
        way()

    def stop(self) -> None:
        """Stop the processes that end spans."""
        self._web.stop()
        self._worker.stop(60)

    def deliver(self) -> None:
        """Start a process that delivers the rest of the files."""
        script = "import telemetry; telemetry.setup('last'); telemetry.flush(10)"
        process = self.start._start([sys.executable, "-c", script], Path.cwd(), {})
        process.wait(30)

    def close(self) -> None:
        """Stop the rest."""
        list(self.start.end())
        self.kill_sender()
        self._redis.process.kill()


def with_argument(text: str) -> list[int]:
    """Return the ids of the processes whose command line has *text*."""
    found = []
    for process in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            if text in (process / "cmdline").read_text():
                found.append(int(process.name))
    return found


def children_of(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))
    return []


class Load:
    """Clients that ping until they are stopped."""

    def __init__(self, url: str, clients: int) -> None:
        self.statuses: Counter[str] = Counter()
        self.accepted: set[str] = set()
        self._url = url
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._ping, args=(at,)) for at in range(clients)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def _ping(self, seed: int) -> None:
        chance = random.Random(seed)
        while not self._stopped.wait(0.02):
            task = chance.choice(TASKS)
            try:
                answer = requests.get(f"{self._url}/ping?length=5&task={task}", timeout=60)
            except requests.RequestException:
                self.statuses["no answer"] += 1
                self._stopped.wait(0.2)
                continue
            self.statuses[str(answer.status_code)] += 1
            if answer.status_code == 202:
                self.accepted.add(answer.json()["task_id"])


def notes_in(path: Path) -> Counter[str]:
    """Return the notes in *path*, without the torn line of a killed process."""
    lines = path.read_text(errors="replace").splitlines() if path.exists() else []
    return Counter(line for line in lines if len(line) > 50 and line[32] == line[49] == " ")


def tasks_in(path: Path) -> set[str]:
    """Return the ids of the tasks noted in *path*."""
    return set(path.read_text().split()) if path.exists() else set()


def wait_until(reached: Callable[[], bool], timeout: float) -> None:
    until = time.monotonic() + timeout
    while not reached() and time.monotonic() < until:
        time.sleep(1)


def soak(minutes: float, seed: int, traced: bool) -> int:
    """Run for *minutes*; print the numbers, and return the exit status."""
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="soak") as folder:
        system = System(Path(folder), chance, traced)
        try:
            until = time.monotonic() + 60 * minutes
            with Load(system.url, clients=4) as load:
                while time.monotonic() < until:
                    time.sleep(chance.uniform(0.5, 3))
                    system.supervise()
                    system.kill_any()

            seen = 0
            stuck = over = time.monotonic()

            def all_have_run() -> bool:
                nonlocal seen, stuck, over
                system.supervise()
                begun, now = tasks_in(system.begun), time.monotonic()
                if len(begun) != seen:
                    seen, stuck, over = len(begun), now + STUCK, now + SETTLE
                elif now > stuck and system.waiting():
                    system.kills["worker, stuck"] += 1
                    system.kill_worker()
                    stuck = now + STUCK
                return load.accepted <= begun or now > over

            wait_until(all_have_run, 10 * SETTLE)
            left = system.waiting()
            system.stop()
            system.deliver()
            ended = notes_in(system.ended)
            wait_until(lambda: ended.keys() <= notes_in(system.arrived).keys(), SETTLE)
            arrived, begun = notes_in(system.arrived), tasks_in(system.begun)
        finally:
            system.close()
    lost = ended.keys() - arrived.keys()
    print(f"{minutes:g} minutes, seed {seed}{'' if traced else ', tracing off'}")
    print(f"killed: {dict(system.kills.most_common())}")
    print(f"answers: {dict(load.statuses.most_common())}")
    for noun, is_log in (("spans", False), ("log records", True)):
        ended_, arrived_, lost_ = (
            sum(line.startswith("log ", 50) is is_log for line in lines)
            for lines in (ended, arrived, lost)
        )
        print(f"{noun} ended {ended_}, delivered {arrived_}, lost {lost_}")
    print(f"delivered more than once: {sum(count - 1 for count in arrived.values())}")
    # Celery loses a message that it has taken from Redis and not yet noted there if either dies.
    print(f"accepted {len(load.accepted)}, never run {len(load.accepted - begun)}")
    print(f"still in the queue: {left}")
    for line in sorted(lost)[:20]:
        print(f"lost: {line}")
    return 1 if lost or not begun or (traced and not ended) else 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--untraced", action="store_true", help="set OTEL_SDK_DISABLED=true")
    parser.add_argument("--collect", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.collect:
        collect(int(options.collect[0]), options.collect[1])
        return 0
    return soak(options.minutes, options.seed, not options.untraced)


if __name__ == "__main__":
    sys.exit(main())
