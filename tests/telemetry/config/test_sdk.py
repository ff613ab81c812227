"""Each use of a private name of the SDK is guarded, logged once, and has a fallback."""

import logging
from typing import Any

import pytest
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider

from telemetry.config import sdk
from telemetry.config.sdk import remove_span_processor, span_processors


class Others(TracerProvider):
    """A provider with other internals."""

    def __init__(self, **attributes: Any) -> None:
        vars(self).update(attributes)


class Fixed:
    """Processors that cannot be exchanged."""

    __slots__ = ()
    _span_processors = (SpanProcessor(),)


@pytest.fixture(autouse=True)
def log_anew(caplog: pytest.LogCaptureFixture) -> None:
    sdk._log_missing.cache_clear()
    caplog.set_level(logging.INFO, "telemetry")


def test_a_processor_is_removed(request: pytest.FixtureRequest) -> None:
    provider, first, second = TracerProvider(), SpanProcessor(), SpanProcessor()
    provider.add_span_processor(first)
    provider.add_span_processor(second)
    if span_processors(provider) is None:
        pytest.skip("with QUEUEHOP_TEST_NO_SDK_INTERNALS")
    remove_span_processor(provider, first)
    assert span_processors(provider) == (second,)


@pytest.mark.parametrize(
    "provider",
    [
        Others(),
        Others(_active_span_processor=None),
        Others(_active_span_processor=object()),
        Others(_active_span_processor=Fixed()),
    ],
)
def test_other_internals_are_logged_once_and_stop_nothing(
    provider: TracerProvider, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        remove_span_processor(provider, Fixed._span_processors[0])
    assert len(caplog.messages) <= 1
    assert all("cannot be listed or removed" in line for line in caplog.messages)


def test_processors_in_a_list_are_not_known() -> None:
    assert span_processors(Others(_active_span_processor=Lists())) is None


class Lists:
    _span_processors: list[SpanProcessor] = []  # noqa: RUF012
