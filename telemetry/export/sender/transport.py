"""How one request reaches a collector, over gRPC or HTTP, and what its answer means.

The OTLP specification defines which answers are worth a retry. There are two differences here. If
the collector refuses a request because of the sender (a wrong token, a missing service), the sender
retries, since somebody may correct that. If the collector refuses the contents, the sender halves
the request, so that one bad span does not affect the others.
"""

from abc import ABC, abstractmethod
from enum import Enum
from typing import NamedTuple

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from ...config.exporter import Otlp, Signal

#: Words of at least this many characters in the values of headers are masked in log lines.
SHORTEST_SECRET = 8


class Outcome(Enum):
    """The outcome of one export."""

    DELIVERED = "delivered"
    RETRY = "retry"
    REFUSED = "refused"


class ExportResult(NamedTuple):
    """The result of one export."""

    outcome: Outcome
    error: str = ""
    #: How many items the collector left out.
    rejected: int = 0
    #: The seconds that the collector asks for before the next request.
    wait: float | None = None
    #: Whether somebody must correct something first.
    slow: bool = False
    #: Whether the request itself may be the reason.
    doubtful: bool = False
    #: Whether the collector has no service for the signal.
    missing: bool = False


class Transport(ABC):
    """Sends requests to *target*. It connects with the first request."""

    def __init__(self, target: Otlp) -> None:
        self.target = target

    def export(self, signal: Signal, request: bytes) -> ExportResult:
        """Send *request*, encoded as OTLP has it for *signal*. Never raises."""
        try:
            result = self.send(signal, request)
        except Exception as exc:
            # The request was not sent, and will not be until the settings change.
            result = ExportResult(Outcome.RETRY, f"{type(exc).__name__}: {exc}", slow=True)
        return result._replace(error=self._without_secrets(result.error))

    def _without_secrets(self, error: str) -> str:
        """Return *error* without the values of headers: a collector may repeat a wrong token."""
        words = " ".join(value for _, value in self.target.headers).split()
        for word in words:
            if len(word) >= SHORTEST_SECRET:
                error = error.replace(word, "***")
        return error

    @abstractmethod
    def send(self, signal: Signal, request: bytes) -> ExportResult:
        """Send *request*. Raises only if the settings are unusable."""

    @abstractmethod
    def close(self) -> None:
        """Close the connection. An export under way fails, and the next one opens another."""

    def hold(self) -> None:  # noqa: B027  # not every transport needs it
        """Get ready for forks, before the first request."""


def delivered(response: bytes) -> ExportResult:
    """Return the result of an ``Export…ServiceResponse``. All signals encode it the same way."""
    try:
        partial = ExportTraceServiceResponse.FromString(response).partial_success
    except DecodeError:  # the collector has accepted the request
        return ExportResult(Outcome.DELIVERED)
    rejected = max(0, partial.rejected_spans)
    return ExportResult(Outcome.DELIVERED, one_line(partial.error_message), rejected)


def one_line(text: str) -> str:
    """Return *text* from a collector as one short line, for the log and the sender's status."""
    return "".join(c if c.isprintable() else " " for c in text[:200])
