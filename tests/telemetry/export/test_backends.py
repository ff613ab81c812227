"""The settings in docs/backends.md reach a server with the requirements of the backend."""

import os
import re
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path

import grpc
import pytest
import trustme
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)

from telemetry.config import exporter
from telemetry.export.sender.deliveries import open_transport
from telemetry.export.sender.transport import ExportResult, Outcome
from telemetry.otlp.receiver import Receiver

from ...conftest import free_port
from ...processes import ROOT
from .conftest import Answered, HttpCollector, Program, Request

#: The requirements in the documentation of each: the path before that of the signal, and headers.
WANTED: Mapping[str, tuple[str, dict[str, str]]] = {
    "Grafana Cloud": ("/otlp", {"authorization": "Basic CREDENTIALS"}),
    "Honeycomb": ("", {"x-honeycomb-team": "KEY"}),
    "Lightstep": ("", {"lightstep-access-token": "TOKEN"}),
    "New Relic": ("", {"api-key": "KEY"}),
    "OpenTelemetry Collector": ("", {}),
    "Jaeger": ("", {}),
    "Tempo": ("", {"x-scope-orgid": "TENANT"}),
}
ONLY_TRACES = {"Jaeger", "Tempo"}


def rows() -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the backends and their variables in the page."""
    lines = iter((ROOT / "docs" / "backends.md").read_text().splitlines())
    header = next(line for line in lines if line.startswith("| backend"))
    variables = re.findall(r"`(\w+)`", header)
    next(lines)
    for line in lines:
        if not line.startswith("|"):
            return
        name, *cells = (cell.strip().strip("`") for cell in line.strip("|").split("|"))
        yield name, {k: v for k, v in zip(variables, cells, strict=True) if v}


ROWS = list(rows())


def test_every_backend_is_there_over_both_protocols() -> None:
    assert {name for name, _ in ROWS} == WANTED.keys()
    assert len(ROWS) == 2 * len(WANTED) - 1  # Grafana Cloud has no gRPC


@pytest.fixture
def authority(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> trustme.CA:
    """The authority that ``https://`` is to trust."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", str(tmp_path / "ca.pem"))
    return authority


def use(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], port: int) -> bool:
    """Set *variables*, with this machine as the host; return whether they require TLS."""
    for name, value in variables.items():
        if name == "OTEL_EXPORTER_OTLP_ENDPOINT":
            value = re.sub(r"//[^/]+", f"//127.0.0.1:{port}", value)
        monkeypatch.setenv(name, value)
    return variables["OTEL_EXPORTER_OTLP_ENDPOINT"].startswith("https:")


def export_both() -> tuple[ExportResult, ExportResult]:
    targets = exporter.targets()
    assert targets is not None
    assert targets.metrics is not None
    of_traces, of_metrics = open_transport(targets.traces), open_transport(targets.metrics)
    try:
        return of_traces.export("TRACES", b""), of_metrics.export("METRICS", b"")
    finally:
        of_traces.close()
        of_metrics.close()


def is_http(variables: dict[str, str]) -> bool:
    return variables["OTEL_EXPORTER_OTLP_PROTOCOL"] == "http/protobuf"


@pytest.mark.parametrize(
    ("name", "variables"),
    [row for row in ROWS if is_http(row[1])],
    ids=lambda value: str(value)[:9],
)
def test_over_http(
    http_collector: HttpCollector,
    monkeypatch: pytest.MonkeyPatch,
    authority: trustme.CA,
    name: str,
    variables: dict[str, str],
) -> None:
    base, headers = WANTED[name]
    paths = {f"{base}/v1/traces"} | (set() if name in ONLY_TRACES else {f"{base}/v1/metrics"})

    def respond(request: Request) -> Answered:
        if request.path not in paths:
            return Answered(404)
        if request.headers["content-type"] != "application/x-protobuf":
            return Answered(415)
        return Answered(200 if headers.items() <= request.headers.items() else 401)

    monkeypatch.setattr(http_collector, "respond", respond)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    is_tls = use(monkeypatch, variables, http_collector.port)
    http_collector.start(context if is_tls else None)
    traces, metrics = export_both()
    assert traces == ExportResult(Outcome.DELIVERED)
    assert metrics.missing if name in ONLY_TRACES else metrics == ExportResult(Outcome.DELIVERED)


@pytest.mark.parametrize(
    ("name", "variables"),
    [row for row in ROWS if not is_http(row[1])],
    ids=lambda value: str(value)[:9],
)
def test_over_grpc(
    monkeypatch: pytest.MonkeyPatch,
    authority: trustme.CA,
    name: str,
    variables: dict[str, str],
) -> None:
    port = free_port()
    credentials = None
    if use(monkeypatch, variables, port):
        identity = authority.issue_cert("127.0.0.1")
        chain = b"".join(pem.bytes() for pem in identity.cert_chain_pems)
        credentials = grpc.ssl_server_credentials([(identity.private_key_pem.bytes(), chain)])
    with Receiver(port=port, credentials=credentials) as receiver:
        assert export_both() == (ExportResult(Outcome.DELIVERED),) * 2
    assert WANTED[name][1].items() <= receiver.metadata[0].items()


