"""Headers, written and read: W3C Trace Context Level 2 and W3C Baggage, by what they ask for."""

import logging
import pickle
import subprocess
import sys
from email.message import Message
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry import baggage, trace
from opentelemetry import context as otel_context
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import (
    Decision,
    ParentBased,
    Sampler,
    SamplingResult,
    TraceIdRatioBased,
)
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState
from requests.structures import CaseInsensitiveDict
from werkzeug.datastructures import EnvironHeaders, Headers

from telemetry import faults, propagation
from telemetry.flask import instrument_flask
from telemetry.propagation import (
    TRACEPARENT,
    Baggage,
    TraceContext,
    extract,
    format_links,
    from_environ,
    inject,
    parse_links,
    parse_traceparent,
    propagator,
    traceparent,
)

reproducibly = settings(derandomize=True, deadline=None)

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
GOOD = f"00-{TRACE}-{SPAN}-01"


def parent(carrier: Any) -> SpanContext:
    return trace.get_current_span(extract(carrier)).get_span_context()


def sent(carrier: Any) -> dict[str, str]:
    """Return what goes on to the next hop, from a span of this process."""
    tracer = TracerProvider().get_tracer("test")
    context = extract(carrier)
    goes: dict[str, str] = {}
    inject(goes, trace.set_span_in_context(tracer.start_span("hop", context), context))
    return goes


class TestTraceparent:
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
    def test_taken(self, value: Any) -> None:
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
    def test_a_malformed_one_begins_a_new_trace_without_tracestate(self, value: Any) -> None:
        carrier = {"traceparent": value, "tracestate": "a=1"}
        assert not parent(carrier).is_valid
        goes = sent(carrier)
        assert TRACE not in goes["traceparent"]
        assert "tracestate" not in goes

    @pytest.mark.parametrize(("given", "goes"), [("01", "01"), ("03", "03"), ("ff", "03")])
    def test_known_flags_go_on_and_others_are_cleared(self, given: str, goes: str) -> None:
        assert sent({"traceparent": f"00-{TRACE}-{SPAN}-{given}"})["traceparent"][-2:] == goes

    @pytest.mark.parametrize(("given", "goes"), [("00", "00"), ("02", "02")])
    def test_not_sampled_goes_on_not_sampled(self, given: str, goes: str) -> None:
        assert sent({"traceparent": f"00-{TRACE}-{SPAN}-{given}"})["traceparent"][-2:] == goes

    def test_a_trace_that_begins_here_says_that_its_id_is_random(self) -> None:
        assert sent({})["traceparent"][-2:] == "03"

    def test_what_goes_on_is_version_00(self) -> None:
        goes = sent({"traceparent": f"cc-{TRACE}-{SPAN}-01-later"})["traceparent"]
        assert goes.startswith(f"00-{TRACE}-")
        assert len(goes) == 55
        assert SPAN not in goes

    @pytest.mark.parametrize("name", ["Traceparent", "TRACEPARENT", b"traceparent"])
    def test_names_have_no_case(self, name: Any) -> None:
        assert parent({name: GOOD}).is_valid

    def test_one_name_in_two_cases_is_two_fields(self) -> None:
        assert not parent({"traceparent": GOOD, "Traceparent": GOOD}).is_valid

    @pytest.mark.parametrize("name", ["trace-parent", "trace.parent", "traceparent ", "HTTP_x"])
    def test_other_names_are_not_looked_at(self, name: str) -> None:
        assert not parent({name: GOOD}).is_valid

    @pytest.mark.parametrize("flags", ["00", "01", "02", "03"])
    def test_without_a_span_of_our_own_it_goes_on_unchanged(self, flags: str) -> None:
        given = {"traceparent": f"00-{TRACE}-{SPAN}-{flags}", "tracestate": "1a=b,c= d"}
        goes: dict[str, str] = {}
        inject(goes, extract(given))
        assert goes == given

    def test_an_id_that_is_not_random_is_not_called_so(self) -> None:
        class Counting(RandomIdGenerator):
            def is_trace_id_random(self) -> bool:
                return False

        span = TracerProvider(id_generator=Counting()).get_tracer("test").start_span("root")
        assert traceparent(span.get_span_context())[-2:] == "01"

    @pytest.mark.parametrize(
        ("rate", "given", "goes"), [(0, "03", "02"), (0, "01", "00"), (1, "02", "03")]
    )
    def test_a_decision_of_our_own_changes_the_sampled_flag_alone(
        self, rate: float, given: str, goes: str
    ) -> None:
        context = extract({"traceparent": f"00-{TRACE}-{SPAN}-{given}", "tracestate": "1a=b"})
        tracer = TracerProvider(sampler=TraceIdRatioBased(rate)).get_tracer("test")
        headers: dict[str, str] = {}
        inject(headers, trace.set_span_in_context(tracer.start_span("hop", context), context))
        assert headers["traceparent"][-2:] == goes
        assert headers["tracestate"] == "1a=b"

    def test_names_are_written_in_lower_case(self) -> None:
        assert set(sent({"TRACEPARENT": GOOD, "TraceState": "a=1", "Baggage": "b=2"})) == {
            "traceparent",
            "tracestate",
            "baggage",
        }

    def test_no_span_nothing_written(self) -> None:
        headers = {"own": "1"}
        inject(headers, Context())
        assert headers == {"own": "1"}

    def test_a_carrier_need_do_no_more_than_hold(self) -> None:
        class Slots:
            """Takes and gives items, as a message of some other library may."""

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

    def test_a_carrier_used_again_keeps_no_tracestate_of_before(self) -> None:
        headers = {"own": "1"}
        inject(headers, extract({"traceparent": GOOD, "tracestate": "a=1"}))
        assert headers["tracestate"] == "a=1"
        inject(headers, extract({"traceparent": GOOD}))
        assert headers == {"own": "1", "traceparent": GOOD}

    def test_what_is_current_does_not_get_in(self) -> None:
        with TracerProvider().get_tracer("test").start_as_current_span("current"):
            assert not trace.get_current_span(extract({})).get_span_context().is_valid


