"""How one request gets to a collector: what gRPC and HTTP have in common.

A transport sends the bytes of a request and says what the answer means for it. The OTLP
specification decides which answers are worth a retry, with two differences. A batch that the
collector refuses because of the sender (a wrong token, a missing service) is retried, since
somebody may correct that. A batch that it refuses for its contents is halved, so that one span
costs no other.
"""

from enum import Enum
from typing import NamedTuple, Protocol

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from ...config.exporter import Signal

__all__ = ["ExportResult", "Outcome", "Transport", "delivered", "one_line"]


class Outcome(Enum):
    """The outcome of one export."""

    DELIVERED = "delivered"
    RETRY = "retry"
    REFUSED = "refused"


class ExportResult(NamedTuple):
    """The result of one export.

    *rejected* is the number of items that the collector left out, *wait* the seconds that it asks
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


class Transport(Protocol):
    """Sends requests to one target."""

    def send(self, signal: Signal, request: bytes) -> ExportResult:
        """Send *request*, encoded as OTLP has it for *signal*. Does not raise for an answer."""

    def close(self) -> None:
        """Close the connection. A request under way fails, and the next opens another."""

    def hold(self) -> None:
        """Get ready for forks, before the first request."""


def delivered(response: bytes) -> ExportResult:
    """Return what an ``Export…ServiceResponse`` means, of any signal: they differ in names only."""
    try:
        partial = ExportTraceServiceResponse.FromString(response).partial_success
    except DecodeError:  # it was taken all the same
        return ExportResult(Outcome.DELIVERED)
    rejected = max(0, partial.rejected_spans)
    return ExportResult(Outcome.DELIVERED, one_line(partial.error_message), rejected)


def one_line(text: str) -> str:
    """Return what a collector says as it goes into the log, and into the sender's status."""
    return "".join(c if c.isprintable() else " " for c in text[:200])
