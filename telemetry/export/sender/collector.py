"""The collector, as the deliveries see it: one call for each signal, over gRPC or HTTP."""

from ...config.exporter import Otlp, Signal
from .transport import ExportResult, Outcome, Transport

__all__ = ["Collector", "ExportResult", "Outcome"]


class Collector:
    """The collector at *target*, for traces, metrics and logs."""

    def __init__(self, target: Otlp) -> None:
        self._transport = _transport(target)

    def export_spans(self, request: bytes) -> ExportResult:
        """Send an encoded ``ExportTraceServiceRequest``."""
        return self._send("TRACES", request)

    def export_metrics(self, request: bytes) -> ExportResult:
        """Send an encoded ``ExportMetricsServiceRequest``."""
        return self._send("METRICS", request)

    def export_logs(self, request: bytes) -> ExportResult:
        """Send an encoded ``ExportLogsServiceRequest``."""
        return self._send("LOGS", request)

    def hold(self) -> None:
        """Get ready for forks, before the first export."""
        self._transport.hold()

    def close(self) -> None:
        """Close the connection. An export under way fails, and the next one opens another."""
        self._transport.close()

    def _send(self, signal: Signal, request: bytes) -> ExportResult:
        try:
            return self._transport.send(signal, request)
        except Exception as exc:
            # Nothing was sent, and nothing will be until the settings change.
            return ExportResult(Outcome.RETRY, f"{type(exc).__name__}: {exc}", slow=True)


def _transport(target: Otlp) -> Transport:
    """Return the transport of *target*. It connects with the first request.

    Raises ImportError where its library is missing or broken.
    """
    # Whoever uses one of them does not load the other.
    if target.protocol == "grpc":
        from .grpc_transport import GrpcTransport

        return GrpcTransport(target)
    from .http_transport import HttpTransport

    return HttpTransport(target)
