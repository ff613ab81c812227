"""The headers of a Celery message that carry the trace."""

from typing import Any

import pytest

from telemetry.propagation.message import trace_headers

from .carriers import GOOD

OURS = {
    "traceparent": GOOD,
    "tracestate": "a=1",
    "baggage": "b=2",
    "queuehop-sent-at": "1.5",
    "queuehop-links": GOOD,
    "queuehop-relation": "link",
}


@pytest.mark.parametrize(
    ("message", "headers"),
    [
        pytest.param({"id": "1", **OURS}, OURS, id="protocol 2"),
        pytest.param({"id": "1", "headers": {"own": "1", **OURS}}, OURS, id="protocol 1"),
        pytest.param(
            {"baggage": "b=2", "headers": {"traceparent": GOOD}}, {"baggage": "b=2"}, id="both"
        ),
        pytest.param(
            {"Traceparent": GOOD, "TRACESTATE": "a=1", "headers": {"own": "1"}},
            {"traceparent": [GOOD], "tracestate": ["a=1"]},
            id="in another case",
        ),
        pytest.param(
            {"headers": {"TraceParent": GOOD}}, {"traceparent": [GOOD]}, id="protocol 1, likewise"
        ),
        pytest.param({"id": "1", "headers": None}, {}, id="no headers"),
        pytest.param({"id": "1", "headers": "x"}, {}, id="headers that are no table"),
        pytest.param({}, {}, id="nothing"),
    ],
)
def test_they_are_found_where_the_protocol_puts_them(
    message: dict[str, Any], headers: dict[str, Any]
) -> None:
    found = trace_headers(message)
    assert {name: found[name] for name in OURS if name in found} == headers
