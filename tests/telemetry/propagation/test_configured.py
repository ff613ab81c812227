"""``OTEL_PROPAGATORS`` names the propagators."""

import logging
import subprocess
import sys
from pathlib import Path

import pytest
from flask import Flask
from opentelemetry import baggage, trace
from opentelemetry import context as otel_context
from opentelemetry.context import Context
from opentelemetry.trace import SpanContext

from telemetry.flask import instrument_flask
from telemetry.propagation import configured, extract, headers_in, inject
from telemetry.propagation.baggage import Baggage
from telemetry.propagation.traceparent import TraceContext

from .carriers import GOOD, parent


@pytest.fixture
def strangers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Install propagators of other packages."""
    info = tmp_path / "birds-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: birds\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[opentelemetry_propagator]\n"
        "pigeon = birds:Pigeon\nhawk = birds:Hawk\negg = not_hatched:Egg\n"
    )
    (tmp_path / "birds.py").write_text(BIRDS)
    monkeypatch.syspath_prepend(tmp_path)
    # Clear the cache, which may have been filled without them.
    configured.configured_propagators.cache_clear()
    monkeypatch.delitem(sys.modules, "birds", raising=False)
    return tmp_path


BIRDS = """
from opentelemetry.context import set_value
from opentelemetry.propagators.textmap import TextMapPropagator

class Pigeon(TextMapPropagator):
    fields = {"X-Pigeon"}

    def extract(self, carrier, context=None, getter=None):
        found = getter.get(carrier, "X-Pigeon"), getter.get(carrier, "x-feather-color")
        return set_value("pigeon", found, context)

    def inject(self, carrier, context=None, setter=None):
        setter.set(carrier, "X-Pigeon", "coo")

class Hawk(TextMapPropagator):
    fields = {"X-Hawk"}

    def extract(self, carrier, context=None, getter=None):
        raise RuntimeError("no")

    inject = extract
"""


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
    monkeypatch: pytest.MonkeyPatch, setting: str, names: set[str]
) -> None:
    monkeypatch.setenv("OTEL_PROPAGATORS", setting)
    goes: dict[str, str] = {}
    inject(goes, baggage.set_baggage("a", "1", trace.set_span_in_context(
        trace.NonRecordingSpan(SpanContext(1, 2, False)), Context())))  # fmt: skip
    assert set(goes) == names


def test_one_that_is_not_installed_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_PROPAGATORS", "tracecontext,pigeon")
    with caplog.at_level(logging.WARNING):
        assert parent({"traceparent": GOOD}).is_valid
        assert parent({"traceparent": GOOD}).is_valid
    assert [message.split()[0] for message in caplog.messages] == ["OTEL_PROPAGATORS"]


def test_with_none_of_them_a_context_is_a_context(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_PROPAGATORS", "none")
    assert configured.configured_propagators().extract({"traceparent": GOOD}) == Context()
    assert extract({"traceparent": GOOD, "baggage": "a=1"}) == Context()


def test_one_of_a_strangers_sees_all_headers(
    monkeypatch: pytest.MonkeyPatch, strangers: Path
) -> None:
    monkeypatch.setenv("OTEL_PROPAGATORS", "Pigeon,tracecontext")
    goes: dict[str, str] = {}
    inject(goes, extract({"traceparent": GOOD}))
    assert goes == {"X-Pigeon": "coo", "traceparent": GOOD}
    headers = {"x-PIGEON": "one", "X-Feather-Color": "gray"}
    assert extract(headers)["pigeon"] == (["one"], ["gray"])
    environ = {"HTTP_X_PIGEON": "one", "HTTP_X_FEATHER_COLOR": "gray", "wsgi.input": object()}
    assert extract(headers_in(environ))["pigeon"] == (["one"], ["gray"])


def test_one_of_a_strangers_sees_all_headers_of_a_request(
    monkeypatch: pytest.MonkeyPatch, strangers: Path
) -> None:
    monkeypatch.setenv("OTEL_PROPAGATORS", "pigeon,tracecontext")
    app = instrument_flask(Flask("loft"))
    app.add_url_rule("/", view_func=lambda: repr(otel_context.get_value("pigeon")))
    answer = app.test_client().get("/", headers={"X-Feather-Color": "gray"})
    assert answer.text == "(None, ['gray'])"


def test_one_that_fails_does_not_take_the_others_with_it(
    monkeypatch: pytest.MonkeyPatch, strangers: Path
) -> None:
    monkeypatch.setenv("OTEL_PROPAGATORS", "hawk,tracecontext")
    goes: dict[str, str] = {}
    inject(goes, extract({"traceparent": GOOD}))
    assert goes == {"traceparent": GOOD}


def test_one_that_cannot_be_made_is_said_once(
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
def test_each_is_one_of_opentelemetrys(name: str) -> None:
    made = {"tracecontext": TraceContext(), "baggage": Baggage()}[name]
    headers = {"traceparent": GOOD, "tracestate": "1a=b", "baggage": "a=1;p"}
    goes: dict[str, str] = {}
    made.inject(goes, made.extract(headers))
    assert goes == {key: headers[key] for key in made.fields}
    assert made.fields <= configured.configured_propagators().fields


def test_importing_reads_nothing() -> None:
    script = (
        "from telemetry.propagation import configured as c; "
        "assert not c.configured_propagators.cache_info().currsize"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
