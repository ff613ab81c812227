"""From an interpreted record to its measurements. Pure, like ``interpret``.

The metrics are those of OpenTelemetry's semantic conventions for HTTP and for messaging, and the
three waits of a run.
"""

from collections.abc import Sequence
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

__all__ = ["Measurement", "Series", "measurement"]


class Series:
    """Instruments that are measured together, under one set of *attributes*, their *key*.

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
    if isinstance(facts, RunFacts):
        if facts.eager or not facts.measured:
            return None
        instruments = _RUN if CELERY_WAIT_QUEUE in attributes else _RUN_UNSENT
        values = (facts.messages or 1, seconds, *[attributes[name] for name in instruments[2:]])
        queue = attributes.get(MESSAGING_DESTINATION_NAME)
        series = _messages(template, instruments, queue, facts.error, facts.state)
        return Measurement(series, values, exemplar)
    if isinstance(facts, SendFacts):
        series = _messages(template, _SEND, facts.queue, facts.error)
        return Measurement(series, (1, seconds), exemplar)
    if isinstance(facts, ServerFacts):
        series = _requests(_SERVED, _OF_A_SERVER, tuple(map(attributes.get, _OF_A_SERVER)))
        return Measurement(series, (seconds,), exemplar)
    if isinstance(facts, ClientFacts):
        series = _requests(_SENT, _OF_A_CLIENT, tuple(map(attributes.get, _OF_A_CLIENT)))
        return Measurement(series, (seconds,), exemplar)
    return None


_SEND = (MESSAGING_CLIENT_SENT_MESSAGES, MESSAGING_CLIENT_OPERATION_DURATION)
_RUN_COUNT = (MESSAGING_CLIENT_CONSUMED_MESSAGES, MESSAGING_PROCESS_DURATION)
_RUN_UNSENT = (*_RUN_COUNT, CELERY_WAIT_SCHEDULED, CELERY_WAIT_PREFETCH)
_RUN = (*_RUN_COUNT, CELERY_WAIT_SCHEDULED, CELERY_WAIT_QUEUE, CELERY_WAIT_PREFETCH)

_SERVED, _SENT = (HTTP_SERVER_REQUEST_DURATION,), (HTTP_CLIENT_REQUEST_DURATION,)

#: The attributes of a message's metrics, besides its queue: those with few values.
_OF_A_MESSAGE = (
    *(MESSAGING_SYSTEM, MESSAGING_OPERATION_NAME, SERVER_ADDRESS, SERVER_PORT, CELERY_TASK_NAME),
)
_OF_A_SERVER = (
    *(HTTP_REQUEST_METHOD, URL_SCHEME, NETWORK_PROTOCOL_VERSION, HTTP_ROUTE),
    *(HTTP_RESPONSE_STATUS_CODE, ERROR_TYPE),
)
_OF_A_CLIENT = (
    *(HTTP_REQUEST_METHOD, SERVER_ADDRESS, SERVER_PORT, HTTP_RESPONSE_STATUS_CODE, ERROR_TYPE),
)


@lru_cache(maxsize=1024)
def _messages(
    template: SpanTemplate,
    instruments: Sequence[str],
    queue: str | None,
    error: str | None,
    state: str | None = None,
) -> Series:
    static = template.static_attributes
    attributes = {name: static[name] for name in _OF_A_MESSAGE if name in static}
    if queue:
        attributes[MESSAGING_DESTINATION_NAME] = queue
    if error:
        attributes[ERROR_TYPE] = error
    if state:  # an error that is retried is another than one that is final
        attributes[CELERY_TASK_STATE] = state
    return Series(instruments, attributes)


@lru_cache(maxsize=1024)
def _requests(instruments: Sequence[str], names: Sequence[str], values: Sequence[Any]) -> Series:
    pairs = zip(names, values, strict=True)
    return Series(instruments, {name: value for name, value in pairs if value is not None})
