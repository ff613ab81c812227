"""An OTLP/gRPC receiver in memory, which can wait until spans or log records arrive."""

import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Self, TypeVar

import grpc
from google.protobuf.message import Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from .decode import ReceivedLog, ReceivedSpan, decode, decode_logs
from .server import Take, grpc_server

Item = TypeVar("Item")

#: Beyond this number of spans, and of log records, the oldest are dropped.
MAX_SPANS = 100_000

#: The number of exports of traces whose metadata is kept, and of exports of metrics.
MAX_EXPORTS = 1_000

#: The most spans or log records that a TimeoutError names.
MAX_NAMED = 50


class Receiver:
    """Receive traces, metrics and logs over OTLP/gRPC on one address.

    *port* 0 chooses a free one; *credentials* enable TLS. Raises OSError if the address is in use.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        credentials: grpc.ServerCredentials | None = None,
        max_spans: int = MAX_SPANS,
    ) -> None:
        self._changed = threading.Condition()
        self._spans: deque[ReceivedSpan] = deque(maxlen=max_spans)
        self._metadata: deque[dict[str, Any]] = deque(maxlen=MAX_EXPORTS)
        self._metrics: deque[ExportMetricsServiceRequest] = deque(maxlen=MAX_EXPORTS)
        self._logs: deque[ReceivedLog] = deque(maxlen=max_spans)
        self._listeners: tuple[Callable[[list[ReceivedSpan]], object], ...] = ()
        takes: dict[type[Message], Take] = {
            ExportTraceServiceRequest: self._add_traces,
            ExportMetricsServiceRequest: self._add_metrics,
            ExportLogsServiceRequest: self._add_logs,
        }
        self._server, bound = grpc_server(f"{host}:{port}", takes, credentials)
        self.endpoint = f"{'https' if credentials else 'http'}://{host}:{bound}"

    def start(self) -> Self:
        """Start listening."""
        self._server.start()
        return self

    def stop(self) -> None:
        """Stop listening; exports in progress get half a second."""
        self._server.stop(0.5).wait()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def spans(self) -> list[ReceivedSpan]:
        """The spans that arrived so far, oldest first."""
        with self._changed:
            return list(self._spans)

    @property
    def metadata(self) -> list[dict[str, Any]]:
        """The gRPC metadata of the last exports of traces, oldest first."""
        with self._changed:
            return list(self._metadata)

    @property
    def metrics(self) -> list[ExportMetricsServiceRequest]:
        """The last exports of metrics, oldest first."""
        with self._changed:
            return list(self._metrics)

    @property
    def logs(self) -> list[ReceivedLog]:
        """The log records that arrived so far, oldest first."""
        with self._changed:
            return list(self._logs)

    def subscribe(self, listener: Callable[[list[ReceivedSpan]], object]) -> None:
        """Call *listener* with the spans so far and, from any thread, with later ones."""
        with self._changed:
            spans = list(self._spans)
            self._listeners = *self._listeners, listener
        listener(spans)

    def wait_for(
        self, predicate: Callable[[list[ReceivedSpan]], object], timeout: float = 10.0
    ) -> list[ReceivedSpan]:
        """Wait until *predicate* is true of the spans; return them.

        Raises TimeoutError after *timeout* seconds and names the spans that arrived.
        """
        return self._wait_for("spans", self._spans, predicate, timeout, _describe_span)

    def wait_for_logs(
        self, predicate: Callable[[list[ReceivedLog]], object], timeout: float = 10.0
    ) -> list[ReceivedLog]:
        """Wait until *predicate* is true of the log records; return them.

        Raises TimeoutError after *timeout* seconds and quotes the log records that arrived.
        """
        return self._wait_for("log records", self._logs, predicate, timeout, _describe_log)

    def _wait_for(
        self,
        noun: str,
        items: deque[Item],
        predicate: Callable[[list[Item]], object],
        timeout: float,
        describe: Callable[[Item], str],
    ) -> list[Item]:
        with self._changed:
            reached = self._changed.wait_for(lambda: predicate(list(items)), timeout)
            found = list(items)
        if reached:
            return found
        last = f", the last {MAX_NAMED} of them" if len(found) > MAX_NAMED else ""
        lines = "".join(f"\n  {describe(item)}" for item in found[-MAX_NAMED:])
        raise TimeoutError(f"after {timeout:g} s {len(found)} {noun} had arrived{last}:{lines}")

    def _add_traces(
        self, request: ExportTraceServiceRequest, metadata: dict[str, Any]
    ) -> tuple[int, str]:
        spans = decode(request)
        with self._changed:
            self._spans.extend(spans)
            self._metadata.append(metadata)
            self._changed.notify_all()
            listeners = self._listeners
        for listener in listeners:  # without the lock, since it may wait for a lock of its own
            listener(spans)
        return 0, ""

    def _add_metrics(self, request: ExportMetricsServiceRequest, _: object) -> tuple[int, str]:
        with self._changed:
            self._metrics.append(request)
            self._changed.notify_all()
        return 0, ""

    def _add_logs(self, request: ExportLogsServiceRequest, _: object) -> tuple[int, str]:
        logs = decode_logs(request)
        with self._changed:
            self._logs.extend(logs)
            self._changed.notify_all()
        return 0, ""


def _describe_span(span: ReceivedSpan) -> str:
    return (
        f"{span.trace_id[:8]} {span.span_id} under {span.parent_id or 'nothing':16} "
        f"{span.kind:8} {span.name} ({span.service}) {span.status}"
    )


def _describe_log(log: ReceivedLog) -> str:
    return f"{log.level} {log.scope}: {log.text}"
