"""An OTLP/gRPC receiver that keeps what arrives, and lets one wait for it."""

import errno
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

import grpc
from opentelemetry.proto.collector.metrics.v1 import (
    metrics_service_pb2,
    metrics_service_pb2_grpc,
)
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from .spans import Span, decode

__all__ = ["Receiver"]

#: More spans than this, and the oldest go.
MAX_SPANS = 100_000

#: Of so many exports it is kept what came with them, and of metrics the requests.
MAX_EXPORTS = 1_000

#: How many spans the error of a wait in vain names.
MAX_NAMED = 50

#: The largest export taken, in bytes.
MAX_MESSAGE = 64 * 1024 * 1024


class Receiver:
    """Takes traces and metrics over OTLP/gRPC on one address.

    *port* 0 takes a free one; *credentials* make it TLS. Raises OSError where the address is taken.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        credentials: grpc.ServerCredentials | None = None,
        max_spans: int = MAX_SPANS,
    ) -> None:
        self._changed = threading.Condition()
        self._spans: deque[Span] = deque(maxlen=max_spans)
        self._metadata: deque[dict[str, Any]] = deque(maxlen=MAX_EXPORTS)
        self._metrics: deque[metrics_service_pb2.ExportMetricsServiceRequest] = deque(
            maxlen=MAX_EXPORTS
        )
        self._server = grpc.server(
            ThreadPoolExecutor(max_workers=4, thread_name_prefix="otlp"),
            # Without this a second receiver on the same port would share it, silently.
            options=[
                ("grpc.so_reuseport", 0),
                ("grpc.max_receive_message_length", MAX_MESSAGE),
            ],
        )
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(  # type: ignore[no-untyped-call]
            _Traces(self), self._server
        )
        metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(  # type: ignore[no-untyped-call]
            _Metrics(self), self._server
        )
        address = f"{host}:{port}"
        try:
            if credentials is not None:
                bound = self._server.add_secure_port(address, credentials)
            else:
                bound = self._server.add_insecure_port(address)
        except RuntimeError:
            bound = 0
        if not bound:
            raise OSError(errno.EADDRINUSE, f"{address} is taken or cannot be listened on")
        self.endpoint = f"{'https' if credentials else 'http'}://{host}:{bound}"

    def start(self) -> Self:
        """Begin to listen."""
        self._server.start()
        return self

    def stop(self) -> None:
        """Stop listening; exports under way get half a second."""
        self._server.stop(0.5).wait()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def spans(self) -> list[Span]:
        """What has arrived so far, oldest first."""
        with self._changed:
            return list(self._spans)

    @property
    def metadata(self) -> list[dict[str, Any]]:
        """The gRPC metadata of the last exports of traces, oldest first."""
        with self._changed:
            return list(self._metadata)

    @property
    def metrics(self) -> list[metrics_service_pb2.ExportMetricsServiceRequest]:
        """The last exports of metrics, oldest first."""
        with self._changed:
            return list(self._metrics)

    def wait_for(
        self, predicate: Callable[[list[Span]], object], timeout: float = 10.0
    ) -> list[Span]:
        """Wait until *predicate* is true of the spans; return them.

        Raises TimeoutError after *timeout* seconds, saying what did arrive.
        """
        with self._changed:
            if self._changed.wait_for(lambda: predicate(list(self._spans)), timeout):
                return list(self._spans)
            spans = list(self._spans)
        named = "\n".join(
            f"  {span.trace_id[:8]} {span.span_id} under {span.parent_id or 'nothing':16} "
            f"{span.kind:8} {span.name} ({span.service}) {span.status}"
            for span in spans[-MAX_NAMED:]
        )
        last = f", the last {MAX_NAMED} of them" if len(spans) > MAX_NAMED else ""
        raise TimeoutError(f"after {timeout:g} s {len(spans)} spans had arrived{last}:\n{named}")

    def keep(self, spans: list[Span], metadata: dict[str, Any]) -> None:
        """Add what one export brought."""
        with self._changed:
            self._spans.extend(spans)
            self._metadata.append(metadata)
            self._changed.notify_all()

    def keep_metrics(self, request: metrics_service_pb2.ExportMetricsServiceRequest) -> None:
        """Add what one export of metrics brought."""
        with self._changed:
            self._metrics.append(request)
            self._changed.notify_all()


class _Traces(trace_service_pb2_grpc.TraceServiceServicer):
    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver

    def Export(
        self, request: trace_service_pb2.ExportTraceServiceRequest, context: grpc.ServicerContext
    ) -> trace_service_pb2.ExportTraceServiceResponse:
        self._receiver.keep(decode(request), dict(context.invocation_metadata()))
        return trace_service_pb2.ExportTraceServiceResponse()


class _Metrics(metrics_service_pb2_grpc.MetricsServiceServicer):
    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver

    def Export(
        self,
        request: metrics_service_pb2.ExportMetricsServiceRequest,
        context: grpc.ServicerContext,
    ) -> metrics_service_pb2.ExportMetricsServiceResponse:
        self._receiver.keep_metrics(request)
        return metrics_service_pb2.ExportMetricsServiceResponse()
