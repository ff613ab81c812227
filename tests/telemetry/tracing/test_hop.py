"""A receiver gets the same hop from our provider and from any other, here a stock SDK's.

With another provider a hop describes its span twice, at the start and at the end, through
OpenTelemetry's API. With ours it writes a record, which the sender interprets.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import flask
import pytest
import requests
from celery import Celery
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry import baggage, context, trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.trace import SpanKind, StatusCode
from requests.adapters import BaseAdapter

from telemetry.celery import instrument_celery
from telemetry.celery.consumer import RunTracer
from telemetry.celery.run import Run
from telemetry.config import settings as telemetry_settings
from telemetry.flask import instrument_flask
from telemetry.otlp.decode import ReceivedSpan, decode
from telemetry.requests import traced_session
from telemetry.tracing import foreign, provider, span

from .sinks import RESOURCE
from .test_span import Collected, Counting, hop_provider

NOW = 1_800_000_000_250_000_000
TRACEPARENT = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"
UUID = "3f2b8b7e-6a3e-4a53-9d57-6f3a9a5cbb3f"

Act = Callable[[], object]


@dataclass
class Seen:
    """The result with one provider."""

    result: object
    spans: list[ReceivedSpan]


@contextmanager
def with_provider(provider_in_use: Any) -> Iterator[None]:
    """Use a provider, with a clock that does not move."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trace, "_TRACER_PROVIDER", provider_in_use)
        for module in (foreign, provider, span):
            patch.setattr(module, "time_ns", lambda: NOW)
        patch.setattr("opentelemetry.sdk.trace.time_ns", lambda: NOW)
        patch.setattr(time, "time", lambda: NOW / 1e9)
        yield


def both(act: Act, limits: SpanLimits | None = None) -> tuple[Seen, Seen]:
    """Return the result of *act* with our provider, and with the SDK's."""
    limits = limits or SpanLimits()
    ours, sink = hop_provider(limits, telemetry_settings.sampler())
    with with_provider(ours):
        seen = Seen(act(), sink.received())
    theirs = TracerProvider(
        resource=RESOURCE, span_limits=limits, id_generator=Counting(), shutdown_on_exit=False
    )
    collected = Collected()
    theirs.add_span_processor(collected)
    with with_provider(theirs):
        result = act()
    return seen, Seen(result, [one for ended in collected.ended for one in decode_one(ended)])


def decode_one(ended: Any) -> list[ReceivedSpan]:
    return decode(encode_spans([ended]))


def check(act: Act, limits: SpanLimits | None = None) -> list[ReceivedSpan]:
    """Compare the spans of *act* with both providers, and return them."""
    ours, theirs = both(act, limits)
    assert ours.spans == theirs.spans
    assert ours.result == theirs.result
    return ours.spans


# Hop 4: a run.

#: The attributes of ``task.request`` in a worker, for most messages.
MESSAGE = {
    "lang": "py",
    "task": "ping",
    "id": UUID,
    "root_id": UUID,
    "parent_id": None,
    "group": None,
    "retries": 0,
    "eta": None,
    "delivery_info": {"routing_key": "celery", "redelivered": None},
    "traceparent": TRACEPARENT,
    "queuehop-sent-at": "1800000000.000000",
    "queuehop-received-at": 1_800_000_000.125,
}


@pytest.fixture(scope="module")
def runs() -> RunTracer:
    return RunTracer(Celery("shop", broker="redis://broker:6379/0"), "child")


def end(run: Run, state: str | None = "SUCCESS") -> None:
    run.facts.state = state
    run.end()


def fail(run: Run) -> None:
    run.fail(KeyError("no"))
    end(run, "FAILURE")


def set_attributes(run: Run) -> None:
    run.span.set_attributes({"shop.item": "a book", "messaging.message.id": "mine", "": "no key"})
    end(run)


def add_event_and_link(run: Run) -> None:
    run.span.add_event("packed", {"items": 3}, NOW + 1)
    run.span.add_link(trace.SpanContext(1, 2, is_remote=False), {"why": "it came first"})
    end(run)


