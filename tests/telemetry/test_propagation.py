"""Headers, written and read: W3C Trace Context Level 2 and W3C Baggage, by what they ask for."""

import logging
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import baggage, trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import SpanContext

from telemetry.propagation import (
    extract,
    format_links,
    from_environ,
    inject,
    parse_links,
    parse_traceparent,
)

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
            pytest.param([GOOD, GOOD], id="two header fields"),
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


class TestPropagators:
    @pytest.mark.parametrize(
        ("setting", "names"),
        [
            ("tracecontext", {"traceparent"}),
            ("baggage", {"baggage"}),
            ("none", set()),
            ("", {"traceparent", "baggage"}),
            ("tracecontext,baggage,tracecontext", {"traceparent", "baggage"}),
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


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)
names = st.sampled_from(["traceparent", "tracestate", "baggage", "Traceparent"]) | st.text()


@given(st.dictionaries(names, anything) | anything)
def test_nothing_that_a_carrier_can_be_raises(carrier: Any) -> None:
    goes: dict[str, str] = {}
    inject(goes, extract(carrier))
    assert all(isinstance(value, str) for value in goes.values())


class Hostile:
    def __str__(self) -> str:
        raise RuntimeError("no")


@pytest.mark.parametrize("carrier", [None, 7, "x", [], Hostile(), {"traceparent": Hostile()}])
def test_hostile_carriers(carrier: Any) -> None:
    assert extract(carrier) == Context()
    inject(carrier)


def test_importing_reads_nothing() -> None:
    script = "import os, telemetry.propagation as p; assert not p._propagator.cache_info().currsize"
    subprocess.run([sys.executable, "-c", script], check=True)
