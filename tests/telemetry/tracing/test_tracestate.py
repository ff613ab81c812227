"""``tracestate``: each rule of W3C Trace Context Level 2."""

import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import Decision, ParentBased, Sampler, SamplingResult
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState

from telemetry.propagation import extract, inject
from telemetry.tracing.tracestate import HeaderTraceState, format_tracestate

from ..propagation.carriers import GOOD, TRACE, parent, reproducibly, sent

VALUE = " !\"#$%&'()*+-./:;<>?@[\\]^_`{|}~"
MEMBERS = ",".join(f"bar{n:02}=x" for n in range(32))


@pytest.mark.parametrize(
    ("given", "goes"),
    [
        pytest.param("foo=1,bar=2", "foo=1,bar=2", id="order is kept"),
        pytest.param("foo=1 \t , \t bar=2", "foo=1,bar=2", id="white space"),
        pytest.param(" foo=1", "foo=1", id="white space before"),
        pytest.param("foo=1,,bar=2,", "foo=1,bar=2", id="empty members"),
        pytest.param(["foo=1", "bar=2"], "foo=1,bar=2", id="two header fields"),
        pytest.param("1a=b", "1a=b", id="a digit first"),
        pytest.param("a@b@c=1", "a@b@c=1", id="more than one at"),
        pytest.param("a-_*/b=1", "a-_*/b=1", id="all that a key may have"),
        pytest.param("z" * 256 + "=1", "z" * 256 + "=1", id="a key of 256"),
        pytest.param("a=" + "z" * 256, "a=" + "z" * 256, id="a value of 256"),
        pytest.param(f"a={VALUE}", f"a={VALUE}", id="all that a value may have"),
        pytest.param(MEMBERS, MEMBERS, id="32 members"),
        pytest.param("foo=1,foo=2", "foo=1", id="a key twice"),
        pytest.param(["foo=1", "foo=1"], "foo=1", id="a key twice, in two header fields"),
        pytest.param("foo@=1,bar=2", "foo@=1,bar=2", id="an at last"),
        pytest.param("t" * 242 + "@v=1", "t" * 242 + "@v=1", id="a tenant of 242"),
        pytest.param("t@" + "v" * 15 + "=1", "t@" + "v" * 15 + "=1", id="a system of 15"),
        pytest.param("foo=  1", "foo=  1", id="a value that begins with spaces"),
        pytest.param("foo=1 2", "foo=1 2", id="a space in a value"),
        pytest.param(["", "foo=1"], "foo=1", id="an empty header field first"),
        pytest.param(["foo=1", " \t"], "foo=1", id="a blank header field last"),
        pytest.param([b"foo=1", "bar=2"], "foo=1,bar=2", id="bytes"),
        pytest.param(MEMBERS + ",,", MEMBERS, id="32 members and empty ones"),
    ],
)  # fmt: skip
def test_goes_on_to_the_letter(given: Any, goes: str) -> None:
    assert sent({"traceparent": GOOD, "tracestate": given})["tracestate"] == goes


@pytest.mark.parametrize(
    "given",
    [
        pytest.param("", id="empty"),
        pytest.param("foo=", id="an empty value"),
        pytest.param("foo", id="no value"),
        pytest.param("=1", id="no key"),
        pytest.param("foo =1", id="a space in a key"),
        pytest.param("FOO=1", id="upper case"),
        pytest.param("_foo=1", id="a key that begins with no letter or digit"),
        pytest.param("z" * 257 + "=1", id="a key of 257"),
        pytest.param("a=" + "z" * 257, id="a value of 257"),
        pytest.param("foo=bar=baz", id="an equals sign in a value"),
        pytest.param("foo=caf\u00e9", id="not ASCII"),
        pytest.param(MEMBERS + ",one=more", id="33 members"),
        pytest.param("good=1,b\x00d=2", id="one malformed member"),
        pytest.param("foo.bar=1", id="a dot in a key"),
        pytest.param("@foo=1,bar=2", id="a key that begins with an at"),
        pytest.param("foo=1\t2", id="a tab in a value"),
        pytest.param("foo=1\n", id="a line end"),
        pytest.param("foo= ", id="a blank value"),
        pytest.param(["foo=1", "BAD=2"], id="one malformed header field"),
        pytest.param([MEMBERS, "one=more"], id="33 members in two header fields"),
        pytest.param("," * 1_000_000 + "a=1", id="a million commas"),
        pytest.param(7, id="a number"),
    ],
)
def test_a_malformed_one_is_dropped_whole_and_the_trace_goes_on(given: Any) -> None:
    goes = sent({"traceparent": GOOD, "tracestate": given})
    assert goes["traceparent"].startswith(f"00-{TRACE}-")
    assert "tracestate" not in goes


