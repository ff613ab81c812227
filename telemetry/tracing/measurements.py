"""From an interpreted record to its measurements. Pure, like ``interpret``.

The metrics are those of OpenTelemetry's semantic conventions for HTTP and for messaging, and the
three waits of a run.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from opentelemetry.semconv._incubating.attributes.messaging_attributes import (
    MESSAGING_DESTINATION_NAME,
    MESSAGING_OPERATION_NAME,
    MESSAGING_SYSTEM,
)
from opentelemetry.semconv._incubating.metrics.messaging_metrics import (
    MESSAGING_CLIENT_CONSUMED_MESSAGES,
    MESSAGING_CLIENT_OPERATION_DURATION,
    MESSAGING_CLIENT_SENT_MESSAGES,
    MESSAGING_PROCESS_DURATION,
)
from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE
from opentelemetry.semconv.attributes.http_attributes import (
    HTTP_REQUEST_METHOD,
    HTTP_RESPONSE_STATUS_CODE,
    HTTP_ROUTE,
)
from opentelemetry.semconv.attributes.network_attributes import NETWORK_PROTOCOL_VERSION
from opentelemetry.semconv.attributes.server_attributes import SERVER_ADDRESS, SERVER_PORT
from opentelemetry.semconv.attributes.url_attributes import URL_SCHEME
from opentelemetry.semconv.metrics.http_metrics import (
    HTTP_CLIENT_REQUEST_DURATION,
    HTTP_SERVER_REQUEST_DURATION,
)

from .interpret import CELERY_TASK_NAME, CELERY_TASK_STATE, Attributes
from .record import ClientFacts, Record, RunFacts, SendFacts, ServerFacts, SpanTemplate
from .waits import CELERY_WAIT_PREFETCH, CELERY_WAIT_QUEUE, CELERY_WAIT_SCHEDULED


class Series:
    """Instruments that are measured together, with the same *attributes*, and the *key* of these.

    Compared by identity, so that an aggregation finds it fast. Raises TypeError for a list among
    the attributes.
    """

    __slots__ = ("attributes", "instruments", "key")

    def __init__(self, instruments: Sequence[str], attributes: Attributes) -> None:
        self.instruments = instruments
        self.attributes = attributes
        self.key = frozenset(attributes.items())


class Measurement(NamedTuple):
    """One value for each instrument of a series: a count, or seconds.

    *exemplar* is the trace id, the span id and the end of the span if it is sampled.
    """

    series: Series
    values: Sequence[float]
    exemplar: tuple[bytes, int, int] | None = None


def measurement(
    template: SpanTemplate, record: Record, attributes: Attributes
) -> Measurement | None:
    """Return what *record* measured, None if nothing. *attributes* are its facts', interpreted."""
    facts = record.facts
    seconds = max(0.0, (record.end_time - record.start_time) / 1e9)
    exemplar = None
    if record.flags & Record.SAMPLED:
        exemplar = record.trace_id, record.span_id, record.end_time
    instruments: Sequence[str]
    values: Sequence[float]
    if isinstance(facts, RunFacts):
        if facts.eager or not facts.measured:
            return None
        instruments = _RUN if CELERY_WAIT_QUEUE in attributes else _RUN_WITHOUT_QUEUE_WAIT
        waited = [attributes[name] for name in instruments[2:]]
        values = (facts.messages or 1, seconds, *waited)
    elif isinstance(facts, SendFacts):
        instruments, values = _SEND, (1, seconds)
    elif isinstance(facts, ServerFacts):
        instruments, values = _SERVED, (seconds,)
    elif isinstance(facts, ClientFacts):
        instruments, values = _SENT, (seconds,)
    else:
        return None
    named = tuple(map(attributes.get, _NAMES[type(facts)]))
    return Measurement(_series(template, instruments, type(facts), named), values, exemplar)


_SEND = (MESSAGING_CLIENT_SENT_MESSAGES, MESSAGING_CLIENT_OPERATION_DURATION)
_RUN_ALWAYS = (MESSAGING_CLIENT_CONSUMED_MESSAGES, MESSAGING_PROCESS_DURATION)
_RUN_WITHOUT_QUEUE_WAIT = (*_RUN_ALWAYS, CELERY_WAIT_SCHEDULED, CELERY_WAIT_PREFETCH)
_RUN = (*_RUN_ALWAYS, CELERY_WAIT_SCHEDULED, CELERY_WAIT_QUEUE, CELERY_WAIT_PREFETCH)

_SERVED, _SENT = (HTTP_SERVER_REQUEST_DURATION,), (HTTP_CLIENT_REQUEST_DURATION,)

#: The attributes of a metric that are the same for all spans of a hop: those with few values.
_STATIC = (
    *(MESSAGING_SYSTEM, MESSAGING_OPERATION_NAME, SERVER_ADDRESS, SERVER_PORT, CELERY_TASK_NAME),
)

#: The others. An error that is retried has another state than one that is final.
_NAMES: Mapping[type, Sequence[str]] = {
    SendFacts: (MESSAGING_DESTINATION_NAME, ERROR_TYPE),
    RunFacts: (MESSAGING_DESTINATION_NAME, ERROR_TYPE, CELERY_TASK_STATE),
    ServerFacts: (
        *(HTTP_REQUEST_METHOD, URL_SCHEME, NETWORK_PROTOCOL_VERSION, HTTP_ROUTE),
        *(HTTP_RESPONSE_STATUS_CODE, ERROR_TYPE),
    ),
    ClientFacts: (
        *(HTTP_REQUEST_METHOD, SERVER_ADDRESS, SERVER_PORT, HTTP_RESPONSE_STATUS_CODE, ERROR_TYPE),
    ),
}


@lru_cache(maxsize=1024)
def _series(
    template: SpanTemplate, instruments: Sequence[str], facts: type, values: Sequence[Any]
) -> Series:
    static = template.static_attributes
    attributes = {name: static[name] for name in _STATIC if name in static}
    pairs = zip(_NAMES[facts], values, strict=True)
    attributes |= {name: value for name, value in pairs if value is not None}
    return Series(instruments, attributes)