def set_status(run: Run) -> None:
    run.span.set_status(StatusCode.ERROR, "too heavy")
    end(run)


def set_status_ok_and_fail(run: Run) -> None:
    run.span.set_status(StatusCode.OK)
    fail(run)


def record_exception_alone(run: Run) -> None:
    run.record_exception(KeyError("expected"))
    end(run, "FAILURE")


def look(run: Run) -> None:
    # Reading changes nothing.
    span: Any = run.span
    assert (span.name, span.kind, span.is_recording()) == ("process ping", SpanKind.CONSUMER, True)
    assert span.attributes["messaging.message.id"] == UUID
    assert [link.context.span_id for link in span.links] == [span.parent.span_id]
    end(run)


def rename(run: Run) -> None:
    run.span.update_name("process something else")
    end(run)


def end_the_span_first(run: Run) -> None:
    run.span.end()
    run.span.set_attribute("late", True)
    end(run)


def end_without_state(run: Run) -> None:
    end(run, None)


def run_of(runs: RunTracer, message: Mapping[str, Any], act: Callable[[Run], object]) -> Act:
    def start_and_act() -> object:
        run = runs.start("ping", message)
        run.attach(run.context)
        current = trace.get_current_span().get_span_context()
        seen = run.id, baggage.get_all(), current, current.trace_state.to_header()
        run.detach()
        act(run)
        return seen

    return start_and_act


@pytest.mark.parametrize(
    "act",
    [
        *(end, fail, set_attributes, add_event_and_link, set_status, set_status_ok_and_fail),
        *(record_exception_alone, look, rename, end_the_span_first, end_without_state),
    ],
)
def test_a_run(runs: RunTracer, act: Callable[[Run], object]) -> None:
    (received,) = check(run_of(runs, MESSAGE, act))
    assert received.kind == "CONSUMER"
    assert received.attributes["celery.wait.queue"] == 0.125


ODD_IDS = [None, "", "x", "é" * 9, "a\0b", "\0", 5, 0, ["x"], b"x"]
ODD: dict[str, list[Any]] = {
    **dict.fromkeys(("id", "root_id", "parent_id", "group"), ODD_IDS),
    "traceparent": [
        *(f"{TRACEPARENT[:-2]}{flags}" for flags in ("00", "02", "03", "ff", "0A", "1", "")),
        TRACEPARENT.upper(),
        f" {TRACEPARENT}",
        f"{TRACEPARENT}-more",
        f"{TRACEPARENT}\n",
        f"01{TRACEPARENT[2:]}",
        f"00-{'0' * 32}-0123456789abcdef-01",
        f"00-0123456789abcdef0123456789abcdef-{'0' * 16}-01",
        TRACEPARENT.encode(),
        [TRACEPARENT],
        *(None, 5, ""),
    ],
    # Before and after the worker received it; and values that are not times.
    "queuehop-sent-at": [
        *("1800000000.2", "1900000000", "-5", "nan", "inf", "-inf", "1e300", "", "soon"),
        *(b"1800000000.000000", 1_800_000_000, 1_800_000_000.0, True, None, ["5"]),
    ],
    "queuehop-received-at": [
        *(1_800_000_000.3, 1_900_000_000.0, -5.0, float("nan"), float("inf"), 1e300),
        *("1800000000.1", 1_800_000_000, True, None),
    ],
    "retries": [None, 1, 7, -1, 2**63, "x", True],
    "eta": ["", "2027-01-15T08:00:00.100000+00:00", "2037-01-15T08:00:00+00:00", "soon", 5],
    "tracestate": ["a=1", ""],
    "baggage": ["a=1"],
    "queuehop-links": [f"{TRACEPARENT[:-4]}0-01", "", 5],
    "queuehop-relation": ["link", "child", "?"],
    "delivery_info": [
        None,
        {},
        {"routing_key": ["x"]},
        {"routing_key": ""},
        {"routing_key": "celery", "redelivered": True},
    ],
}


