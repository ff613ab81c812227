"""The span and the measurement of each kind of facts."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.trace import SpanKind

from telemetry.export.outgoing import origin_of, outgoing
from telemetry.tracing.interpret import Interpretation, interpret, severity_number
from telemetry.tracing.measurements import Measurement, measurement
from telemetry.tracing.record import (
    ENVIRON_FIELDS,
    MESSAGE_FIELDS,
    ClientFacts,
    Facts,
    Record,
    RecordedLink,
    RunFacts,
    SendFacts,
    ServerFacts,
    SpanTemplate,
    environ_facts,
    message_facts,
    pack,
    unpack,
)
from telemetry.tracing.scope import hop_scope

from ...tiers import examples
from .sinks import RESOURCE

START = 1_800_000_000
#: Unix nanoseconds of a hop of half a second.
TIMES = START * 1_000_000_000, START * 1_000_000_000 + 500_000_000
TRACE_ID = bytes.fromhex("0123456789abcdef0123456789abcdef")
UUID = "3f2b8b7e-6a3e-4a53-9d57-6f3a9a5cbb3f"

BROKER = {"messaging.system": "redis", "server.address": "broker", "server.port": 6379}


def template(operation: str, kind: SpanKind) -> SpanTemplate:
    attributes = {
        "messaging.operation.name": operation,
        "messaging.operation.type": operation,
        "celery.task.name": "ping",
        **BROKER,
    }
    return SpanTemplate(f"{operation} ping", kind.value, attributes, hop_scope())


SEND, RUN = template("send", SpanKind.PRODUCER), template("process", SpanKind.CONSUMER)
SERVER = SpanTemplate("HTTP", SpanKind.SERVER.value, {}, hop_scope())
CLIENT = SpanTemplate("HTTP", SpanKind.CLIENT.value, {}, hop_scope())

#: The attributes of every metric of a message.
OF_A_MESSAGE = {"celery.task.name": "ping", **BROKER}


def record(facts: Facts | None, **fields: Any) -> Record:
    """Return a record, packed and unpacked as by a file."""
    start, end = TIMES
    made = Record(TRACE_ID, 1, start, end, parent_id=2, flags=1, facts=facts, **fields)
    return unpack(pack(made))


def both(
    template: SpanTemplate, facts: Facts | None, **fields: Any
) -> tuple[Interpretation, Measurement | None]:
    """Return the interpretation and the measurement of a record."""
    made = record(facts, **fields)
    interpretation = interpret(template, made)
    return interpretation, measurement(template, made, interpretation.facts)


def shown(measured: Measurement | None) -> tuple[dict[str, float], dict[str, Any]]:
    """Return the values by instrument, and the attributes."""
    assert measured is not None
    series, values, _ = measured
    return dict(zip(series.instruments, values, strict=True)), dict(series.attributes)


def sent(**headers: Any) -> SendFacts:
    return SendFacts(message_facts(headers), "celery")


def run(headers: dict[str, Any] | None = None, **facts: Any) -> RunFacts:
    return RunFacts(message_facts(headers or {}), **{"queue": "celery", **facts})


# Hop 3: a send.


def test_a_send() -> None:
    facts = sent(id=UUID, root_id="root", parent_id="parent", group="group", retries=0)
    interpretation, measured = both(SEND, facts)
    assert interpretation.name == "send ping"
    assert interpretation.links == ()
    assert interpretation.facts == {
        "messaging.destination.name": "celery",
        "messaging.message.id": UUID,
        "celery.root_id": "root",
        "celery.parent_id": "parent",
        "celery.group_id": "group",
    }
    assert shown(measured) == (
        {"messaging.client.sent.messages": 1, "messaging.client.operation.duration": 0.5},
        {
            **OF_A_MESSAGE,
            "messaging.operation.name": "send",
            "messaging.destination.name": "celery",
        },
    )


def test_a_send_that_failed_before_its_message_was_complete() -> None:
    facts = SendFacts(error="kombu.exceptions.OperationalError")
    interpretation, measured = both(SEND, facts)
    assert interpretation.facts == {"error.type": "kombu.exceptions.OperationalError"}
    _, attributes = shown(measured)
    assert attributes["error.type"] == "kombu.exceptions.OperationalError"
    assert "messaging.destination.name" not in attributes


def test_a_send_with_retries_eta_and_expires() -> None:
    eta, expires = "2027-01-15T08:00:00+00:00", "2027-01-15T09:00:00"
    interpretation, measured = both(SEND, sent(retries=2, eta=eta, expires=expires))
    assert interpretation.facts == {
        "messaging.destination.name": "celery",
        "celery.task.retries": 2,
        "celery.task.eta": eta,
        "celery.task.expires": expires,
    }
    # Attributes with many values are not in the metrics.
    assert not {name for name in shown(measured)[1] if "task" in name} - {"celery.task.name"}


def test_the_send_of_a_retry_links_to_what_its_message_names() -> None:
    link = RecordedLink(TRACE_ID, 7, is_remote=True)
    interpretation, _ = both(SEND, sent(), links=[link])
    assert interpretation.links == [link]


# Hop 4: a run.


def test_a_run() -> None:
    facts = run(
        {"id": UUID},
        sent_at=f"{START - 3}.000000",
        received_at=START - 1.0,
        links_to_parent=True,
        state="SUCCESS",
    )
    interpretation, measured = both(RUN, facts)
    assert interpretation.name == "process ping"
    assert interpretation.facts == {
        "messaging.destination.name": "celery",
        "messaging.message.id": UUID,
        "celery.wait.scheduled": 0.0,
        "celery.wait.queue": 2.0,
        "celery.wait.prefetch": 1.0,
        "celery.task.state": "SUCCESS",
    }
    assert interpretation.links == [RecordedLink(TRACE_ID, 2, is_remote=True, flags=1)]
    values, attributes = shown(measured)
    assert values == {
        "messaging.client.consumed.messages": 1,
        "messaging.process.duration": 0.5,
        "celery.wait.scheduled": 0.0,
        "celery.wait.queue": 2.0,
        "celery.wait.prefetch": 1.0,
    }
    assert attributes == {
        **OF_A_MESSAGE,
        "messaging.operation.name": "process",
        "messaging.destination.name": "celery",
        "celery.task.state": "SUCCESS",
    }


def test_a_run_of_a_message_that_names_no_time() -> None:
    """Its producer does not use this library, so the time in the queue is unknown."""
    interpretation, measured = both(RUN, run(received_at=START - 1.0))
    assert "celery.wait.queue" not in interpretation.facts
    assert list(shown(measured)[0]) == [
        "messaging.client.consumed.messages",
        "messaging.process.duration",
        "celery.wait.scheduled",
        "celery.wait.prefetch",
    ]


def test_a_run_that_was_due_later() -> None:
    eta = "2027-01-15T07:59:58+00:00"  # two seconds before START
    facts = run({"eta": eta}, sent_at=str(START - 5), received_at=START - 5.0)
    interpretation, _ = both(RUN, facts)
    assert {k: v for k, v in interpretation.facts.items() if k.startswith("celery.wait")} == {
        "celery.wait.scheduled": 3.0,
        "celery.wait.queue": 0.0,
        "celery.wait.prefetch": 2.0,
    }
    # The send says when it is due.
    assert "celery.task.eta" not in interpretation.facts


def test_a_run_whose_producer_has_another_clock() -> None:
    interpretation, _ = both(RUN, run(sent_at=str(START + 60), received_at=float(START)))
    assert interpretation.facts["celery.wait.skewed"] is True
    assert interpretation.facts["celery.wait.queue"] == 0.0


def test_an_eager_run_waited_for_nobody_and_is_in_no_metric() -> None:
    facts = RunFacts(message_facts({"id": UUID}), eager=True, measured=False, state="SUCCESS")
    interpretation, measured = both(RUN, facts)
    assert interpretation.facts == {"messaging.message.id": UUID, "celery.task.state": "SUCCESS"}
    assert interpretation.links == ()
    assert measured is None


def test_a_message_that_never_ran_is_in_no_metric() -> None:
    facts = run(sent_at=str(START - 1), measured=False, state="EXPIRED", links_to_parent=True)
    interpretation, measured = both(RUN, facts)
    assert interpretation.facts["celery.task.state"] == "EXPIRED"
    assert interpretation.facts["celery.wait.queue"] == 1.0
    assert len(interpretation.links) == 1
    assert measured is None


def test_the_other_facts_of_a_run() -> None:
    facts = run({"retries": 3}, redelivered=True, items=0, state="FAILURE", error="KeyError")
    interpretation, measured = both(RUN, facts)
    assert (
        interpretation.facts.items()
        >= {
            "celery.redelivered": True,
            "celery.task.items": 0,
            "celery.task.retries": 3,
            "celery.task.state": "FAILURE",
            "error.type": "KeyError",
        }.items()
    )
    assert shown(measured)[1]["error.type"] == "KeyError"
    assert shown(measured)[1]["celery.task.state"] == "FAILURE"


def test_the_links_of_a_run_are_its_send_and_those_of_its_message() -> None:
    first, second = (RecordedLink(TRACE_ID, span_id, is_remote=True) for span_id in (7, 8))
    interpretation, _ = both(RUN, run(links_to_parent=True), links=[first, second])
    assert [link.span_id for link in interpretation.links] == [2, 7, 8]
    interpretation, _ = both(RUN, run(links_to_parent=False), links=[first, second])
    assert [link.span_id for link in interpretation.links] == [7, 8]


# Hop 2: a request that was served.

ENVIRON = {
    "REQUEST_METHOD": "GET",
    "wsgi.url_scheme": "https",
    "HTTP_HOST": "shop.example:8443",
    "SERVER_NAME": "10.0.0.1",
    "SERVER_PORT": "8000",
    "SERVER_PROTOCOL": "HTTP/1.1",
    "SCRIPT_NAME": "/shop",
    "PATH_INFO": "/orders/Brötchen".encode().decode("latin-1"),
    "REMOTE_ADDR": "192.0.2.1",
    "HTTP_USER_AGENT": "curl/8",
}


def served(environ: dict[str, Any], *facts: Any) -> ServerFacts:
    return ServerFacts(environ_facts(environ), *facts)


def test_a_request_that_was_served() -> None:
    interpretation, measured = both(SERVER, served(ENVIRON, "/shop/orders/<name>", 200))
    assert interpretation.name == "GET /shop/orders/<name>"
    assert interpretation.facts == {
        "http.request.method": "GET",
        "url.scheme": "https",
        "server.address": "shop.example",
        "server.port": 8443,
        "network.protocol.version": "1.1",
        "http.route": "/shop/orders/<name>",
        "url.path": "/shop/orders/Brötchen",
        "client.address": "192.0.2.1",
        "user_agent.original": "curl/8",
        "http.response.status_code": 200,
    }
    assert shown(measured) == (
        {"http.server.request.duration": 0.5},
        {
            "http.request.method": "GET",
            "url.scheme": "https",
            "network.protocol.version": "1.1",
            "http.route": "/shop/orders/<name>",
            "http.response.status_code": 200,
        },
    )


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        *(
            (-10, 0),
            (0, 0),
            (1, 2),
            (9, 4),
            (10, 5),
            (19, 8),
            (20, 9),
            (30, 13),
            (33, 16),
            (40, 17),
        ),
        *((50, 21), (52, 23), (59, 24), (60, 24), (1000, 24)),
    ],
)
def test_the_severity_of_a_level(level: int, expected: int) -> None:
    assert severity_number(level) == expected


def test_a_request_that_met_no_route_and_gave_no_status() -> None:
    interpretation, measured = both(SERVER, served(ENVIRON, None, 0, "SystemExit"))
    assert interpretation.name == "GET"
    assert interpretation.facts["error.type"] == "SystemExit"
    assert not {"http.route", "http.response.status_code"} & interpretation.facts.keys()
    assert shown(measured)[1]["error.type"] == "SystemExit"


@pytest.mark.parametrize(
    ("host", "scheme", "expected"),
    [
        ("shop.example", "http", ("shop.example", 80)),
        ("shop.example", "https", ("shop.example", 443)),
        ("shop.example", "wss", ("shop.example", 443)),
        ("[::1]:8080", "http", ("::1", 8080)),
        ("[::1]", "http", ("::1", 80)),
        ("", "http", ("10.0.0.1", 8000)),
        (None, "http", ("10.0.0.1", 8000)),
        ("shop.example:" + "9" * 20, "http", ("shop.example", 80)),
        ("shop.example:" + "9" * 5000, "http", ("shop.example", 80)),
    ],
)
def test_the_address_is_the_one_that_the_client_named(
    host: str | None, scheme: str, expected: tuple[str, int]
) -> None:
    environ = {**ENVIRON, "HTTP_HOST": host, "wsgi.url_scheme": scheme}
    facts = both(SERVER, served(environ))[0].facts
    assert (facts["server.address"], facts["server.port"]) == expected


def test_an_unknown_method_makes_up_no_name() -> None:
    interpretation, measured = both(SERVER, served({**ENVIRON, "REQUEST_METHOD": "BREW" * 99}))
    assert interpretation.name == "HTTP"
    assert interpretation.facts["http.request.method"] == "_OTHER"
    assert interpretation.facts["http.request.method_original"] == "BREW" * 16
    assert "http.request.method_original" not in shown(measured)[1]


def test_an_environment_that_lacks_everything() -> None:
    assert both(SERVER, served({}))[0].facts == {
        "http.request.method": "GET",
        "url.scheme": "http",
        "server.address": "",
        "server.port": 80,
        "url.path": "",
    }


# Hop 1: a request that was sent.


def test_a_request_that_was_sent() -> None:
    facts = ClientFacts("POST", "https://shop.example/orders", "shop.example", 443, 503, "503")
    interpretation, measured = both(CLIENT, facts)
    assert interpretation.name == "POST"
    assert interpretation.facts == {
        "http.request.method": "POST",
        "server.address": "shop.example",
        "server.port": 443,
        "url.full": "https://shop.example/orders",
        "http.response.status_code": 503,
        "error.type": "503",
    }
    assert shown(measured) == (
        {"http.client.request.duration": 0.5},
        {
            "http.request.method": "POST",
            "server.address": "shop.example",
            "server.port": 443,
            "http.response.status_code": 503,
            "error.type": "503",
        },
    )


# Attributes and events that the code inside has added.


def test_a_span_of_the_applications_own_has_no_facts() -> None:
    template = SpanTemplate("", SpanKind.INTERNAL.value, {}, hop_scope())
    interpretation, measured = both(template, None, name="work", attributes={"a": 1})
    assert interpretation == Interpretation("work", {}, ())
    assert interpretation.attributes(template, record(None, attributes={"a": 1})) == {"a": 1}
    assert measured is None


def test_what_the_code_added_wins() -> None:
    added = {"messaging.destination.name": "mine", "server.port": 1, "a": 1}
    made = record(sent(id=UUID), name="mine", attributes=added)
    interpretation = interpret(SEND, made)
    assert interpretation.name == "mine"
    attributes = interpretation.attributes(SEND, made)
    assert attributes == {
        **SEND.static_attributes,
        "messaging.message.id": UUID,
        **added,
    }
    # The metrics say what happened.
    measured = measurement(SEND, made, interpretation.facts)
    assert shown(measured)[1]["messaging.destination.name"] == "celery"
    assert shown(measured)[1]["server.port"] == 6379


def test_of_a_limited_record_the_attributes_and_links_are_all() -> None:
    made = record(
        run({"id": UUID}, links_to_parent=True), attributes={"a": 1}, links=[], limited=True
    )
    interpretation = interpret(RUN, made)
    assert interpretation.attributes(RUN, made) == {"a": 1}
    assert list(interpretation.links) == []
    # It counts like any other run.
    assert shown(measurement(RUN, made, interpretation.facts))[0]["messaging.process.duration"]


def test_a_clock_that_went_back_makes_no_negative_duration() -> None:
    made = record(sent())
    made.end_time = made.start_time - 1
    measured = measurement(SEND, made, interpret(SEND, made).facts)
    assert shown(measured)[0]["messaging.client.operation.duration"] == 0.0


def test_equal_measurements_have_one_series() -> None:
    for template, facts in (
        (SEND, sent(id="a")),
        (RUN, run({"id": "b"})),
        (SERVER, served(ENVIRON)),
        (CLIENT, ClientFacts("GET", "http://a/", "a", 80)),
    ):
        first, second = (both(template, facts)[1] for _ in range(2))
        assert first is not None
        assert second is not None
        assert first.series is second.series


# Values that strangers may send.

scalars = st.one_of(
    *(st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(), st.binary()),
    *(st.text(st.characters(exclude_categories=["Cs"])), st.sampled_from(["", "9" * 400, UUID])),
)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab"), inner, max_size=3),
    max_leaves=4,
)
times = st.one_of(
    anything,
    st.integers(0, 2 * START).map(str),
    st.floats(0, 2 * START),
    st.sampled_from(["2027-01-15T08:00:00+00:00", "0001-01-01T00:00:00+23:59", "nan", "-1"]),
)
headers = st.fixed_dictionaries(
    {},
    optional={
        name: st.one_of(anything, times) if name in ("eta", "expires") else anything
        for name in MESSAGE_FIELDS
    },
)

#: The attributes that facts may have, and their types.
TYPES = {
    "messaging.destination.name": str,
    "messaging.message.id": str,
    "celery.root_id": str,
    "celery.parent_id": str,
    "celery.group_id": str,
    "celery.task.retries": int,
    "celery.task.eta": str,
    "celery.task.expires": str,
    "celery.redelivered": bool,
    "celery.wait.scheduled": float,
    "celery.wait.queue": float,
    "celery.wait.prefetch": float,
    "celery.wait.skewed": bool,
    "http.request.method": str,
    "http.request.method_original": str,
    "url.scheme": str,
    "url.path": str,
    "server.address": str,
    "server.port": int,
    "network.protocol.version": str,
    "client.address": str,
    "user_agent.original": str,
}


def check(template: SpanTemplate, facts: Facts) -> dict[str, Any]:
    """Assert that *facts* become attributes of the right types, and leave; return these."""
    interpretation, measured = both(template, facts)
    for name, value in interpretation.facts.items():
        assert type(value) is TYPES[name], name
        assert value or not name.startswith(("messaging.", "celery.root", "celery.parent"))
    assert measured is not None
    assert all(value >= 0 for value in measured.values)
    hash(tuple(measured.series.attributes.items()))
    left = outgoing(origin_of(RESOURCE, template, False), record(facts))
    assert left.span
    return interpretation.facts


@examples(300)
@given(headers=headers)
def test_of_the_headers_of_a_send_what_fits_is_taken(headers: dict[str, Any]) -> None:
    attributes = check(SEND, SendFacts(message_facts(headers)))
    id = headers.get("id")
    assert attributes.get("messaging.message.id") == (id if id and isinstance(id, str) else None)
    retries = headers.get("retries")
    counted = type(retries) is int and 0 < retries < 2**63
    assert attributes.get("celery.task.retries") == (retries if counted else None)


@examples(300)
@given(
    headers=headers,
    queue=anything,
    redelivered=anything,
    sent_at=times,
    received_at=times,
    links_to_parent=st.booleans(),
)
def test_of_the_headers_of_a_run_what_fits_is_taken(headers: dict[str, Any], **facts: Any) -> None:
    check(RUN, RunFacts(message_facts(headers), **facts))


@examples(300)
@given(st.fixed_dictionaries({}, optional=dict.fromkeys(ENVIRON_FIELDS, anything)))
def test_of_an_environment_what_fits_is_taken(environ: dict[str, Any]) -> None:
    attributes = check(SERVER, served(environ))
    agent = environ.get("HTTP_USER_AGENT")
    expected = agent if agent and isinstance(agent, str) else None
    assert attributes.get("user_agent.original") == expected


@examples(200)
@given(host=st.text(max_size=9), port=st.text("0123456789٣x:[]", max_size=30))
def test_of_a_host_header_what_fits_is_taken(host: str, port: str) -> None:
    check(SERVER, served({**ENVIRON, "HTTP_HOST": f"{host}:{port}"}))
