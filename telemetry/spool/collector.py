"""One call to the collector, and what its answer means for what was sent.

Which answers are worth another try is the OTLP specification's, with two differences: what the
collector refuses because of who asks (a wrong token, a service that is not there) is kept, since
somebody may put it right; and a refused batch is tried in halves, so that one span that cannot be
taken costs no other.
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

from ..channel import open_channel
from ..settings import Otlp

__all__ = ["Answer", "Collector", "Verdict"]

_DETAILS = "grpc-status-details-bin"

#: The request as such is at fault: the same again would not be taken.
_REFUSED = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.ALREADY_EXISTS,
    }
)

#: Somebody must first put something right.
_SLOW = frozenset(
    {
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.NOT_FOUND,
    }
)

#: Passing trouble, or a request that the collector falls over.
_DOUBTFUL = frozenset({grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL})

_RECONNECT = (
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 3000),
)


class Verdict(Enum):
    """What becomes of a batch."""

    DELIVERED = "delivered"
    LATER = "later"
    REFUSED = "refused"


class Answer(NamedTuple):
    """*wait*, in seconds, is what the collector asks for; *rejected* how many spans it left out.

    *slow* says that somebody must first put something right, *doubtful* that the request itself may
    be what the collector fails at, *missing* that it has no such service.
    """

    verdict: Verdict
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
        self._channel = open_channel(target, _RECONNECT)

    def take_spans(self, request: bytes) -> Answer:
        """Send an encoded ``ExportTraceServiceRequest``."""
        try:
            response = self._call("trace", "Trace", ExportTraceServiceResponse, request)
        except Exception as exc:
            return self._failed(exc)
        partial = response.partial_success
        return Answer(
            Verdict.DELIVERED, error=partial.error_message, rejected=partial.rejected_spans
        )

    def take_metrics(self, request: bytes) -> Answer:
        """Send an encoded ``ExportMetricsServiceRequest``."""
        try:
            self._call("metrics", "Metrics", ExportMetricsServiceResponse, request)
        except Exception as exc:
            return self._failed(exc)
        return Answer(Verdict.DELIVERED)

    def _failed(self, error: Exception) -> Answer:
        if isinstance(error, grpc.RpcError):
            return _answer(error, self._target.endpoint)
        # Nothing was sent, nor will be until the settings are other ones.
        return Answer(Verdict.LATER, f"{type(error).__name__}: {error}", slow=True)

    def _call(self, package: str, signal: str, response: Any, request: bytes) -> Any:
        # The request is bytes already, so nothing encodes it.
        method: Any = self._channel.unary_unary(
            f"/opentelemetry.proto.collector.{package}.v1.{signal}Service/Export",
            response_deserializer=response.FromString,
        )
        return method(request, timeout=self._target.timeout, metadata=self._target.headers)


def _answer(error: Any, endpoint: str) -> Answer:
    """Return what *error*, which is a ``grpc.Call`` too, means."""
    code = error.code()
    details = (error.details() or "")[:200]
    said = f"{endpoint} answers {code.name}: {details}"
    if code in _REFUSED or (
        code is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than" in details
    ):
        return Answer(Verdict.REFUSED, said)
    return Answer(
        Verdict.LATER,
        said,
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
