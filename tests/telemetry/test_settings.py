"""The environment: what it says is done, what it cannot say is one line naming the variable."""

import logging
import os
from collections.abc import Callable

import pytest
from opentelemetry.sdk.trace import SpanLimits, sampling

from telemetry import settings


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(("OTEL_", "LS_")):
            monkeypatch.delenv(name)


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """The variables that the log names, in order."""
    caplog.set_level(logging.WARNING)
    return lambda: [message.split()[0] for message in caplog.messages]


def test_without_any_variable_spans_go_to_the_collector_on_this_machine() -> None:
    target = settings.otlp()
    assert target == settings.Otlp("localhost:4317", True, (), 10.0, False)


@pytest.mark.parametrize(
    ("endpoint", "address", "insecure"),
    [
        ("http://collector:4317", "collector:4317", True),
        ("https://collector:4317", "collector:4317", False),
        ("https://collector", "collector:443", False),
        ("http://collector", "collector:4317", True),
        ("http://[::1]:4317", "[::1]:4317", True),
        ("collector:4317", "collector:4317", False),
    ],
)
def test_endpoint(
    monkeypatch: pytest.MonkeyPatch, endpoint: str, address: str, insecure: bool
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
    target = settings.otlp()
    assert target is not None
    assert (target.endpoint, target.insecure) == (address, insecure)


@pytest.mark.parametrize("endpoint", ["ftp://x:1", "http://", "https://x:port", "unix:///tmp/s"])
def test_an_endpoint_that_cannot_be_used_is_said_once_by_its_variable(
    monkeypatch: pytest.MonkeyPatch, said: Callable[[], list[str]], endpoint: str
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
    assert settings.otlp() is None
    assert said() == ["OTEL_EXPORTER_OTLP_ENDPOINT"]


def test_the_variables_of_the_signal_win(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://general:1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://traces:2")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "3")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "4")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "a=1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "b=2")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "gzip")
    target = settings.otlp()
    assert target == settings.Otlp("traces:2", True, (("b", "2"),), 4.0, True)


def test_headers_are_percent_decoded_and_lower_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "Api-Key=a%20b%2C, x = y=z ,")
    target = settings.otlp()
    assert target is not None
    assert target.headers == (("api-key", "a b,"), ("x", "y=z"))


def test_a_header_that_grpc_would_choke_on_is_left_out_and_not_printed(
    monkeypatch: pytest.MonkeyPatch,
    said: Callable[[], list[str]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "secret,b c=1,d=caf%C3%A9,e-bin=1,ok=1")
    target = settings.otlp()
    assert target is not None
    assert target.headers == (("ok", "1"),)
    assert said() == ["OTEL_EXPORTER_OTLP_HEADERS"] * 4
    assert "secret" not in caplog.text


def test_lightstep_by_its_token_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LS_ACCESS_TOKEN", "t0ken")
    target = settings.otlp()
    assert target is not None
    assert target.endpoint == "ingest.lightstep.com:443"
    assert not target.insecure
    assert target.headers == (("lightstep-access-token", "t0ken"),)


@pytest.mark.parametrize("token", ["t\u00f6ken", "t0\nken"])
def test_a_token_that_grpc_would_choke_on_is_not_sent(
    monkeypatch: pytest.MonkeyPatch, said: Callable[[], list[str]], token: str
) -> None:
    monkeypatch.setenv("LS_ACCESS_TOKEN", token)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector:4317")
    target = settings.otlp()
    assert target is not None
    assert target.headers == ()
    assert said() == ["LS_ACCESS_TOKEN"]


def test_a_user_without_a_home_has_no_place_on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """In containers a user may be a number that the system does not know."""
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.delenv("QUEUEHOP_STATE_DIR", raising=False)
    monkeypatch.setattr("os.getuid", lambda: 54321)
    spool = settings.spool()
    assert spool is not None
    assert not spool.directory.parent.exists()


def test_the_token_does_not_travel_in_plain_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LS_ACCESS_TOKEN", "t0ken")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4317")
    target = settings.otlp()
    assert target is not None
    assert target.headers == ()


@pytest.mark.parametrize(
    "variable",
    [
        "OTEL_BSP_SCHEDULE_DELAY",
        "OTEL_BSP_MAX_QUEUE_SIZE",
        "OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
        "OTEL_BSP_EXPORT_TIMEOUT",
    ],
)
@pytest.mark.parametrize("value", ["soon", "-1", "0", "inf", "nan"])
def test_a_malformed_number_is_said_by_its_variable_and_replaced(
    monkeypatch: pytest.MonkeyPatch, said: Callable[[], list[str]], variable: str, value: str
) -> None:
    default = settings.batch()
    monkeypatch.setenv(variable, value)
    assert settings.batch() == default
    assert said() == [variable]


def test_a_batch_is_not_larger_than_the_queue(
    monkeypatch: pytest.MonkeyPatch, said: Callable[[], list[str]]
) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "10")
    assert settings.batch().max_export_batch_size == 10
    assert not said()
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "20")
    assert settings.batch().max_export_batch_size == 10
    assert said() == ["OTEL_BSP_MAX_EXPORT_BATCH_SIZE"]


