"""``traceparent``: each rule of W3C Trace Context Level 2."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import TraceIdRatioBased

from telemetry.propagation import extract, inject
from telemetry.propagation.traceparent import (
    format_links,
    format_traceparent,
    parse_links,
    parse_traceparent,
)
from telemetry.tracing.record import ParentContext

from .carriers import GOOD, SPAN, TRACE, parent, reproducibly, sent


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(GOOD, id="version 00"),
        pytest.param(f" \t{GOOD}\t ", id="white space around it"),
        pytest.param(f"cc-{TRACE}-{SPAN}-01", id="a higher version"),
        pytest.param(f"cc-{TRACE}-{SPAN}-01-what-comes-later", id="a higher version, longer"),
        pytest.param([GOOD], id="one header field"),
        pytest.param(GOOD.encode(), id="bytes"),
        pytest.param([GOOD.encode()], id="one header field, bytes"),
        pytest.param(f"cc-{TRACE}-{SPAN}-01-", id="a higher version, nothing after the dash"),
        pytest.param(f"01-{TRACE}-{SPAN}-ff", id="a higher version, unknown flags"),
    ],
)
def test_taken(value: Any) -> None:
    found = parent({"traceparent": value})
    assert (f"{found.trace_id:032x}", f"{found.span_id:016x}") == (TRACE, SPAN)
    assert found.is_remote
    assert found.trace_flags.sampled


@pytest.mark.parametrize(
    "value",
    [
        pytest.param("", id="empty"),
        pytest.param(f"ff-{TRACE}-{SPAN}-01", id="version ff"),
        pytest.param(f"00-{TRACE}-{SPAN}-01-more", id="version 00, longer"),
        pytest.param(f"cc-{TRACE}-{SPAN}-01.more", id="a higher version, no dash"),
        pytest.param(f"cc-{TRACE}-{SPAN}-011", id="a higher version, long flags"),
        pytest.param(f"0-{TRACE}-{SPAN}-01", id="a short version"),
        pytest.param(f".0-{TRACE}-{SPAN}-01", id="a malformed version"),
        pytest.param(f"00-{'0' * 32}-{SPAN}-01", id="no trace id"),
        pytest.param(f"00-{TRACE}-{'0' * 16}-01", id="no span id"),
        pytest.param(f"00-{TRACE.upper()}-{SPAN}-01", id="upper case"),
        pytest.param(f"00-{TRACE[:-1]}-{SPAN}-01", id="a short trace id"),
        pytest.param(f"00-{TRACE}0-{SPAN}-01", id="a long trace id"),
        pytest.param(f"00-{TRACE}-{SPAN[:-1]}-01", id="a short span id"),
        pytest.param(f"00-{TRACE}-{SPAN}-1", id="short flags"),
        pytest.param(f"00-{TRACE}-{SPAN}-.0", id="malformed flags"),
        pytest.param(f"00-{TRACE}-{SPAN}", id="no flags"),
        pytest.param(f"000-{TRACE}-{SPAN}-01", id="a long version"),
        pytest.param(f"0.-{TRACE}-{SPAN}-01", id="a malformed version, second digit"),
        pytest.param(f"00-.{TRACE[1:]}-{SPAN}-01", id="a malformed trace id"),
        pytest.param(f"00-{TRACE}-.{SPAN[1:]}-01", id="a malformed span id"),
        pytest.param(f"00-{TRACE}-{SPAN}0-01", id="a long span id"),
        pytest.param(f"00-{TRACE}-{SPAN}-001", id="long flags"),
        pytest.param(f"00-{TRACE}-{SPAN}-01-", id="version 00, a dash after it"),
        pytest.param(f"00_{TRACE}_{SPAN}_01", id="other separators"),
        pytest.param(f"{GOOD}\n", id="a line end after it"),
        pytest.param(f"\u3000{GOOD}", id="white space that HTTP does not know"),
        pytest.param(GOOD.replace("0af", "\u0660af"), id="digits that are not ASCII"),
        pytest.param([GOOD, GOOD], id="two header fields"),
        pytest.param([GOOD, "junk"], id="two header fields, one malformed"),
        pytest.param(
            f"cc-{TRACE}-{SPAN}-01-x,cc-{TRACE}-{SPAN}-01", id="two of a higher version, joined"
        ),
        pytest.param(f"{GOOD},{GOOD}", id="two, as a server joins them"),
        pytest.param(["00-" + "x" * 99] * 100, id="a hundred"),
        pytest.param("x" * 1_000_000, id="a million characters"),
        pytest.param(7, id="a number"),
        pytest.param(None, id="nothing"),
        pytest.param({"a": 1}, id="a table"),
    ],
)
def test_a_malformed_one_begins_a_new_trace_without_tracestate(value: Any) -> None:
    carrier = {"traceparent": value, "tracestate": "a=1"}
    assert not parent(carrier).is_valid
    goes = sent(carrier)
    assert TRACE not in goes["traceparent"]
    assert "tracestate" not in goes


@pytest.mark.parametrize(("given", "goes"), [("01", "01"), ("03", "03"), ("ff", "03")])
def test_known_flags_go_on_and_others_are_cleared(given: str, goes: str) -> None:
    assert sent({"traceparent": f"00-{TRACE}-{SPAN}-{given}"})["traceparent"][-2:] == goes


@pytest.mark.parametrize(("given", "goes"), [("00", "00"), ("02", "02")])
def test_not_sampled_goes_on_not_sampled(given: str, goes: str) -> None:
    assert sent({"traceparent": f"00-{TRACE}-{SPAN}-{given}"})["traceparent"][-2:] == goes


def test_a_trace_that_begins_here_says_that_its_id_is_random() -> None:
    assert sent({})["traceparent"][-2:] == "03"


def test_what_goes_on_is_version_00() -> None:
    goes = sent({"traceparent": f"cc-{TRACE}-{SPAN}-01-later"})["traceparent"]
    assert goes.startswith(f"00-{TRACE}-")
    assert len(goes) == 55
    assert SPAN not in goes


@pytest.mark.parametrize("flags", ["00", "01", "02", "03"])
def test_without_a_span_of_our_own_it_goes_on_unchanged(flags: str) -> None:
    given = {"traceparent": f"00-{TRACE}-{SPAN}-{flags}", "tracestate": "1a=b,c= d"}
    goes: dict[str, str] = {}
    inject(goes, extract(given))
    assert goes == given


def test_an_id_that_is_not_random_is_not_called_so() -> None:
    class Counting(RandomIdGenerator):
        def is_trace_id_random(self) -> bool:
            return False

    span = TracerProvider(id_generator=Counting()).get_tracer("test").start_span("root")
    parent = ParentContext.of(span.get_span_context())
    assert parent is not None
    assert format_traceparent(parent)[-2:] == "01"


@pytest.mark.parametrize(
    ("rate", "given", "goes"), [(0, "03", "02"), (0, "01", "00"), (1, "02", "03")]
)
def test_a_decision_of_our_own_changes_the_sampled_flag_alone(
    rate: float, given: str, goes: str
) -> None:
    context = extract({"traceparent": f"00-{TRACE}-{SPAN}-{given}", "tracestate": "1a=b"})
    tracer = TracerProvider(sampler=TraceIdRatioBased(rate)).get_tracer("test")
    headers: dict[str, str] = {}
    inject(headers, trace.set_span_in_context(tracer.start_span("hop", context), context))
    assert headers["traceparent"][-2:] == goes
    assert headers["tracestate"] == "1a=b"


@reproducibly
@given(
    version=st.sampled_from(["00", "01", "cc", "ff", "0"]),
    trace_id=st.one_of(st.integers(0, 2**128 - 1).map("{:032x}".format), st.just("0" * 32)),
    span_id=st.one_of(st.integers(0, 2**64 - 1).map("{:016x}".format), st.just("0" * 16)),
    flags=st.integers(0, 255).map("{:02x}".format),
    more=st.sampled_from(["", "-", "-more", " "]),
    at=st.integers(0, 56),
    instead=st.sampled_from(["", "", "", "0", "A", "a", "_", "-", " ", ",", "\u0661", "00"]),
)
def test_a_traceparent_of_the_usual_form_is_read_as_any_other(
    version: str, trace_id: str, span_id: str, flags: str, more: str, at: int, instead: str
) -> None:
    text = f"{version}-{trace_id}-{span_id}-{flags}{more}"
    if instead:
        text = text[:at] + instead + text[at + 1 :]
    # A list is not read by the fast path.
    assert parse_traceparent(text) == parse_traceparent([text])


def test_links() -> None:
    contexts = [ParentContext(bytes(15) + bytes([number]), number, 0, True) for number in (1, 3)]
    assert parse_links(format_links(contexts)) == contexts
    assert parse_links(f"junk,{GOOD},,{GOOD}x") == [parse_traceparent(GOOD)]
    assert len(parse_links(",".join([GOOD] * 5000))) == 1024
    assert parse_links(GOOD.encode()) == [parse_traceparent(GOOD)]
    for value in (None, 7, {}, [], "x" * 1_000_000):
        assert parse_links(value) == []
    assert parse_links([GOOD, b"junk", f"{GOOD} , {GOOD}", 7]) == [parse_traceparent(GOOD)] * 3
    assert len(parse_links([",".join([GOOD] * 1024)] * 1024)) == 1024
    assert len(parse_links(format_links([contexts[0]] * 5000))) == 1024
