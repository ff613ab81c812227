"""The deliveries of one process, put together."""

from collections.abc import Sequence

from ...config.exporter import SIGNALS, Otlp, Signal, Targets
from ...config.settings import DeliverySettings
from .batch_delivery import BatchDelivery
from .delivery import Delivery, Source
from .metric_delivery import MetricDelivery
from .transport import Transport

#: How many requests of one signal are sent before it is the next signal's turn.
ROUND = 16


class Deliveries:
    """Sends all signals to their *targets*. Signals with the same target share a connection."""

    def __init__(self, targets: Targets, settings: DeliverySettings) -> None:
        opened = {target: open_transport(target) for target in set(targets) if target is not None}
        self.transports = list(opened.values())
        traces, metrics, logs = (opened[target] if target else None for target in targets)
        self.spans = BatchDelivery("TRACES", traces, settings.spans.max_export_batch_size)
        self.metrics = MetricDelivery(metrics, settings.metric_interval)
        self.logs = BatchDelivery("LOGS", logs, settings.logs.max_export_batch_size)
        self.by_signal: dict[Signal, Delivery] = dict(
            zip(SIGNALS, (self.spans, self.metrics, self.logs), strict=True)
        )

    @property
    def failures(self) -> int:
        """How many exports have failed so far."""
        return sum(delivery.failures for delivery in self.by_signal.values())

    @property
    def delivered_at(self) -> float:
        """The time of the last delivery, on the monotonic clock."""
        return max(delivery.delivered_at for delivery in self.by_signal.values())

    def hurry(self) -> None:
        """Send at the next call of ``deliver``, unless a collector asked for time."""
        for delivery in self.by_signal.values():
            delivery.hurry()

    def deliver(self, sources: Sequence[Source]) -> bool:
        """Send what waits, for a while. Return whether there is more to send at once."""
        more = all(self.spans.deliver(sources) for _ in range(ROUND))
        more |= all(self.logs.deliver(sources) for _ in range(ROUND))
        self.metrics.deliver(sources, self.spans.dropped)
        return more


def open_transport(target: Otlp) -> Transport:
    """Return a transport to *target*. Raises ImportError if its library is missing or broken."""
    # Load only the library that is used.
    if target.protocol == "grpc":
        from .grpc_transport import GrpcTransport

        return GrpcTransport(target)
    from .http_transport import HttpTransport

    return HttpTransport(target)
