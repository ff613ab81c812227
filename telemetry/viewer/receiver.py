"""An OTLP/gRPC receiver that keeps what arrives, and lets one wait for it."""

import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Self

import grpc
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from .otlp import grpc_server
from .spans import Span, decode

__all__ = ["Receiver"]

#: More spans than this, and the oldest go.
MAX_SPANS = 100_000

#: Of so many exports it is kept what came with them, and of metrics the requests.
MAX_EXPORTS = 1_000

#: How many spans the error of a wait in vain names.
MAX_NAMED = 50


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
        self._metrics: deque[ExportMetricsServiceRequest] = deque(maxlen=MAX_EXPORTS)
        self._server, bound = grpc_server(
            f"{host}:{port}", self._keep, self._keep_metrics, credentials
        )
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
    def metrics(self) -> list[ExportMetricsServiceRequest]:
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

    def _keep(
        self, request: ExportTraceServiceRequest, metadata: dict[str, Any]
    ) -> tuple[int, str]:
        spans = decode(request)
        with self._changed:
            self._spans.extend(spans)
            self._metadata.append(metadata)
            self._changed.notify_all()
        return 0, ""

    def _keep_metrics(self, request: ExportMetricsServiceRequest) -> None:
        with self._changed:
            self._metrics.append(request)
            self._changed.notify_all()
