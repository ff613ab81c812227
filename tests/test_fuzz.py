"""Any HTTP header, any message and any setting: nothing raises."""

import json
import random
from collections.abc import Iterator
from typing import Any

import flask
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kombu import Connection, Queue

from telemetry.config import exporter
from telemetry.config import settings as telemetry_settings
from telemetry.flask import instrument_flask
from telemetry.otlp.receiver import Receiver

from .conftest import Broker
from .processes import Starter

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

#: Values of real headers, with small changes, and arbitrary text.
header = st.one_of(
    st.text(max_size=60),
    st.text(alphabet="0123456789abcdef-", max_size=60),
    st.sampled_from([TRACEPARENT, "a=1", "a=1,b=2;c", "1700000000.5", "", "nan", "-1e400"]),
    st.builds(lambda at, to: TRACEPARENT[:at] + to, st.integers(0, 55), st.text(max_size=9)),
)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | header,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4)
    ),
    max_leaves=8,
)
NAMES = (
    "traceparent",
    "tracestate",
    "baggage",
    "queuehop-sent-at",
    "queuehop-links",
    "queuehop-relation",
)


@pytest.fixture(scope="module")
def site() -> flask.Flask:
    app = flask.Flask("site")
    app.add_url_rule("/<path:rest>", view_func=lambda rest: f"served {len(rest)}")
    return instrument_flask(app)


@settings(max_examples=500, deadline=None)
@given(
    headers=st.dictionaries(
        st.sampled_from([*NAMES, "host", "user-agent", "x-forwarded-for"]), header
    ),
    path=st.text(max_size=30),
    query=st.text(max_size=30),
)
def test_http_requests(site: flask.Flask, headers: dict[str, str], path: str, query: str) -> None:
    environ = {
        f"HTTP_{name.upper().replace('-', '_')}": value.encode("latin-1", "replace").decode(
            "latin-1"
        )
        for name, value in headers.items()
    }
    environ["PATH_INFO"] = f"/{path}".encode().decode("latin-1")
    environ["QUERY_STRING"] = query.encode().decode("latin-1")
    answer = site.test_client().get("/", environ_overrides=environ)
    assert answer.status_code in (200, 308, 400, 404)


VARIABLES = (
    "OTEL_BSP_SCHEDULE_DELAY",
    "OTEL_BSP_MAX_QUEUE_SIZE",
    "OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
    "OTEL_EXPORTER_OTLP_PROTOCOL",
    "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL",
    "OTEL_EXPORTER_OTLP_HEADERS",
    "OTEL_EXPORTER_OTLP_TIMEOUT",
    "OTEL_EXPORTER_OTLP_COMPRESSION",
    "OTEL_EXPORTER_OTLP_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_INSECURE",
    "OTEL_METRIC_EXPORT_INTERVAL",
    "OTEL_TRACES_SAMPLER",
    "OTEL_TRACES_SAMPLER_ARG",
    "OTEL_SPAN_LINK_COUNT_LIMIT",
    "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT",
    "QUEUEHOP_SPOOL",
    "QUEUEHOP_SPOOL_MAX_BYTES",
    "QUEUEHOP_SPOOL_MAX_AGE",
    "QUEUEHOP_STATE_DIR",
    "XDG_STATE_HOME",
    "LS_ACCESS_TOKEN",
)
value = st.one_of(
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30),
    st.sampled_from(["1e999", "-1", "0", "nan", "inf", "9" * 400, "http://[", "https://:0", "/"]),
    st.sampled_from(["http/protobuf", "http/json", "https://u:p@[::1]/a?b#c", "http://%ff@a"]),
    st.sampled_from(["http://a:99999", "a=b,c=%ff", "~", "~nobody-at-all/x", "\ud800", "٣"]),
)


@settings(
    max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(environment=st.dictionaries(st.sampled_from(VARIABLES), value, min_size=1))
def test_environments(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> None:
    with monkeypatch.context() as patched:
        for name in VARIABLES:
            patched.delenv(name, raising=False)
        for name, given_value in environment.items():
            patched.setenv(name, given_value.encode("utf-8", "replace").decode())
        telemetry_settings.delivery()
        telemetry_settings.sampler()
        telemetry_settings.span_limits()
        telemetry_settings.spool()
        targets = exporter.targets()
        if targets is not None:
            assert "://u:" not in exporter.shown(targets.traces.endpoint)


def hostile(count: int) -> Iterator[dict[str, Any]]:
    """Yield headers of messages, the same in each run."""
    found: list[dict[str, Any]] = []

    @settings(max_examples=count, deadline=None, derandomize=True, database=None)
    @given(st.dictionaries(st.sampled_from(NAMES), anything))
    def collect(headers: dict[str, Any]) -> None:
        found.append(headers)

    collect()
    yield from found


def test_messages(start: Starter, receiver: Receiver, broker: Broker) -> None:
    """A thousand messages with arbitrary headers, and some with malformed bodies."""
    sent = 0
    chance = random.Random(1)
    with Connection(broker.url) as connection:
        producer = connection.Producer()
        for number, headers in enumerate(hostile(1000)):
            body: Any = [[1, 2], {}, {}]
            broken = number % 20 == 0
            producer.publish(
                chance.randbytes(30) if broken else json.dumps(body),
                headers={
                    "lang": "py",
                    "task": "tests.telemetry.celery.project.add",
                    "id": f"message-{number}",
                    **headers,
                },
                content_type="application/json",
                content_encoding="binary" if broken else "utf-8",
                routing_key="celery",
                declare=[Queue("celery")],
            )
            sent += 1
    worker = start(
        *("celery", "-A", "tests.telemetry.celery.project", "worker", "--pool=solo"),
        *("--without-gossip", "--without-mingle"),
    )
    name = "process tests.telemetry.celery.project.add"
    spans = receiver.wait_for(
        lambda spans: sum(span.name == name for span in spans) >= sent, timeout=90
    )
    assert sum(span.name == name for span in spans) == sent
    assert len({span.span_id for span in spans}) == len(spans)
    assert worker.stop() == 0
    assert "tracing could not" not in worker.output
