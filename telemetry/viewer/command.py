"""``python -m telemetry view``: receive and store traces, show them in browser and terminal."""

import argparse
import gc
import logging
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from http import HTTPStatus
from io import TextIOWrapper
from pathlib import Path
from socket import AF_INET6, SO_REUSEADDR, SOL_SOCKET, SOMAXCONN, socket
from urllib.parse import urlsplit

import grpc
from google.protobuf.message import Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from rich.console import Console
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from ..otlp.server import Take, grpc_server
from .analysis.summary import Summary
from .store.database import MEMORY, Database, Unusable
from .store.exclusive import exclusive
from .store.read import number_of, numbers_with, read_trace
from .store.trace_store import Bounds, Store
from .terminal import render_tree
from .web.api import create_app
from .web.events import Events

logger = logging.getLogger(__name__)

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})

#: The switch interval between threads, in seconds. The viewer answers a request in many short
#: steps. With Python's default of 5 ms, each step would wait that long for the thread that writes,
#: or for a large export.
SWITCH_INTERVAL = 0.0005

#: A trace is printed when none of its spans has arrived for this long, in seconds.
QUIET = 1.0
#: The same for a trace in which a parent is missing, or whose message no worker took.
QUIET_INCOMPLETE = 10.0

#: New objects after which the garbage collector looks for cycles. A trace of 9,000 spans is 60,000
#: objects without any; with Python's default, the collector takes a fifth of the time of its page.
COLLECT_AFTER = 100_000


class CannotStart(Exception):
    """The viewer cannot start. The message names the cause and the remedy."""