def test_a_long_one_loses_its_long_members_first_and_then_the_last() -> None:
    members = [f"a{n:02}={'x' * 250}" for n in range(31)] + [f"b00={'y' * 90}"]
    given = ",".join(f"{member}" for member in members)
    assert sent({"traceparent": GOOD, "tracestate": given})["tracestate"] == given
    longer = [f"c{n:02}{'c' * 150}={'x' * 250}" for n in range(31)] + [f"b00={'y' * 90}"]
    goes = sent({"traceparent": GOOD, "tracestate": ",".join(longer)})["tracestate"]
    assert 512 <= len(goes) <= 8192
    assert goes.split(",")[-1] == longer[-1]
    assert goes.split(",")[:-1] == longer[: len(goes.split(",")) - 1]


def test_one_that_is_changed_puts_the_member_in_front() -> None:
    state = parent({"traceparent": GOOD, "tracestate": "1a=b,c=d"}).trace_state
    assert state.add("x", "1").to_header() == "x=1,1a=b,c=d"
    assert state.update("c", "2").to_header() == "c=2,1a=b"
    assert state.delete("1a").to_header() == "c=d"
    assert state.add("c", "2") is state
    assert state.update("Bad", "2") is state


def test_a_33rd_member_drives_out_the_last() -> None:
    state = parent({"traceparent": GOOD, "tracestate": MEMBERS}).trace_state
    members = state.add("new", "1").to_header().split(",")
    assert members == ["new=1", *MEMBERS.split(",")[:-1]]
    assert len(state.update("bar31", "y")) == 32


@pytest.mark.parametrize(
    ("key", "value"),
    [("A", "1"), ("a", ""), ("a", "1 "), ("a", "b=c"), ("a=b", "c"), ("a", 1), (1, "a")],
)
def test_nothing_malformed_gets_in(key: Any, value: Any) -> None:
    state = parent({"traceparent": GOOD, "tracestate": "1a=b"}).trace_state
    assert state.add(key, value) is state
    assert state.update(key, value) is state


def test_all_changes_in_a_row_keep_what_others_have_written() -> None:
    state = parent({"traceparent": GOOD, "tracestate": "1a=b,c@d@e= f,g=h"}).trace_state
    state = state.add("x", "1").update("x", "2").update("g", "i").delete("x").delete("none")
    assert state.to_header() == "g=i,1a=b,c@d@e= f"
    assert dict(state) == {"g": "i", "1a": "b", "c@d@e": " f"}
    assert pickle.loads(pickle.dumps(state)).to_header() == state.to_header()


def test_a_sampler_may_change_it() -> None:
    class Marking(Sampler):
        def should_sample(self, parent_context: Any, *args: Any, **_: Any) -> SamplingResult:
            state = trace.get_current_span(parent_context).get_span_context().trace_state
            return SamplingResult(Decision.RECORD_AND_SAMPLE, None, state.update("ot", "th:0"))

        def get_description(self) -> str:
            return "marking"

    sampler = ParentBased(Marking(), remote_parent_sampled=Marking())
    tracer = TracerProvider(sampler=sampler).get_tracer("test")
    context = extract({"traceparent": GOOD, "tracestate": "1a=b,ot=th:8,c=d"})
    headers: dict[str, str] = {}
    inject(headers, trace.set_span_in_context(tracer.start_span("hop", context), context))
    assert headers["tracestate"] == "ot=th:0,1a=b,c=d"


