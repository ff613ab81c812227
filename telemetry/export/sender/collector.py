"""One call to the collector, and what its answer means for the batch.

The OTLP specification decides which answers are worth a retry, with two differences. A batch that
the collector refuses because of the sender (a wrong token, a missing service) is retried, since
somebody may correct that. A batch that it refuses for its contents is halved, so that one span
costs no other.
"""

from enum import Enum
from typing import Any, NamedTuple

import grpc
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status as RpcStatus
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from ...config.exporter import Otlp
from ..channel import open_channel

__all__ = ["Collector", "ExportResult", "Outcome"]

_DETAILS = "grpc-status-details-bin"

#: The request is at fault: the collector would refuse it again.
_REFUSED = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.ALREADY_EXISTS,
    }
)

#: Somebody must first correct something.
_SLOW = frozenset(
    {
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.NOT_FOUND,
    }
)

#: A passing failure, or a request that makes the collector fail.
_DOUBTFUL = frozenset({grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL})

_RECONNECT = (
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 3000),
)


class Outcome(Enum):
    """The outcome of one export."""

    DELIVERED = "delivered"
    RETRY = "retry"
    REFUSED = "refused"


class ExportResult(NamedTuple):
    """The result of one export.

    *rejected* is the number of spans that the collector left out, *wait* the seconds that it asks
    for. *slow*: somebody must first correct something. *doubtful*: the request itself may be the
    reason. *missing*: the collector lacks the service.
    """

    outcome: Outcome
    error: str = ""
    rejected: int = 0
    wait: float | None = None
    slow: bool = False
    doubtful: bool = False
    missing: bool = False


class Collector:
    """The collector at *target*, for traces and metrics."""

    def __init__(self, target: Otlp) -> None:
        self._target = target
        self._channel: grpc.Channel | None = None

    def export_spans(self, request: bytes) -> ExportResult:
        """Send an encoded ``ExportTraceServiceRequest``."""
        try:
            response = self._call("trace", "Trace", ExportTraceServiceResponse, request)
        except Exception as exc:
            return self._failed(exc)
        partial = response.partial_success
        return ExportResult(
            Outcome.DELIVERED,
            error=_one_line(partial.error_message),
            rejected=max(0, partial.rejected_spans),
        )

    def export_metrics(self, request: bytes) -> ExportResult:
        """Send an encoded ``ExportMetricsServiceRequest``."""
        try:
            self._call("metrics", "Metrics", ExportMetricsServiceResponse, request)
        except Exception as exc:
            return self._failed(exc)
        return ExportResult(Outcome.DELIVERED)

    def close(self) -> None:
        """Close the channel. An export under way fails, and the next one opens another."""
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()

    def _failed(self, error: Exception) -> ExportResult:
        if isinstance(error, grpc.RpcError):
            return _result(error, self._target.endpoint)
        # Nothing was sent, and nothing will be until the settings change.
        return ExportResult(Outcome.RETRY, f"{type(error).__name__}: {error}", slow=True)

    def _call(self, package: str, signal: str, response: Any, request: bytes) -> Any:
        # The request is bytes already, so nothing encodes it.
        if self._channel is None:
            self._channel = open_channel(self._target, _RECONNECT)
        method: Any = self._channel.unary_unary(
            f"/opentelemetry.proto.collector.{package}.v1.{signal}Service/Export",
            response_deserializer=response.FromString,
        )
        return method(request, timeout=self._target.timeout, metadata=self._target.headers)


def _one_line(text: str) -> str:
    """Return what a collector says as it goes into the log, and into the sender's status."""
    return "".join(c if c.isprintable() else " " for c in text[:200])


def _result(error: Any, endpoint: str) -> ExportResult:
    """Return what *error*, which is a ``grpc.Call`` too, means."""
    code = error.code()
    details = _one_line(error.details() or "")
    text = f"{endpoint} answers {code.name}: {details}"
    if code in _REFUSED or (
        code is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than" in details
    ):
        return ExportResult(Outcome.REFUSED, text)
    return ExportResult(
        Outcome.RETRY,
        text,
        wait=_retry_delay(error),
        slow=code in _SLOW,
        doubtful=code in _DOUBTFUL,
        missing=code is grpc.StatusCode.UNIMPLEMENTED,
    )


def _retry_delay(error: Any) -> float | None:
    """Return the seconds of a ``RetryInfo`` among the details of *error*."""
    for key, value in error.trailing_metadata() or ():
        if key == _DETAILS:
            try:
                details = RpcStatus.FromString(value).details
            except Exception:
                return None
            info = RetryInfo()
            for detail in details:
                if detail.Unpack(info):
                    delay: float = info.retry_delay.ToTimedelta().total_seconds()
                    return max(0.0, delay)
    return None
