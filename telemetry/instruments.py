"""What the hops count and time: every instrument of the conventions that they use."""

from collections.abc import Callable

from opentelemetry.metrics import Counter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.semconv._incubating.metrics.messaging_metrics import (
    MESSAGING_CLIENT_CONSUMED_MESSAGES,
    MESSAGING_CLIENT_OPERATION_DURATION,
    MESSAGING_CLIENT_SENT_MESSAGES,
    MESSAGING_PROCESS_DURATION,
)
from opentelemetry.semconv.metrics.http_metrics import (
    HTTP_CLIENT_REQUEST_DURATION,
    HTTP_SERVER_REQUEST_DURATION,
)

from .hop import SCHEMA_URL, SCOPE, Attributes, Values, version

__all__ = ["Instruments"]


#: Seconds, as the conventions advise for every duration of theirs.
_DURATIONS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)

#: Seconds: messages wait longer than requests take.
_WAITS = (*_DURATIONS, 30, 60, 300, 900, 3600)

_COUNTERS = {
    MESSAGING_CLIENT_SENT_MESSAGES: "Messages that a producer tried to send.",
    MESSAGING_CLIENT_CONSUMED_MESSAGES: "Messages that were delivered to a task.",
}

_HISTOGRAMS = {
    HTTP_CLIENT_REQUEST_DURATION: ("Duration of HTTP requests sent.", _DURATIONS),
    HTTP_SERVER_REQUEST_DURATION: ("Duration of HTTP requests served.", _DURATIONS),
    MESSAGING_CLIENT_OPERATION_DURATION: ("Duration of a send.", _DURATIONS),
    MESSAGING_PROCESS_DURATION: ("Duration of a run.", _DURATIONS),
    "celery.wait.scheduled": ("Time until a message was due.", _WAITS),
    "celery.wait.queue": ("Time in the broker, once due.", _WAITS),
    "celery.wait.prefetch": ("Time in the worker before a process was free.", _WAITS),
}


class Instruments:
    """The instruments of one *resource*, read by *reader*."""

    def __init__(self, reader: MetricReader, resource: Resource) -> None:
        provider = MeterProvider([reader], resource, shutdown_on_exit=False)
        meter = provider.get_meter(SCOPE, version(), SCHEMA_URL)
        self._record: dict[str, Callable[[float, Attributes], None]] = {}
        for name, description in _COUNTERS.items():
            self._record[name] = _whole(meter.create_counter(name, "{message}", description))
        for name, (description, bounds) in _HISTOGRAMS.items():
            self._record[name] = meter.create_histogram(
                name, "s", description, explicit_bucket_boundaries_advisory=bounds
            ).record

    def record(self, values: Values, attributes: Attributes) -> None:
        """Count or time what *values* names, under *attributes*."""
        for name, value in values.items():
            self._record[name](value, attributes)


def _whole(counter: Counter) -> Callable[[float, Attributes], None]:
    return lambda value, attributes: counter.add(int(value), attributes)