VALUE = " !\"#$%&'()*+-./:;<>?@[\\]^_`{|}~"
MEMBERS = ",".join(f"bar{n:02}=x" for n in range(32))


class TestTracestate:
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
    def test_goes_on_to_the_letter(self, given: Any, goes: str) -> None:
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
    def test_a_malformed_one_is_dropped_whole_and_the_trace_goes_on(self, given: Any) -> None:
        goes = sent({"traceparent": GOOD, "tracestate": given})
        assert goes["traceparent"].startswith(f"00-{TRACE}-")
        assert "tracestate" not in goes

    def test_a_long_one_loses_its_long_members_first_and_then_the_last(self) -> None:
        members = [f"a{n:02}={'x' * 250}" for n in range(31)] + [f"b00={'y' * 90}"]
        given = ",".join(f"{member}" for member in members)
        assert sent({"traceparent": GOOD, "tracestate": given})["tracestate"] == given
        longer = [f"c{n:02}{'c' * 150}={'x' * 250}" for n in range(31)] + [f"b00={'y' * 90}"]
        goes = sent({"traceparent": GOOD, "tracestate": ",".join(longer)})["tracestate"]
        assert 512 <= len(goes) <= 8192
        assert goes.split(",")[-1] == longer[-1]
        assert goes.split(",")[:-1] == longer[: len(goes.split(",")) - 1]

    def test_one_that_is_changed_puts_the_member_in_front(self) -> None:
        state = parent({"traceparent": GOOD, "tracestate": "1a=b,c=d"}).trace_state
        assert state.add("x", "1").to_header() == "x=1,1a=b,c=d"
        assert state.update("c", "2").to_header() == "c=2,1a=b"
        assert state.delete("1a").to_header() == "c=d"
        assert state.add("c", "2") is state
        assert state.update("Bad", "2") is state

    def test_a_33rd_member_drives_out_the_last(self) -> None:
        state = parent({"traceparent": GOOD, "tracestate": MEMBERS}).trace_state
        members = state.add("new", "1").to_header().split(",")
        assert members == ["new=1", *MEMBERS.split(",")[:-1]]
        assert len(state.update("bar31", "y")) == 32

    @pytest.mark.parametrize(
        ("key", "value"),
        [("A", "1"), ("a", ""), ("a", "1 "), ("a", "b=c"), ("a=b", "c"), ("a", 1), (1, "a")],
    )
    def test_nothing_malformed_gets_in(self, key: Any, value: Any) -> None:
        state = parent({"traceparent": GOOD, "tracestate": "1a=b"}).trace_state
        assert state.add(key, value) is state
        assert state.update(key, value) is state

    def test_all_changes_in_a_row_keep_what_others_have_written(self) -> None:
        state = parent({"traceparent": GOOD, "tracestate": "1a=b,c@d@e= f,g=h"}).trace_state
        state = state.add("x", "1").update("x", "2").update("g", "i").delete("x").delete("none")
        assert state.to_header() == "g=i,1a=b,c@d@e= f"
        assert dict(state) == {"g": "i", "1a": "b", "c@d@e": " f"}
        assert pickle.loads(pickle.dumps(state)).to_header() == state.to_header()

    def test_a_sampler_may_change_it(self) -> None:
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

    def test_one_of_opentelemetrys_own_is_written_as_well(self) -> None:
        state = TraceState([("a", "1"), ("b", "2")])
        span = NonRecordingSpan(SpanContext(1, 2, False, TraceFlags(1), state))
        headers: dict[str, str] = {}
        inject(headers, trace.set_span_in_context(span, Context()))
        assert headers["tracestate"] == "a=1,b=2"

    def test_what_is_too_long_goes_by_whole_members(self) -> None:
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
    def test_whatever_is_well_formed_goes_on_byte_for_byte(self, members: dict[str, str]) -> None:
        header = ",".join(f"{key}={value}" for key, value in members.items())
        assert sent({"traceparent": GOOD, "tracestate": header})["tracestate"] == header

    @reproducibly
    @given(st.text(alphabet="ab1@=, \t;A\x00", max_size=40))
    def test_whatever_arrives_what_goes_on_is_well_formed(self, header: str) -> None:
        goes = sent({"traceparent": GOOD, "tracestate": header})
        assert goes["traceparent"].startswith(f"00-{TRACE}-")
        if "tracestate" in goes:
            assert sent({"traceparent": GOOD, **goes})["tracestate"] == goes["tracestate"]