@pytest.mark.parametrize(
    ("name", "argument", "description"),
    [
        ("", "", "ParentBased{root:AlwaysOnSampler"),
        ("always_on", "", "AlwaysOnSampler"),
        ("always_off", "", "AlwaysOffSampler"),
        ("traceidratio", "0.25", "TraceIdRatioBased{0.25}"),
        ("parentbased_always_off", "", "ParentBased{root:AlwaysOffSampler"),
        ("parentbased_traceidratio", "0.5", "ParentBased{root:TraceIdRatioBased{0.5}"),
    ],
)
def test_sampler(
    monkeypatch: pytest.MonkeyPatch, name: str, argument: str, description: str
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", name)
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", argument)
    assert settings.sampler().get_description().startswith(description)


@pytest.mark.parametrize(
    ("name", "argument", "variable"),
    [
        ("allways_on", "", "OTEL_TRACES_SAMPLER"),
        ("traceidratio", "half", "OTEL_TRACES_SAMPLER_ARG"),
        ("traceidratio", "7", "OTEL_TRACES_SAMPLER_ARG"),
    ],
)
def test_a_sampler_that_cannot_be_used_samples_all_and_is_said(
    monkeypatch: pytest.MonkeyPatch,
    said: Callable[[], list[str]],
    name: str,
    argument: str,
    variable: str,
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", name)
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", argument)
    result = settings.sampler().should_sample(None, 2**128 - 1, "x")
    assert result.decision is sampling.Decision.RECORD_AND_SAMPLE
    assert said() == [variable]


def test_span_limits(monkeypatch: pytest.MonkeyPatch, said: Callable[[], list[str]]) -> None:
    assert settings.span_limits().max_links == settings.LINK_COUNT_LIMIT
    assert settings.span_limits().max_attribute_length is None
    monkeypatch.setenv("OTEL_SPAN_LINK_COUNT_LIMIT", "7")
    monkeypatch.setenv("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "100")
    monkeypatch.setenv("OTEL_SPAN_EVENT_COUNT_LIMIT", "many")
    limits = settings.span_limits()
    assert isinstance(limits, SpanLimits)
    assert (limits.max_links, limits.max_span_attribute_length, limits.max_events) == (7, 100, 128)
    assert said() == ["OTEL_SPAN_EVENT_COUNT_LIMIT"]


def test_a_certificate_that_cannot_be_read_is_said(
    monkeypatch: pytest.MonkeyPatch, said: Callable[[], list[str]]
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector:4317")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nowhere/ca.pem")
    assert settings.otlp() is not None
    assert said() == ["OTEL_EXPORTER_OTLP_CERTIFICATE"]


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "never"),
    ],
)
def test_other_settings_that_cannot_be_used(
    monkeypatch: pytest.MonkeyPatch, said: Callable[[], list[str]], variable: str, value: str
) -> None:
    default = settings.otlp()
    monkeypatch.setenv(variable, value)
    assert settings.otlp() == default
    assert said() == [variable]


@pytest.mark.parametrize(
    ("variable", "value", "enabled"),
    [
        ("OTEL_SDK_DISABLED", "true", False),
        ("OTEL_SDK_DISABLED", "TRUE", False),
        ("OTEL_SDK_DISABLED", "false", True),
        ("OTEL_TRACES_EXPORTER", "none", False),
        ("OTEL_TRACES_EXPORTER", "otlp", True),
        ("OTEL_TRACES_EXPORTER", "zipkin", True),
    ],
)
def test_traces_can_be_switched_off(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, enabled: bool
) -> None:
    monkeypatch.setenv(variable, value)
    assert settings.traces_enabled() is enabled
