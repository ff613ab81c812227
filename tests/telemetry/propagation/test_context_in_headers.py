"""The context is written into headers and read from them."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import baggage, trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import (
    INVALID_SPAN_CONTEXT,
    NonRecordingSpan,
    get_current_span,
    set_span_in_context,
)

from telemetry.propagation import extract, extract_parent, headers_in, inject, inject_parent
from telemetry.propagation.configured import configured_propagators
from telemetry.tracing.record import ParentContext

from .carriers import GOOD, parent, reproducibly, sent

OTHER = ParentContext(bytes(15) + b"\x01", 2, 1)


def test_names_are_written_in_lower_case() -> None:
    assert set(sent({"TRACEPARENT": GOOD, "TraceState": "a=1", "Baggage": "b=2"})) == {
        "traceparent",
        "tracestate",
        "baggage",
    }


def test_no_span_nothing_written() -> None:
    headers = {"own": "1"}
    inject(headers, Context())
    assert headers == {"own": "1"}


def test_a_carrier_need_do_no_more_than_hold() -> None:
    class Slots:
        """A carrier that can set, delete and find items, and has no other method."""

        def __init__(self) -> None:
            self.items: dict[str, str] = {}

        def __setitem__(self, name: str, value: str) -> None:
            self.items[name] = value

        def __delitem__(self, name: str) -> None:
            del self.items[name]

        def __contains__(self, name: str) -> bool:
            return name in self.items

    carrier: Any = Slots()
    carrier["tracestate"] = "old=1"
    inject(carrier, extract({"traceparent": GOOD}))
    assert carrier.items.keys() == {"traceparent"}


def test_a_carrier_used_again_keeps_no_tracestate_of_before() -> None:
    headers = {"own": "1"}
    inject(headers, extract({"traceparent": GOOD, "tracestate": "a=1"}))
    assert headers["tracestate"] == "a=1"
    inject(headers, extract({"traceparent": GOOD}))
    assert headers == {"own": "1", "traceparent": GOOD}


def test_what_is_current_does_not_get_in() -> None:
    with TracerProvider().get_tracer("test").start_as_current_span("current"):
        assert not trace.get_current_span(extract({})).get_span_context().is_valid


def test_a_wsgi_environment() -> None:
    environ = {"HTTP_TRACEPARENT": GOOD, "HTTP_TRACESTATE": "a=1", "HTTP_BAGGAGE": "b=2", "X": 1}
    assert headers_in(environ) == {"traceparent": GOOD, "tracestate": "a=1", "baggage": "b=2"}


messages = st.dictionaries(
    st.sampled_from(["traceparent", "tracestate", "baggage", "queuehop-sent-at", "x-other"]),
    st.one_of(st.text(max_size=60), st.sampled_from([GOOD, f" {GOOD} ", f"{GOOD}-more", "a=1"])),
)


@pytest.mark.parametrize("setting", ["", "baggage", "tracecontext", "none"])
@reproducibly
@given(headers=messages)
def test_extract_parent_reads_what_extract_reads(setting: str, headers: dict[str, str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_PROPAGATORS", setting)
        configured_propagators.cache_clear()
        found, context = extract_parent(headers)
        extracted = extract(headers)
        expected = parent(headers)
    assert (found.span_context() if found else INVALID_SPAN_CONTEXT) == expected
    assert baggage.get_all(context) == baggage.get_all(extracted)


@pytest.mark.parametrize("headers", [{}, {"tracestate": "a=1"}, {"baggage": "b=2"}])
def test_extract_parent_adds_to_a_context(headers: dict[str, str]) -> None:
    outer = OTHER.span_context()
    context = baggage.set_baggage("a", "1", set_span_in_context(NonRecordingSpan(outer)))
    found, extended = extract_parent(headers, context)
    assert found is None, "the span of the context is not the sender"
    assert get_current_span(extended).get_span_context() == outer
    assert baggage.get_baggage("a", extended) == "1"


@pytest.mark.parametrize("setting", ["", "baggage", "tracecontext", "none"])
@pytest.mark.parametrize(
    "headers",
    [
        {"traceparent": GOOD},
        {"traceparent": GOOD, "tracestate": "1a=b"},
        {"traceparent": GOOD, "baggage": "a=1;p"},
        {"baggage": "a=1"},
        {},
    ],
)
def test_add_context_writes_what_inject_writes(
    monkeypatch: pytest.MonkeyPatch, setting: str, headers: dict[str, str]
) -> None:
    context = extract(headers)
    span = ParentContext.of(parent(headers)) or OTHER
    monkeypatch.setenv("OTEL_PROPAGATORS", setting)
    configured_propagators.cache_clear()
    written: dict[str, str] = {}
    inject(written, set_span_in_context(NonRecordingSpan(span.span_context()), context))
    added: dict[str, str] = {}
    inject_parent(added, span, context)
    assert added == written


def test_fields_are_what_inject_may_write() -> None:
    assert configured_propagators().fields == {"traceparent", "tracestate", "baggage"}