@pytest.mark.parametrize(("key", "value"), [(key, one) for key in ODD for one in ODD[key]])
def test_a_run_of_a_message_that_is_odd(runs: RunTracer, key: str, value: object) -> None:
    check(run_of(runs, {**MESSAGE, key: value}, end))


@pytest.mark.parametrize("key", MESSAGE)
def test_a_run_of_a_message_that_lacks_something(runs: RunTracer, key: str) -> None:
    message = {name: value for name, value in MESSAGE.items() if name != key}
    assert len(check(run_of(runs, message, end))) == 1


@settings(deadline=None)
@given(st.fixed_dictionaries({}, optional={key: st.sampled_from(ODD[key]) for key in ODD}))
def test_a_run_of_a_message_that_is_odd_in_many_ways(
    runs: RunTracer, odd: Mapping[str, Any]
) -> None:
    check(run_of(runs, {**MESSAGE, **odd}, end))


def test_a_run_that_is_sampled_out(runs: RunTracer) -> None:
    message = {**MESSAGE, "traceparent": f"{TRACEPARENT[:-2]}00"}
    assert check(run_of(runs, message, end)) == []


def test_an_id_of_a_class_of_its_own_is_an_id(runs: RunTracer) -> None:
    class Id(str):
        __slots__ = ()

    (received,) = check(run_of(runs, {**MESSAGE, "id": Id("mine")}, end))
    assert received.attributes["messaging.message.id"] == "mine"


def test_values_and_links_beyond_the_limits(runs: RunTracer) -> None:
    limits = SpanLimits(max_span_attribute_length=4, max_attribute_length=4, max_links=1)
    message = {**MESSAGE, "queuehop-links": f"{TRACEPARENT[:-4]}0-01"}
    (received,) = check(run_of(runs, message, end), limits)
    assert received.attributes["messaging.message.id"] == UUID[:4]
    assert len(received.links) == 1


def test_more_attributes_than_the_limit(runs: RunTracer) -> None:
    """Which ones are cut depends on their order, and another provider gets the last ones twice."""
    ours, theirs = both(run_of(runs, MESSAGE, end), SpanLimits(max_span_attributes=5))
    for seen in (ours, theirs):
        (received,) = seen.spans
        assert len(received.attributes) == 5
        assert received.attributes["celery.task.state"] == "SUCCESS"


# Hop 3: a send, and a run in place of one.


@pytest.fixture(scope="module")
def app() -> Celery:
    app = Celery("shop", broker="memory://", set_as_current=False)

    @app.task(name="pack", bind=True, shared=False)
    def pack(task: Any, items: int = 1) -> int:
        trace.get_current_span().set_attribute("shop.items", items)
        return 1 // items

    return instrument_celery(app)


ETA = "2027-01-15T08:00:01+00:00"


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"queue": "slow"},
        {"retries": 2},
        {"eta": ETA},
        {"expires": ETA},
        {"root_id": "root", "parent_id": "parent", "group_id": "group"},
        {"headers": {"traceparent": TRACEPARENT}},
        {"headers": {"traceparent": "none", "shop": 1}},
    ],
    ids=str,
)
def test_a_send(app: Celery, options: dict[str, Any]) -> None:
    def act() -> None:
        app.send_task("pack", task_id=UUID, **options)

    (received,) = check(act)
    assert received.attributes["messaging.message.id"] == UUID
    chosen = options.get("headers", {}).get("traceparent") == TRACEPARENT
    assert received.kind == ("CLIENT" if chosen else "PRODUCER")


def test_a_send_inside_a_trace(app: Celery) -> None:
    def act() -> None:
        token = context.attach(
            trace.set_span_in_context(
                trace.NonRecordingSpan(trace.SpanContext(3 << 64, 4, True, trace.TraceFlags(1)))
            )
        )
        app.send_task("pack", task_id=UUID)
        context.detach(token)

    (received,) = check(act)
    assert received.parent_id == f"{4:016x}"


def test_a_send_that_fails(app: Celery) -> None:
    def act() -> None:
        with pytest.raises(Exception, match="not JSON serializable"):
            app.send_task("pack", [app], task_id=UUID)
        assert not trace.get_current_span().get_span_context().is_valid

    (received,) = check(act)
    assert (received.status, [event.name for event in received.events]) == ("ERROR", ["exception"])