def test_a_relative_path_of_a_certificate_is_that_of_the_process_that_set_up(
    program: Program, http_collector: HttpCollector, tmp_path: Path
) -> None:
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    http_collector.start(context)
    program.run(
        f"""
        os.chdir({str(tmp_path)!r})  # as a daemon may do
        spans(1)
        assert telemetry.flush(5)
        """,
        OTEL_EXPORTER_OTLP_ENDPOINT=http_collector.endpoint.replace("http:", "https:"),
        OTEL_EXPORTER_OTLP_PROTOCOL=http_collector.protocol,
        OTEL_EXPORTER_OTLP_CERTIFICATE=os.path.relpath(tmp_path / "ca.pem", ROOT),
    )
    assert http_collector.wait_for(1)["program1.0"] == 1


def test_each_signal_goes_to_the_path_of_its_backend(
    http_collector: HttpCollector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tempo, Prometheus and Loki, then VictoriaLogs in the place of Loki."""

    def respond(request: Request) -> Answered:
        http_collector.requests.append(request)
        return Answered(200)

    monkeypatch.setattr(http_collector, "respond", respond)
    http_collector.start()
    page = (ROOT / "docs" / "backends.md").read_text()
    for block in re.findall(r"```sh\n(.*?)```", page, re.DOTALL):
        for line in block.splitlines():
            name, _, value = line.partition("=")
            local = f"//127.0.0.1:{http_collector.port}"
            monkeypatch.setenv(name, re.sub(r"//[^/]+", local, value))
        found = exporter.targets()
        assert found is not None
        for signal, target in zip(("TRACES", "METRICS", "LOGS"), found, strict=True):
            transport = open_transport(target)
            assert transport.export(signal, b"") == ExportResult(Outcome.DELIVERED)
            transport.close()
    *both, logs = [request.path for request in http_collector.requests]
    assert both == [
        *("/v1/traces", "/api/v1/otlp/v1/metrics", "/otlp/v1/logs"),
        *("/v1/traces", "/api/v1/otlp/v1/metrics"),
    ]
    assert logs == "/insert/opentelemetry/v1/logs"
    assert http_collector.requests[-1].headers["vl-stream-fields"] == "service.name"


def test_lightstep_by_its_token_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The token alone does the same as the table's variables."""
    for name, variables in ROWS:
        if name != "Lightstep":
            continue
        with monkeypatch.context() as patched:
            for variable, value in variables.items():
                patched.setenv(variable, value)
            by_table = exporter.otlp()
            patched.delenv("OTEL_EXPORTER_OTLP_ENDPOINT")
            patched.delenv("OTEL_EXPORTER_OTLP_HEADERS")
            patched.setenv("LS_ACCESS_TOKEN", "TOKEN")
            assert exporter.otlp() == by_table is not None


def test_a_process_sends_traces_and_metrics_over_http(
    program: Program, http_collector: HttpCollector, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[str] = []
    take = http_collector.respond

    def respond(request: Request) -> Answered:
        if request.path != "/v1/metrics":
            return take(request)
        for resource in ExportMetricsServiceRequest.FromString(request.body).resource_metrics:
            measured.extend(metric.name for metric in resource.scope_metrics[0].metrics)
        return Answered(200)

    monkeypatch.setattr(http_collector, "respond", respond)
    http_collector.start()
    program.endpoint, program.protocol = http_collector.endpoint, http_collector.protocol
    process = program.run(
        """
        from telemetry.requests import traced_session

        try:
            traced_session().get("http://127.0.0.1:1/")
        except OSError:
            pass
        telemetry.flush()
        """
    )
    http_collector.wait_for(1)
    program.wait_for_sender_to_end()
    assert set(measured) == {"http.client.request.duration", "queuehop.spans.dropped"}
    assert process.output == ""


@pytest.mark.parametrize("spool", ["disk", "memory"])
def test_metrics_that_are_refused_are_said_and_cost_no_span(
    program: Program, http_collector: HttpCollector, monkeypatch: pytest.MonkeyPatch, spool: str
) -> None:
    take = http_collector.respond

    def respond(request: Request) -> Answered:
        return Answered(401) if request.path == "/v1/metrics" else take(request)

    monkeypatch.setattr(http_collector, "respond", respond)
    http_collector.start()
    program.endpoint, program.protocol = http_collector.endpoint, http_collector.protocol
    process = program.run(
        """
        from telemetry.export.spool import watch
        from telemetry.requests import traced_session

        watch.INTERVAL = 0.05
        logged = []

        class Printing(logging.StreamHandler):
            def emit(self, record):
                logged.append(record)
                super().emit(record)

        def measure():
            try:
                traced_session().get("http://127.0.0.1:1/")
            except OSError:
                pass
            telemetry.flush(0.5)

        logging.getLogger("telemetry").addHandler(Printing())
        until = time.monotonic() + 60
        while not logged and time.monotonic() < until:
            measure()
        measure()  # which says no more
        spans(1)
        telemetry.flush(0.5)
        """,
        QUEUEHOP_SPOOL=spool,
    )
    http_collector.wait_for(2)
    (line,) = process.lines
    assert line.startswith("metrics are not delivered, and wait ")
    assert line.endswith(f": {http_collector.endpoint}/v1/metrics answers 401 Unauthorized")
