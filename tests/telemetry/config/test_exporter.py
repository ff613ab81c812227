"""The exporter's variables: a good value is used, a bad one is a log line that names it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from telemetry.config import exporter


def targets() -> exporter.Targets:
    found = exporter.targets()
    assert found is not None
    return found


def test_without_any_variable_spans_go_to_the_collector_on_this_machine() -> None:
    target = exporter.otlp()
    assert target == exporter.Otlp("localhost:4317", True, (), 10.0, False)


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
    target = exporter.otlp()
    assert target is not None
    assert (target.endpoint, target.insecure) == (address, insecure)


@pytest.mark.parametrize(
    "endpoint",
    [
        "unix:/run/otlp.sock",
        "unix:///run/otlp.sock",
        "unix-abstract:otlp",
        "dns:collector:4317",
        "dns:///collector:4317",
        "dns://1.1.1.1/collector:4317",
        "ipv4:127.0.0.1:4317",
        "ipv6:[::1]:4317",
    ],
)
@pytest.mark.parametrize(("insecure", "is_insecure"), [("true", True), ("", False)])
def test_a_target_of_grpc_is_as_it_is_and_the_variable_decides_about_tls(
    monkeypatch: pytest.MonkeyPatch,
    said: Callable[[], list[str]],
    endpoint: str,
    insecure: str,
    is_insecure: bool,
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_INSECURE", insecure)
    target = exporter.otlp()
    assert target is not None
    assert (target.endpoint, target.insecure) == (endpoint, is_insecure)
    assert said() == []


def test_a_relative_path_is_that_of_this_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "unix:otlp.sock")
    target = exporter.otlp()
    assert target is not None
    assert target.endpoint == f"unix:{tmp_path / 'otlp.sock'}"


def test_insecure_of_the_signal_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "unix:/run/otlp.sock")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_INSECURE", "true")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_INSECURE", "false")
    target = exporter.otlp()
    assert target is not None
    assert not target.insecure


@pytest.mark.parametrize("endpoint", ["ftp://x:1", "http://", "https://x:port", "file:///tmp/s"])
def test_an_endpoint_that_cannot_be_used_is_said_once_by_its_variable(
    monkeypatch: pytest.MonkeyPatch, said: Callable[[], list[str]], endpoint: str
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
    assert exporter.otlp() is None
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
    target = exporter.otlp()
    assert target == exporter.Otlp("traces:2", True, (("b", "2"),), 4.0, True)


def test_headers_are_percent_decoded_and_lower_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "Api-Key=a%20b%2C, x = y=z ,")
    target = exporter.otlp()
    assert target is not None
    assert target.headers == (("api-key", "a b,"), ("x", "y=z"))


def test_a_header_that_grpc_would_choke_on_is_left_out_and_not_printed(
    monkeypatch: pytest.MonkeyPatch,
    said: Callable[[], list[str]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "secret,b c=1,d=caf%C3%A9,e-bin=1,ok=1")
    target = exporter.otlp()
    assert target is not None
    assert target.headers == (("ok", "1"),)
    # The first two entries have the same problem.
    assert said() == ["OTEL_EXPORTER_OTLP_HEADERS"] * 3
    assert "secret" not in caplog.text


def test_lightstep_by_its_token_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LS_ACCESS_TOKEN", "t0ken")
    target = exporter.otlp()
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
    target = exporter.otlp()
    assert target is not None
    assert target.headers == ()
    assert said() == ["LS_ACCESS_TOKEN"]


def test_the_token_does_not_travel_in_plain_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LS_ACCESS_TOKEN", "t0ken")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4317")
    target = exporter.otlp()
    assert target is not None
    assert target.headers == ()


def test_a_certificate_that_cannot_be_read_is_said(
    monkeypatch: pytest.MonkeyPatch, said: Callable[[], list[str]]
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector:4317")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nowhere/ca.pem")
    assert exporter.otlp() is not None
    assert said() == ["OTEL_EXPORTER_OTLP_CERTIFICATE"]


def test_only_cumulative_metrics_are_sent(
    monkeypatch: pytest.MonkeyPatch, said: Callable[[], list[str]]
) -> None:
    variable = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE"
    for value in ("", "Cumulative", "delta"):
        assert said() == []
        monkeypatch.setenv(variable, value)
        assert exporter.targets() is not None
    assert said() == [variable]


@pytest.mark.parametrize("content", [None, b""])
@pytest.mark.parametrize("names", [("KEY", "CERTIFICATE"), ("CERTIFICATE", "KEY")])
def test_a_client_certificate_and_its_key_need_each_other(
    monkeypatch: pytest.MonkeyPatch,
    said: Callable[[], list[str]],
    tmp_path: Path,
    names: tuple[str, str],
    content: bytes | None,
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector:4317")
    present, missing = (f"OTEL_EXPORTER_OTLP_CLIENT_{name}" for name in names)
    (tmp_path / "present.pem").write_bytes(b"PEM")
    monkeypatch.setenv(present, str(tmp_path / "present.pem"))
    if content is not None:
        (tmp_path / "missing.pem").write_bytes(content)
        monkeypatch.setenv(missing, str(tmp_path / "missing.pem"))
    target = exporter.otlp()
    assert target is not None
    # gRPC ends the process if it has one alone.
    assert not target.client_key
    assert not target.client_certificate
    assert said() == [present]


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "carrier pigeon"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "never"),
    ],
)
def test_other_settings_that_cannot_be_used(
    monkeypatch: pytest.MonkeyPatch, said: Callable[[], list[str]], variable: str, value: str
) -> None:
    default = exporter.otlp()
    monkeypatch.setenv(variable, value)
    assert exporter.otlp() == default
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
    assert exporter.is_enabled("TRACES") is enabled


# Over HTTP

HTTP = "http/protobuf"


@pytest.mark.parametrize(
    ("endpoint", "traces", "metrics"),
    [
        ("", "http://localhost:4318/v1/traces", "http://localhost:4318/v1/metrics"),
        ("http://c:4318", "http://c:4318/v1/traces", "http://c:4318/v1/metrics"),
        ("http://c:4318/", "http://c:4318/v1/traces", "http://c:4318/v1/metrics"),
        ("https://c/otlp", "https://c/otlp/v1/traces", "https://c/otlp/v1/metrics"),
        ("https://c/a/b/", "https://c/a/b/v1/traces", "https://c/a/b/v1/metrics"),
        ("https://c/v1/traces", "https://c/v1/traces/v1/traces", "https://c/v1/traces/v1/metrics"),
        (
            "https://[::1]:1?k=v#f",
            "https://[::1]:1/v1/traces?k=v",
            "https://[::1]:1/v1/metrics?k=v",
        ),
    ],
)
def test_over_http_the_path_of_the_signal_follows_the_general_endpoint(
    monkeypatch: pytest.MonkeyPatch, endpoint: str, traces: str, metrics: str
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", HTTP)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
    target = exporter.otlp()
    assert target is not None
    assert target.protocol == HTTP
    assert target.endpoint == traces
    assert target.insecure is traces.startswith("http:")
    assert target.address in ("localhost:4318", "c:4318", "c:443", "[::1]:1")
    of_metrics = targets().metrics
    assert of_metrics is not None
    assert of_metrics.endpoint == metrics


@pytest.mark.parametrize(
    ("endpoint", "url"),
    [
        ("https://c/custom/path", "https://c/custom/path"),
        ("https://c/", "https://c/"),
        ("https://c", "https://c/"),
    ],
)
def test_over_http_the_endpoint_of_a_signal_is_as_it_is(
    monkeypatch: pytest.MonkeyPatch, endpoint: str, url: str
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", HTTP)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "https://general")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", endpoint)
    target = exporter.otlp()
    assert target is not None
    assert target.endpoint == url
    of_metrics = targets().metrics
    assert of_metrics is not None
    assert of_metrics.endpoint == "https://general/v1/metrics"


def test_each_signal_may_have_a_protocol_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", HTTP)
    target = exporter.otlp()
    assert target is not None
    of_metrics = targets().metrics
    assert of_metrics is not None
    assert (target.protocol, of_metrics.protocol) == (HTTP, "grpc")
    assert (target.endpoint, of_metrics.endpoint) == (
        *("http://localhost:4318/v1/traces", "localhost:4317"),
    )


def test_json_is_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")
    target = exporter.otlp()
    assert target is not None
    assert target.protocol == HTTP
    assert caplog.messages == [
        "OTEL_EXPORTER_OTLP_PROTOCOL is http/json, which is not supported; using http/protobuf"
    ]


def test_without_the_extra_one_line_has_the_remedy(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(exporter, "find_spec", lambda name: None)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", HTTP)
    assert exporter.otlp() is None
    (line,) = caplog.messages
    assert "OTEL_EXPORTER_OTLP_PROTOCOL" in line
    assert "pip install 'queuehop[http]'" in line


@pytest.mark.parametrize(
    "endpoint",
    ["ftp://x:1", "http://", "https://x:port", "collector:4318", "unix:/run/x", "http://é"],
)
def test_an_endpoint_that_http_cannot_use_is_said_once(
    monkeypatch: pytest.MonkeyPatch, said: Callable[[], list[str]], endpoint: str
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", HTTP)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
    assert exporter.otlp() is None
    assert said() == ["OTEL_EXPORTER_OTLP_ENDPOINT"]


def test_a_password_in_the_url_is_a_header_and_never_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", HTTP)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "https://us%40er:p%3Aw@c:1/x?token=t0ken")
    target = exporter.otlp()
    assert target is not None
    assert target.endpoint == "https://c:1/x/v1/traces?token=t0ken"
    assert target.headers == (("authorization", "Basic dXNAZXI6cDp3"),)
    assert exporter.shown(target.endpoint) == "https://c:1/x/v1/traces"
    assert exporter.shown("https://user:secret@c") == "https://c"
    assert exporter.shown("c:4317") == "c:4317"


def test_lightstep_over_http_by_its_token_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", HTTP)
    monkeypatch.setenv("LS_ACCESS_TOKEN", "t0ken")
    target = exporter.otlp()
    assert target is not None
    assert target.endpoint == "https://ingest.lightstep.com:443/v1/traces"
    assert target.headers == (("lightstep-access-token", "t0ken"),)


def test_the_directory_on_disk_is_that_of_older_versions_over_grpc() -> None:
    """A hash of this description names it, and spans may wait in it."""
    assert repr(exporter.otlp()) == (
        "Otlp(endpoint='localhost:4317', insecure=True, headers=(), timeout=10.0, gzip=False, "
        "certificate=None, client_key=None, client_certificate=None)"
    )


def test_logs_go_where_spans_go_and_only_if_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert targets().logs is None
    monkeypatch.setenv("OTEL_LOGS_EXPORTER", "otlp")
    assert targets().logs == targets().traces
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "http://logs:4317")
    target = targets().logs
    assert target is not None
    assert target.endpoint == "logs:4317"
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert targets().logs is None


def test_over_http_logs_have_a_path_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_LOGS_EXPORTER", "otlp")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318/base")
    target = targets().logs
    assert target is not None
    assert target.endpoint == "http://collector:4318/base/v1/logs"


def test_an_exporter_of_logs_that_is_unknown_is_said_and_none_are_sent(
    monkeypatch: pytest.MonkeyPatch, said: Callable[[], list[str]]
) -> None:
    monkeypatch.setenv("OTEL_LOGS_EXPORTER", "console")
    assert not exporter.is_enabled("LOGS")
    assert said() == ["OTEL_LOGS_EXPORTER"]