@pytest.mark.parametrize("items", [1, 0])
def test_an_eager_run(app: Celery, items: int) -> None:
    def act() -> object:
        return app.tasks["pack"].apply([items], task_id=UUID).state

    (received,) = check(act)
    assert received.attributes["shop.items"] == items
    assert received.attributes["celery.task.state"] == ("SUCCESS" if items else "FAILURE")


# Hop 2: a request that is served.


@pytest.fixture(scope="module", params=["continue", "link", "ignore"])
def site(request: pytest.FixtureRequest) -> flask.Flask:
    site = flask.Flask("site")

    @site.route("/hello/<name>", methods=["GET", "BREW"])
    def hello(name: str) -> str:
        trace.get_current_span().set_attribute("shop.name", name)
        return str(baggage.get_all())

    @site.get("/stream")
    def stream() -> flask.Response:
        def parts() -> Iterator[str]:
            for number in range(2):
                trace.get_current_span().add_event(f"part {number}", {}, NOW + number)
                yield "part"

        return flask.Response(parts())

    @site.get("/down")
    def down() -> tuple[str, int]:
        return "down", 503

    @site.get("/broken")
    def broken() -> str:
        raise LookupError("nothing here")

    return instrument_flask(site, request.param)


@pytest.mark.parametrize(
    ("path", "options"),
    [
        ("/hello/you", {}),
        ("/hello/you", {"headers": {"traceparent": TRACEPARENT, "baggage": "who=me"}}),
        ("/hello/you", {"headers": {"traceparent": TRACEPARENT, "tracestate": "a=1"}}),
        ("/hello/you", {"headers": {"traceparent": "none", "User-Agent": "curl", "Host": "a:1"}}),
        ("/hello/you", {"headers": {"traceparent": f"{TRACEPARENT[:-2]}00"}}),
        ("/hello/Zoë?secret", {"base_url": "https://shop.example/mounted"}),
        ("/hello/you", {"method": "BREW"}),
        ("/hello/you", {"method": "POST"}),
        ("/nowhere", {}),
        ("/stream", {}),
        ("/down", {}),
        ("/broken", {}),
    ],
    ids=str,
)
def test_a_request_that_is_served(site: flask.Flask, path: str, options: dict[str, Any]) -> None:
    def act() -> object:
        with site.test_client().open(path, **options) as answer:
            return answer.status, answer.text

    spans = check(act)
    assert all(received.kind == "SERVER" for received in spans)


# Hop 1: a request that is sent.


class Adapter(BaseAdapter):
    """Answers with the status that the path names, and with the headers that arrived."""

    def send(self, request: requests.PreparedRequest, *_: object, **__: object) -> Any:  # type: ignore[override]
        status = str(request.url).rpartition("/")[2]
        if not status.isdecimal():
            raise requests.ConnectionError(f"no such host in {request.url}")
        answer = requests.Response()
        answer.status_code, answer.request, answer.url = int(status), request, str(request.url)
        answer._content = str(request.headers.get("traceparent")).encode()
        return answer

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("method", "url"),
    [
        ("GET", "shop://user:hunter2@shop.example:8443/200"),
        ("POST", "shop://shop.example/404"),
        ("BREW", "shop://shop.example/503"),
        ("GET", "shop://user:hunter2@shop.example/down?token=hunter2"),
    ],
)
def test_a_request_that_is_sent(method: str, url: str) -> None:
    session = traced_session()
    session.mount("shop://", Adapter())

    def act() -> object:
        try:
            return session.request(method, url).text
        except requests.ConnectionError as exc:
            return str(exc)

    (received,) = check(act)
    assert received.kind == "CLIENT"
    assert "hunter2" not in str(received)
    failed = not url.rpartition("/")[2].isdecimal()
    assert [event.name for event in received.events] == ["exception"] * failed


def test_nothing_is_left_current() -> None:
    assert context.get_current() == Context()