def test_one_of_opentelemetrys_own_is_written_as_well() -> None:
    state = TraceState([("a", "1"), ("b", "2")])
    span = NonRecordingSpan(SpanContext(1, 2, False, TraceFlags(1), state))
    headers: dict[str, str] = {}
    inject(headers, trace.set_span_in_context(span, Context()))
    assert headers["tracestate"] == "a=1,b=2"


def test_what_is_too_long_goes_by_whole_members() -> None:
    short = [f"s{n:02}={'x' * 124}" for n in range(2)]  # 128 characters: not long
    long = [f"l{n:02}{'k' * 200}={'x' * 250}" for n in range(20)]
    given = ",".join([short[0], *long, short[1]])
    goes = sent({"traceparent": GOOD, "tracestate": given})["tracestate"]
    assert goes == ",".join([short[0], *long[:17], short[1]])
    assert len(goes) <= 8000 < len(goes) + len(long[17])


@reproducibly
@given(
    st.dictionaries(
        st.from_regex(r"[a-z0-9][a-z0-9_\-*/@]{0,40}", fullmatch=True),
        st.from_regex(r"[ -+\--<>-~]{0,40}[!-+\--<>-~]", fullmatch=True).map(str.lstrip),
        min_size=1,
        max_size=32,
    )
)
def test_whatever_is_well_formed_goes_on_byte_for_byte(members: dict[str, str]) -> None:
    header = ",".join(f"{key}={value}" for key, value in members.items())
    assert sent({"traceparent": GOOD, "tracestate": header})["tracestate"] == header


@reproducibly
@given(st.text(alphabet="ab1@=, \t;A\x00", max_size=40))
def test_whatever_arrives_what_goes_on_is_well_formed(header: str) -> None:
    goes = sent({"traceparent": GOOD, "tracestate": header})
    assert goes["traceparent"].startswith(f"00-{TRACE}-")
    if "tracestate" in goes:
        assert sent({"traceparent": GOOD, **goes})["tracestate"] == goes["tracestate"]


def test_nothing_of_the_base_class_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    # Another version of OpenTelemetry may store the members in another way.
    monkeypatch.setattr(TraceState, "__init__", lambda self, entries=None: None)
    state = HeaderTraceState.from_header(["1a=b,c=d"])
    assert not {"_dict"} & vars(state).keys()
    assert state.to_header() == format_tracestate(state) == "1a=b,c=d"
    assert (list(state), len(state), "c" in state, state["c"]) == (["1a", "c"], 2, True, "d")
    assert (list(state.keys()), list(state.values())) == (["1a", "c"], ["b", "d"])
    assert list(state.items()) == [("1a", "b"), ("c", "d")]
    assert (state.get("c"), state.get("x"), state.get("x", "y")) == ("d", None, "y")
    assert state.add("x", "1").to_header() == "x=1,1a=b,c=d"
    assert state.update("c", "2").to_header() == "c=2,1a=b"
    assert state.delete("c").to_header() == "1a=b"
    assert state == {"1a": "b", "c": "d"} != HeaderTraceState.get_default()
    assert repr(state) == "['{key=1a, value=b}', '{key=c, value=d}']"  # as the SDK's JSON has it
    assert pickle.loads(pickle.dumps(state)) == state
    assert not HeaderTraceState()
    assert sent({"traceparent": GOOD, "tracestate": "1a=b,c=d"})["tracestate"] == "1a=b,c=d"


def test_every_method_of_the_base_class_is_overridden() -> None:
    def methods(cls: type) -> set[str]:
        return {
            name
            for name, value in vars(cls).items()
            if callable(value) or isinstance(value, classmethod | staticmethod)
        }

    assert methods(TraceState) <= methods(HeaderTraceState)