def view(options: argparse.Namespace) -> int:
    """Receive and show traces until Ctrl-C; return the exit status."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a tree has characters beyond ASCII
    try:
        return print_trace(options) if options.trace_id else _serve(options)
    except (CannotStart, Unusable) as exc:
        print(exc, file=sys.stderr)
        return 1


def print_trace(options: argparse.Namespace) -> int:
    """Print the tree of one trace of the database."""
    path = options.db
    if path == MEMORY or not Path(path).exists():
        raise CannotStart(f"there is no database {path}: give the viewer's with --db")
    database = Database(path)
    try:
        with database.reading() as db:
            numbers = numbers_with(db, options.trace_id, 2)
            if not numbers:
                raise CannotStart(f"trace {options.trace_id} is not in {path}")
            if len(numbers) > 1:
                raise CannotStart(
                    f"several traces begin with {options.trace_id}: give more characters of the id"
                )
            trace = read_trace(db, numbers[0], time.time_ns(), options.stuck_after * 10**9)
    finally:
        database.close()
    Console(highlight=False).print(render_tree(trace.spans, [*trace.live, *trace.picked_up]))
    return 0


def _serve(options: argparse.Namespace) -> int:
    sys.setswitchinterval(SWITCH_INTERVAL)
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER)
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    with serve(options) as (store, url):
        print(f"traces at {url}", flush=True)
        if options.follow:
            _follow(store, stopped)
        else:
            # If a thread of gRPC receives the signal, nothing wakes this one.
            while not stopped.wait(0.2):
                pass
    return 0


@contextmanager
def serve(options: argparse.Namespace) -> Iterator[tuple[Store, str]]:
    """Receive and show traces; yield the store, and the address of the pages."""
    with ExitStack() as running:
        running.enter_context(exclusive(options.db))
        store = Store(
            Database(options.db),
            Bounds(options.max_spans, options.max_age),
            options.stuck_after * 10**9,
        )
        running.callback(store.close)
        events = Events(store)
        running.callback(events.close)
        http = _http_server(options.http, store, events)
        running.callback(http.server_close)
        receiver = _grpc_server(options.grpc, store)
        running.callback(lambda: receiver.stop(0.5).wait())
        # The argument is how long it may take to notice that it is to end.
        thread = threading.Thread(target=http.serve_forever, args=(0.1,), name="http", daemon=True)
        thread.start()
        running.callback(http.shutdown)
        receiver.start()
        yield store, _url(options.http, http.port)


def _follow(store: Store, stopped: threading.Event) -> None:
    """Print each trace when none of its spans has arrived for a while.

    If more spans arrive later, print it again: each process exports its spans on its own schedule.
    """
    console = Console(highlight=False)
    due: dict[str, float] = {}
    printed: dict[str, int] = {}

    def note(summary: Summary) -> None:
        trace_id = summary.row["trace_id"]
        if summary.row["spans"] > printed.get(trace_id, 0):
            quiet = QUIET if summary.complete else QUIET_INCOMPLETE
            due[trace_id] = time.monotonic() + quiet
        else:
            due.pop(trace_id, None)

    store.listen(note)
    while not stopped.wait(0.2):
        now = time.monotonic()
        for trace_id in [trace_id for trace_id, at in list(due.items()) if at <= now]:
            if due.pop(trace_id, None) is None:
                continue
            with store.database.reading() as db:
                number = number_of(db, trace_id)
                if number is None:  # deleted meanwhile
                    continue
                trace = read_trace(db, number, time.time_ns(), store.stuck_after_ns)
            printed.pop(trace_id, None)
            printed[trace_id] = len(trace.spans)
            if len(printed) > 10_000:
                del printed[next(iter(printed))]
            console.print(render_tree(trace.spans, [*trace.live, *trace.picked_up]))
            console.print()


def _grpc_server(address: str, store: Store) -> grpc.Server:
    try:
        # gRPC itself would log several lines if the address is in use.
        _bind(*split_address(address)).close()
        takes: dict[type[Message], Take] = {
            ExportTraceServiceRequest: lambda request, _: store.take(request),
            ExportLogsServiceRequest: lambda request, _: store.take_logs(request),
            ExportMetricsServiceRequest: lambda *_: (0, ""),
        }
        return grpc_server(address, takes)[0]
    except OSError as exc:
        raise _taken(address, "--grpc", exc) from None


class _Handler(WSGIRequestHandler):
    #: The longest time that a client may send nothing, in seconds.
    timeout = 60

    def log_request(self, *_: object) -> None:
        """Log no requests: the terminal is for traces."""

    def log_error(self, format: str, *args: object) -> None:
        if args[:1] == (HTTPStatus.HTTP_VERSION_NOT_SUPPORTED,):
            _warn_of_grpc()
        else:
            super().log_error(format, *args)


@cache
def _warn_of_grpc() -> None:
    """Log one line for all attempts: an exporter repeats them."""
    logger.warning(
        "a client sends gRPC to the HTTP address, and its spans do not arrive: use the address of "
        "--grpc, or set OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf"
    )


def _http_server(address: str, store: Store, events: Events) -> BaseWSGIServer:
    host, port = split_address(address)
    app = create_app(store, events, LOOPBACK | {host.lower()})
    # Bind here: werkzeug would print and exit if the address is in use.
    try:
        bound = _bind(host, port)
    except OSError as exc:
        raise _taken(address, "--http", exc) from None
    server = make_server(
        host, port, app, threaded=True, request_handler=_Handler, fd=bound.fileno()
    )
    bound.close()
    return server


def _taken(address: str, option: str, exc: OSError) -> CannotStart:
    return CannotStart(
        f"cannot listen on {address} ({exc.strerror}): stop the process that uses it, or choose "
        f"another address with {option}"
    )


def _bind(host: str, port: int) -> socket:
    bound = socket(AF_INET6) if ":" in host else socket()
    try:
        bound.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
        bound.bind((host, port))
        bound.listen(SOMAXCONN)
    except OSError:
        bound.close()
        raise
    return bound


def split_address(address: str) -> tuple[str, int]:
    """Return host and port of ``host:port`` or ``[host]:port``. Raises ValueError."""
    url = urlsplit(f"//{address}")
    if not url.hostname or url.port is None or url.path or "@" in address:
        raise ValueError(f"{address!r} is not host:port")
    return url.hostname, url.port


def _url(address: str, port: int) -> str:
    host, _ = split_address(address)
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"
