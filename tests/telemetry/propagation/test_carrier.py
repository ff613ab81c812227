"""Carriers of all kinds, with names in any case and values of any type."""

from email.message import Message
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.context import Context
from requests.structures import CaseInsensitiveDict
from werkzeug.datastructures import EnvironHeaders, Headers

from telemetry.propagation import extract, inject

from .carriers import GOOD, HOSTILE, Hostile, parent, reproducibly


@pytest.mark.parametrize("name", ["Traceparent", "TRACEPARENT", b"traceparent"])
def test_names_have_no_case(name: Any) -> None:
    assert parent({name: GOOD}).is_valid


def test_one_name_in_two_cases_is_two_fields() -> None:
    assert not parent({"traceparent": GOOD, "Traceparent": GOOD}).is_valid


@pytest.mark.parametrize("name", ["trace-parent", "trace.parent", "traceparent ", "HTTP_x"])
def test_other_names_are_not_looked_at(name: str) -> None:
    assert not parent({name: GOOD}).is_valid


MESSAGE = Message()
MESSAGE["Traceparent"] = GOOD
TWICE = Message()
for _ in range(2):
    TWICE["Traceparent"] = GOOD


@pytest.mark.parametrize(
    ("carrier", "valid"),
    [
        pytest.param(Headers([("Traceparent", GOOD)]), True, id="Werkzeug's"),
        pytest.param(Headers([("Traceparent", GOOD)] * 2), False, id="Werkzeug's, twice"),
        pytest.param(
            EnvironHeaders({"HTTP_TRACEPARENT": GOOD}), True, id="Flask's request.headers"
        ),
        pytest.param(CaseInsensitiveDict({"TraceParent": GOOD}), True, id="Requests'"),
        pytest.param(MESSAGE, True, id="the standard library's"),
        pytest.param(TWICE, False, id="the standard library's, twice"),
    ],
)
def test_headers_of_all_makes(carrier: Any, valid: bool) -> None:
    assert parent(carrier).is_valid is valid


def test_headers_of_requests_are_written_over() -> None:
    headers: CaseInsensitiveDict[str] = CaseInsensitiveDict({"TraceParent": "old", "Own": "1"})
    inject(headers, extract({"traceparent": GOOD}))
    assert dict(headers.lower_items()) == {"own": "1", "traceparent": GOOD}


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


names = st.sampled_from(["traceparent", "tracestate", "baggage", "Traceparent"]) | st.text()


@reproducibly
@given(st.dictionaries(names, anything) | anything)
def test_nothing_that_a_carrier_can_be_raises(carrier: Any) -> None:
    goes: dict[str, str] = {}
    inject(goes, extract(carrier))
    assert all(isinstance(value, str) for value in goes.values())


@pytest.mark.parametrize("carrier", HOSTILE)
def test_hostile_carriers(carrier: Any) -> None:
    assert extract(carrier) == Context()
    inject(carrier)
    inject(carrier, extract({"traceparent": GOOD}))


@pytest.mark.parametrize("carrier", HOSTILE)
def test_what_was_there_is_still_there(carrier: Any) -> None:
    context = extract({"traceparent": GOOD, "baggage": "a=1"})
    assert extract(carrier, context) == context


def test_hostile_values() -> None:
    headers = dict.fromkeys(["traceparent", "tracestate", "baggage"], Hostile())
    assert extract(headers) == Context()
    assert extract({**headers, "traceparent": GOOD, b"\xff": Hostile(), Hostile(): 1}) != Context()
