"""The demo, run as a user runs it: its output, its end, and that no process is left."""

import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from telemetry.otlp.receiver import Receiver
from telemetry.viewer.analysis.verdict import by_trace, judge

from ..conftest import Broker, free_port
from ..processes import ROOT, Process

MARK = "QUEUEHOP_TEST_RUN"


def left_behind(mark: str) -> list[int]:
    """Return the processes that have *mark* in their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            environment = (entry / "environ").read_bytes() if entry.name.isdecimal() else b""
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if f"{MARK}={mark}".encode() in environment and state != "Z":
            found.append(int(entry.name))
    return found


@pytest.fixture
def mark() -> Iterator[str]:
    mark = uuid.uuid4().hex  # another test process runs demos too
    yield mark
    for pid in left_behind(mark):
        os.kill(pid, signal.SIGKILL)


@pytest.fixture
def env(mark: str, tmp_path: Path) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": str(tmp_path), MARK: mark, "COLUMNS": "100"}


def demo(env: dict[str, str], *argv: str) -> Process:
    return Process([sys.executable, "-m", "app.demo", *argv], env)


def gone(mark: str, started: list[int]) -> bool:
    """Wait until the processes *started* have ended; return whether none is left."""
    for pid in started:
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        with os.fdopen(descriptor) as ended:
            select.select([ended], [], [], 60)
    return left_behind(mark) == [] and not any(map(is_running, started))


def is_running(pid: int) -> bool:
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())  # a zombie's is empty
    except OSError:
        return False


def test_without_a_terminal_it_pings_shows_and_ends(env: dict[str, str], mark: str) -> None:
    run = demo(env, "--count", "3")
    assert run.wait() == 0, run.output
    lines = run.lines
    assert sum(line.endswith("✓") for line in lines) == 3
    tree = run.output
    for name in ("ping  INTERNAL", "GET  CLIENT 200", "GET /ping  SERVER 200", "⧗ waited",
                 "send workers.tasks.ping  PRODUCER", "process workers.tasks.ping  CONSUMER",
                 "SET  CLIENT redis", "INSERT pings  CLIENT sqlite"):  # fmt: skip
        assert name in tree
    assert re.search(r"viewer +traces at http://127\.0\.0\.1:\d+/", tree)
    assert re.fullmatch(r"✓ one trace: [0-9a-f]{32}, 1[01] spans, 3 processes", lines[-1])
    assert "\x1b" not in tree
    assert left_behind(mark) == []


class Terminal:
    """The demo on a terminal of its own."""

    def __init__(self, env: dict[str, str], *argv: str) -> None:
        self.said = ""
        self._master, slave = pty.openpty()
        self.child = subprocess.Popen(
            [sys.executable, "-m", "app.demo", *argv],
            env={**env, "TERM": "xterm"},
            cwd=ROOT,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)

    def read_until(self, text: str, timeout: float = 120.0) -> None:
        """Read until *text* has come since the last call. Later calls begin after it."""
        deadline = time.monotonic() + timeout
        while text not in self.said:
            left = deadline - time.monotonic()
            ready, _, _ = select.select([self._master], [], [], max(0.0, left))
            assert ready, f"{text!r} did not come after:\n{self.said}"
            self.said += os.read(self._master, 65536).decode("utf-8", "replace")
        self.said = self.said[self.said.index(text) + len(text) :]

    def close(self) -> None:
        self.child.kill()
        self.child.wait()
        os.close(self._master)


@pytest.fixture
def terminal(env: dict[str, str]) -> Iterator[Terminal]:
    terminal = Terminal(env, "--count", "1")
    yield terminal
    terminal.close()


def test_on_a_terminal_it_stays_until_ctrl_c(terminal: Terminal, mark: str) -> None:
    terminal.read_until("\x1b[1;32m✓ one trace")  # in color
    terminal.read_until("See the traces at http://127.0.0.1:")
    terminal.read_until("curl '")
    terminal.read_until("Logs: ")
    terminal.child.send_signal(signal.SIGINT)
    terminal.read_until("stopping all parts")
    assert terminal.child.wait(30) == 0
    assert left_behind(mark) == []


@pytest.fixture
def browser(env: dict[str, str], tmp_path: Path) -> Path:
    """A display, and a browser that notes the URL to open. Return the file of the note."""
    opened, script = tmp_path / "opened", tmp_path / "browser"
    script.write_text(f'#!/bin/sh\necho "$1" >> {opened}\n')
    script.chmod(0o755)
    env |= {"DISPLAY": ":0", "BROWSER": str(script)}
    return opened


def test_a_terminal_with_a_display_opens_the_viewer(env: dict[str, str], browser: Path) -> None:
    terminal = Terminal(env, "--count", "1")
    try:
        terminal.read_until("See the traces at ")
        terminal.read_until("All parts run until")
        [address] = browser.read_text().split()
        with urllib.request.urlopen(f"{address}api/traces") as answer:
            assert len(json.load(answer)["traces"]) == 1
    finally:
        terminal.close()


@pytest.mark.parametrize(("argv", "ci"), [(("--no-open",), ""), ((), "true")])
def test_nothing_is_opened_in_ci_or_where_it_is_not_wanted(
    env: dict[str, str], browser: Path, argv: tuple[str, ...], ci: str
) -> None:
    terminal = Terminal({**env, "CI": ci}, "--count", "1", *argv)
    try:
        terminal.read_until("All parts run until")
        assert not browser.exists()
    finally:
        terminal.close()


def test_what_is_pinged_by_hand_is_shown(env: dict[str, str]) -> None:
    run = demo(env, "--keep", "--count", "1")
    run.wait_for_line("Logs: ")
    url = re.search(r"curl '(http[^']+)'", run.output)
    assert url is not None
    with urllib.request.urlopen(url[1]) as answer:
        trace_id = json.load(answer)["trace_id"]
    run.wait_for_line(f"trace {trace_id}")
    run.signal(signal.SIGINT)
    assert run.wait() == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_nothing_stays_behind_however_it_ends(
    env: dict[str, str], mark: str, number: signal.Signals
) -> None:
    run = demo(env, "--keep", "--count", "1")
    run.wait_for_line("run until Ctrl-C")
    # The server hides its environment, so the process id that the demo prints counts too.
    started = sorted({*left_behind(mark), *map(int, re.findall(r"\(pid (\d+)\)", run.output))})
    assert len(started) >= 7  # the demo, viewer, broker, worker and its two children, web
    run.signal(number)
    status = run.wait()
    assert status == {signal.SIGINT: 0, signal.SIGKILL: -9}.get(number, 128 + number)
    if number in (signal.SIGTERM, signal.SIGHUP):
        assert f"ended by {number.name}" in run.output
    assert gone(mark, started), run.output


def test_ctrl_c_while_it_starts(env: dict[str, str], mark: str) -> None:
    run = demo(env)
    run.wait_for_line("worker ")
    run.signal(signal.SIGINT)
    assert run.wait() == 130
    assert "interrupted" in run.output
    # A part that was being started at that moment ends with the demo, not before it.
    assert gone(mark, left_behind(mark))


@pytest.mark.parametrize("part", ["worker", "web", "viewer"])
def test_a_part_that_dies_is_named(env: dict[str, str], mark: str, part: str) -> None:
    run = demo(env, "--keep", "--count", "1")
    run.wait_for_line("run until Ctrl-C")
    found = re.search(rf"^ +{part} .*\(pid (\d+)\)", run.output, re.MULTILINE)
    assert found is not None
    os.kill(int(found[1]), signal.SIGKILL)
    assert run.wait() == 1
    assert f"{part} was killed by signal 9" in run.output
    assert left_behind(mark) == []


@pytest.mark.parametrize("flag", ["--web-port", "--otlp-port", "--viewer-port"])
def test_a_port_that_is_taken(env: dict[str, str], mark: str, flag: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        run = demo(env, flag, port)
        assert run.wait() == 1
    assert f"port {port} is in use: stop the program that listens there, or set {flag}" in (
        run.output
    )
    assert left_behind(mark) == []


def test_a_broker_and_a_collector_of_ones_own(
    env: dict[str, str], broker: Broker, receiver: Receiver
) -> None:
    theirs = {
        "CELERY_BROKER_URL": broker.url,
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
    }
    run = demo({**env, **theirs}, "--count", "2")
    assert run.wait() == 0, run.output
    assert f"{broker.url}, yours" in run.output
    assert "OTEL_EXPORTER_OTLP_ENDPOINT" in run.output
    pings = list(by_trace(s for s in receiver.spans if s.name != "GET /healthz").values())
    assert len(pings) == 2
    assert all(judge(ping).ok for ping in pings)


def test_a_collector_that_is_down(env: dict[str, str], broker: Broker, tmp_path: Path) -> None:
    """The pings succeed, and the demo does not say that their traces are there."""
    down = {
        "CELERY_BROKER_URL": broker.url,
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{free_port()}",
        "QUEUEHOP_STATE_DIR": str(tmp_path),
    }
    run = demo({**env, **down}, "--count", "1")
    assert run.wait() == 1, run.output
    assert "the traces are not delivered, and wait on disk: 127.0.0.1:" in run.output


@pytest.mark.parametrize("flag", ["--web-port", "--otlp-port", "--viewer-port"])
def test_a_number_that_is_no_port(env: dict[str, str], flag: str) -> None:
    run = demo(env, flag, "65536")
    assert run.wait() == 2
    assert f"argument {flag}: 65536 is not a port" in run.output


@pytest.mark.parametrize("variable", ["CELERY_BROKER_URL", "OTEL_EXPORTER_OTLP_ENDPOINT"])
def test_a_variable_that_is_no_url(env: dict[str, str], mark: str, variable: str) -> None:
    run = demo({**env, variable: "http://me:hunter2@[::1"})
    assert run.wait() == 1
    assert run.lines[-1] == f"{variable} is not a URL: correct it, or unset it"
    assert left_behind(mark) == []


def test_help() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "app.demo", "--help"], cwd=ROOT, capture_output=True, text=True
    )
    assert shown.returncode == 0
    assert "--web-port" in shown.stdout