class TestBaggage:
    def goes(self, header: Any, **more: Any) -> str | None:
        goes: dict[str, str] = {}
        inject(goes, extract({"baggage": header, **more}))
        return goes.get("baggage")

    def test_travels_without_a_trace(self) -> None:
        assert self.goes("a=1", traceparent="malformed") == "a=1"

    @pytest.mark.parametrize(
        ("given", "goes"),
        [
            ("a=1,b=2", "a=1,b=2"),
            ("a = 1 , b = 2", "a=1,b=2"),
            ("a=1;p;q=2", "a=1;p;q=2"),
            ("a=b%20c", "a=b%20c"),
            ("a=%E2%82%AC", "a=%E2%82%AC"),
            ("a=b+c", "a=b+c"),
            ("a=", "a="),
            ("a=1,b,=2,c d=3,e=4", "a=1,e=4"),
            ('a="1",b=2', "b=2"),
            (["a=1", "b=2"], "a=1,b=2"),
            ([b"a=1", "b=2"], "a=1,b=2"),
            ("a=b=c==", "a=b=c=="),
            ("a \t = \t 1 \t ; \t p \t ; \t q \t = \t 2 \t , b=3", "a=1;p;q=2,b=3"),
            ("a=%ff,b=%zz", "a=%ff,b=%zz"),
            ("a=1;p=%20;q==;r=", "a=1;p=%20;q==;r="),
            ("a=1,a=2", "a=2"),
            ("a=1;p q,b=2", "b=2"),
            ("a=1;;p,b=2", "b=2"),
            ("a=caf\u00e9,b=2", "b=2"),
            ("a=x\\y,b=2", "b=2"),
            ("a(b)=1,b=2", "b=2"),
            (",, ,a=1", "a=1"),
        ],
    )
    def test_goes_on(self, given: Any, goes: str) -> None:
        assert self.goes(given) == goes

    def test_values_are_decoded(self) -> None:
        found = baggage.get_all(extract({"baggage": "a=%E2%82%AC%2C%20%ff"}))
        assert found == {"a": "\u20ac, \ufffd"}

    def test_values_of_ones_own_are_encoded(self) -> None:
        goes: dict[str, str] = {}
        inject(goes, baggage.set_baggage("a", 'x "y", \\z;%\u20ac', Context()))
        assert goes["baggage"] == "a=x%20%22y%22%2C%20%5Cz%3B%25%E2%82%AC"

    def test_values_of_ones_own_arrive_whoever_reads_them(self) -> None:
        goes: dict[str, str] = {}
        inject(goes, baggage.set_baggage("a", "1 + 1 = 100%", Context()))
        assert baggage.get_all(extract(goes)) == {"a": "1 + 1 = 100%"}
        theirs = W3CBaggagePropagator().extract(goes, Context())
        assert baggage.get_all(theirs) == {"a": "1 + 1 = 100%"}

    def test_properties_outlive_a_span_and_not_a_change(self) -> None:
        given = {"traceparent": GOOD, "baggage": "a=1;p=2,b=3;q"}
        assert sent(given)["baggage"] == "a=1;p=2,b=3;q"
        goes: dict[str, str] = {}
        inject(goes, baggage.set_baggage("a", "9", extract(given)))
        assert goes["baggage"] == "a=9,b=3;q"

    def test_what_cannot_be_written_does_not_stop_the_rest(self) -> None:
        context = extract({"traceparent": GOOD})
        for key, value in {"h": Hostile(), "no token": "1", "n": 7, "s": "\ud800"}.items():
            context = baggage.set_baggage(key, value, context)
        goes: dict[str, str] = {}
        inject(goes, context)
        assert goes == {"traceparent": GOOD, "baggage": "n=7,s=?"}

    @pytest.mark.parametrize("room", [0, 1])
    def test_8192_bytes_are_not_too_many(self, room: int) -> None:
        header = "a=" + "v" * (8190 + room)
        assert self.goes(header) == (None if room else header)
        goes: dict[str, str] = {}
        inject(goes, baggage.set_baggage("a", "v" * (8190 + room), Context()))
        assert goes == ({} if room else {"baggage": header})
        two = f"a={'v' * 4093},b={'v' * (4094 + room)}"
        assert self.goes(two) == (two.split(",")[0] if room else two)

    def test_white_space_and_what_is_malformed_take_no_room(self) -> None:
        header = "bad member" * 500 + ", " + " " * 5000 + f"a={'v' * 8000}"
        assert self.goes(header) == header.split()[-1]

    def test_one_that_is_too_large_does_not_take_the_others_with_it(self) -> None:
        assert self.goes(f"a=1,b={'v' * 8192},c=3") == "a=1,c=3"

    def test_what_is_left_behind_is_said_once_and_not_named(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(propagation, "_allow", faults.RateLimit())
        context = baggage.set_baggage("token", "hunter2" * 2000, Context())
        for _ in range(2):
            inject({}, context)
        (message,) = caplog.messages
        assert message.startswith("baggage: 1 left behind")
        assert "token" not in message
        assert "hunter2" not in message

    @pytest.mark.parametrize(
        "header",
        [
            pytest.param("k=v" + ";a = " * 1600 + '"', id="properties"),
            pytest.param("k=" + " " * 8000 + '"', id="spaces"),
            pytest.param("k" + " \t" * 4000 + '"', id="tabs"),
        ],
    )
    def test_what_is_made_to_take_long_is_just_malformed(self, header: str) -> None:
        assert self.goes(f"{header},b=2") == "b=2"

    @reproducibly
    @given(
        st.dictionaries(
            st.from_regex(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,20}", fullmatch=True),
            st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
            max_size=20,
        )
    )
    def test_whatever_is_set_here_is_read_there(self, entries: dict[str, str]) -> None:
        context = Context()
        for key, value in entries.items():
            context = baggage.set_baggage(key, value, context)
        goes: dict[str, str] = {}
        inject(goes, context)
        assert baggage.get_all(extract(goes)) == entries
        assert self.goes(goes.get("baggage")) == goes.get("baggage")

    def test_at_most_64_members_and_8192_bytes(self) -> None:
        many = self.goes(",".join(f"k{n}=v" for n in range(100)))
        assert many is not None
        assert many.split(",") == [f"k{n}=v" for n in range(64)]
        large = self.goes(",".join(f"k{n}={'v' * 1000}" for n in range(20)))
        assert large is not None
        assert len(large) <= 8192
        assert len(large.split(",")) == 8

    def test_an_allow_list_decides_what_leaves(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("QUEUEHOP_BAGGAGE_ALLOW", "tenant, region")
        assert self.goes("secret=1,tenant=blue,region=eu") == "tenant=blue,region=eu"
        monkeypatch.setenv("QUEUEHOP_BAGGAGE_ALLOW", "")
        assert self.goes("secret=1") is None


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
    # What comes as a list goes the long way.
    assert parse_traceparent(text) == parse_traceparent([text])


class TestPropagators:
    @pytest.mark.parametrize(
        ("setting", "names"),
        [
            ("tracecontext", {"traceparent"}),
            ("baggage", {"baggage"}),
            ("none", set()),
            ("", {"traceparent", "baggage"}),
            ("tracecontext,baggage,tracecontext", {"traceparent", "baggage"}),
            (" TraceContext , Baggage ", {"traceparent", "baggage"}),
            (" , ", {"traceparent", "baggage"}),
            ("none,baggage", {"baggage"}),
        ],
    )
    def test_the_environment_chooses(
        self, monkeypatch: pytest.MonkeyPatch, setting: str, names: set[str]
    ) -> None:
        monkeypatch.setenv("OTEL_PROPAGATORS", setting)
        goes: dict[str, str] = {}
        inject(goes, baggage.set_baggage("a", "1", trace.set_span_in_context(
            trace.NonRecordingSpan(SpanContext(1, 2, False)), Context())))  # fmt: skip
        assert set(goes) == names

    def test_one_that_is_not_installed_is_said_once(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setenv("OTEL_PROPAGATORS", "tracecontext,pigeon")
        with caplog.at_level(logging.WARNING):
            assert parent({"traceparent": GOOD}).is_valid
            assert parent({"traceparent": GOOD}).is_valid
        assert [message.split()[0] for message in caplog.messages] == ["OTEL_PROPAGATORS"]

    def test_with_none_of_them_a_context_is_a_context(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OTEL_PROPAGATORS", "none")
        assert propagator().extract({"traceparent": GOOD}) == Context()
        assert extract({"traceparent": GOOD, "baggage": "a=1"}) == Context()

    def test_one_of_a_strangers_sees_all_headers(
        self, monkeypatch: pytest.MonkeyPatch, strangers: Path
    ) -> None:
        monkeypatch.setenv("OTEL_PROPAGATORS", "Pigeon,tracecontext")
        goes: dict[str, str] = {}
        inject(goes, extract({"traceparent": GOOD}))
        assert goes == {"X-Pigeon": "coo", "traceparent": GOOD}
        headers = {"x-PIGEON": "one", "X-Feather-Colour": "grey"}
        assert extract(headers)["pigeon"] == (["one"], ["grey"])
        environ = {"HTTP_X_PIGEON": "one", "HTTP_X_FEATHER_COLOUR": "grey", "wsgi.input": object()}
        assert extract(from_environ(environ))["pigeon"] == (["one"], ["grey"])

    def test_one_of_a_strangers_sees_all_headers_of_a_request(
        self, monkeypatch: pytest.MonkeyPatch, strangers: Path
    ) -> None:
        monkeypatch.setenv("OTEL_PROPAGATORS", "pigeon,tracecontext")
        app = instrument_flask(Flask("loft"))
        app.add_url_rule("/", view_func=lambda: repr(otel_context.get_value("pigeon")))
        answer = app.test_client().get("/", headers={"X-Feather-Colour": "grey"})
        assert answer.text == "(None, ['grey'])"

    def test_one_that_fails_does_not_take_the_others_with_it(
        self, monkeypatch: pytest.MonkeyPatch, strangers: Path
    ) -> None:
        monkeypatch.setenv("OTEL_PROPAGATORS", "hawk,tracecontext")
        goes: dict[str, str] = {}
        inject(goes, extract({"traceparent": GOOD}))
        assert goes == {"traceparent": GOOD}

    def test_one_that_cannot_be_made_is_said_once(
        self,
        monkeypatch: pytest.MonkeyPatch,
        strangers: Path,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        monkeypatch.setenv("OTEL_PROPAGATORS", "egg,tracecontext")
        assert parent({"traceparent": GOOD}).is_valid
        (message,) = caplog.messages
        assert message.startswith("OTEL_PROPAGATORS names 'egg'")
        assert "ModuleNotFoundError" in message

    @pytest.mark.parametrize("name", ["tracecontext", "baggage"])
    def test_each_is_one_of_opentelemetrys(self, name: str) -> None:
        made = {"tracecontext": TraceContext(), "baggage": Baggage()}[name]
        headers = {"traceparent": GOOD, "tracestate": "1a=b", "baggage": "a=1;p"}
        goes: dict[str, str] = {}
        made.inject(goes, made.extract(headers))
        assert goes == {key: headers[key] for key in made.fields}
        assert made.fields <= propagator().fields


@pytest.fixture
def strangers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Install propagators that others have written."""
    info = tmp_path / "birds-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: birds\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[opentelemetry_propagator]\n"
        "pigeon = birds:Pigeon\nhawk = birds:Hawk\negg = not_hatched:Egg\n"
    )
    (tmp_path / "birds.py").write_text(BIRDS)
    monkeypatch.syspath_prepend(tmp_path)
    # What was looked up without them, or with them elsewhere, does not count.
    propagation._propagator.cache_clear()
    monkeypatch.delitem(sys.modules, "birds", raising=False)
    return tmp_path


BIRDS = """
from opentelemetry.context import set_value
from opentelemetry.propagators.textmap import TextMapPropagator

class Pigeon(TextMapPropagator):
    fields = {"X-Pigeon"}

    def extract(self, carrier, context=None, getter=None):
        found = getter.get(carrier, "X-Pigeon"), getter.get(carrier, "x-feather-colour")
        return set_value("pigeon", found, context)

    def inject(self, carrier, context=None, setter=None):
        setter.set(carrier, "X-Pigeon", "coo")

class Hawk(TextMapPropagator):
    fields = {"X-Hawk"}

    def extract(self, carrier, context=None, getter=None):
        raise RuntimeError("no")

    inject = extract
"""


def test_a_wsgi_environment() -> None:
    environ = {"HTTP_TRACEPARENT": GOOD, "HTTP_TRACESTATE": "a=1", "HTTP_BAGGAGE": "b=2", "X": 1}
    assert from_environ(environ) == {"traceparent": GOOD, "tracestate": "a=1", "baggage": "b=2"}


def test_links() -> None:
    contexts = [SpanContext(1, 2, True), SpanContext(3, 4, True)]
    assert parse_links(format_links(contexts)) == contexts
    assert parse_links(f"junk,{GOOD},,{GOOD}x") == [parse_traceparent(GOOD)]
    assert len(parse_links(",".join([GOOD] * 5000))) == 1024
    assert parse_links(GOOD.encode()) == [parse_traceparent(GOOD)]
    for value in (None, 7, {}, [], "x" * 1_000_000):
        assert parse_links(value) == []
    assert parse_links([GOOD, b"junk", f"{GOOD} , {GOOD}", 7]) == [parse_traceparent(GOOD)] * 3
    assert len(parse_links([",".join([GOOD] * 1024)] * 1024)) == 1024
    assert format_links([trace.INVALID_SPAN_CONTEXT, contexts[0]]) == traceparent(contexts[0])
    assert len(parse_links(format_links([contexts[0]] * 5000))) == 1024


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


class Hostile:
    def __str__(self) -> str:
        raise RuntimeError("no")


class Raising:
    @property
    def items(self) -> Any:
        raise RuntimeError("no")


HOSTILE = [None, 7, "x", b"x", [], dict, Hostile(), Raising()]


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


def test_importing_reads_nothing() -> None:
    script = "import os, telemetry.propagation as p; assert not p._propagator.cache_info().currsize"
    subprocess.run([sys.executable, "-c", script], check=True)


@reproducibly
@given(
    st.one_of(st.text(max_size=60), st.just(GOOD), st.just(f" {GOOD} "), st.just(f"{GOOD}-more")),
    st.sampled_from([{}, {"queuehop-sent-at": "1.5"}, {"queuehop-links": GOOD}]),
)
def test_the_headers_of_most_messages_are_read_as_any_are(
    value: str, beside: dict[str, str]
) -> None:
    # A stranger's header sends it the long way round.
    assert parent({TRACEPARENT: value, **beside}) == parent(
        {TRACEPARENT: value, **beside, "x-other": ""}
    )
