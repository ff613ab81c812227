"""Requests over gRPC."""

from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status as RpcStatus
from grpc import StatusCode as Code

from ...config.exporter import Otlp, Signal
from .transport import ExportResult, Outcome, Transport, delivered, one_line

_METHODS: dict[Signal, str] = {
    "TRACES": "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    "METRICS": "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
    "LOGS": "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
}

_DETAILS = "grpc-status-details-bin"

#: The request is the reason: the collector would refuse it again.
_REFUSED = (Code.INVALID_ARGUMENT, Code.FAILED_PRECONDITION, Code.ALREADY_EXISTS)

#: Somebody must first correct something.
_SLOW = (Code.UNAUTHENTICATED, Code.PERMISSION_DENIED, Code.UNIMPLEMENTED, Code.NOT_FOUND)

#: A passing failure, or a request that makes the collector fail.
_DOUBTFUL = (Code.UNKNOWN, Code.INTERNAL)

_RECONNECT = (
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 3000),
)


class GrpcTransport(Transport):
    """A channel to *target*. It sends bytes, without generated stubs."""

    def __init__(self, target: Otlp) -> None:
        super().__init__(target)
        self._channel: grpc.Channel | None = None
        self._held: grpc.Channel | None = None

    def send(self, signal: Signal, request: bytes) -> ExportResult:
        if self._channel is None:
            self._channel = open_channel(self.target, _RECONNECT)
        method: Any = self._channel.unary_unary(_METHODS[signal])
        try:
            response = method(request, timeout=self.target.timeout, metadata=self.target.headers)
        except grpc.RpcError as exc:
            return _result(exc, self.target.endpoint)
        return delivered(response)

    def close(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()

    def hold(self) -> None:
        """Open a channel that is never used. While it is open, gRPC does not shut itself down.

        gRPC shuts down when its last channel is closed, in a thread of its own and under a lock. A
        child that is forked at that moment may wait for the lock forever. While gRPC is up, its
        own fork support carries its threads across a fork.
        """
        if self._held is None:
            self._held = open_channel(self.target)


def open_channel(target: Otlp, options: tuple[tuple[str, int], ...] = ()) -> grpc.Channel:
    """Open a channel to *target*. All channels to one address share a connection."""
    compression = grpc.Compression.Gzip if target.gzip else grpc.Compression.NoCompression
    if target.insecure:
        return grpc.insecure_channel(target.endpoint, options, compression)
    tls = grpc.ssl_channel_credentials(
        target.certificate, target.client_key, target.client_certificate
    )
    return grpc.secure_channel(target.endpoint, tls, options, compression)


def _result(error: Any, endpoint: str) -> ExportResult:
    """Return the result of *error*, a ``grpc.RpcError`` that is a ``grpc.Call`` too."""
    code = error.code()
    details = one_line(error.details() or "")
    text = f"{endpoint} answers {code.name}: {details}"
    if code in _REFUSED or (code is Code.RESOURCE_EXHAUSTED and "larger than" in details):
        return ExportResult(Outcome.REFUSED, text)
    return ExportResult(
        Outcome.RETRY,
        text,
        wait=_retry_delay(error),
        slow=code in _SLOW,
        doubtful=code in _DOUBTFUL,
        missing=code is Code.UNIMPLEMENTED,
    )


def _retry_delay(error: Any) -> float | None:
    """Return the seconds of a ``RetryInfo`` among the details of *error*."""
    info = RetryInfo()
    try:
        status = RpcStatus.FromString(dict(error.trailing_metadata() or ()).get(_DETAILS, b""))
        if not any(detail.Unpack(info) for detail in status.details):
            return None
    except DecodeError:
        return None
    delay: float = info.retry_delay.ToTimedelta().total_seconds()
    return max(0.0, delay)
