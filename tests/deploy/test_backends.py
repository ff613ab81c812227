"""Run the backends with the files of compose.yaml and deploy/ and the settings of docs/backends.md.

``make test-backends`` runs these tests.

Each process has an address of its own in 127.0.0.0/8, so the ports are those in the files.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.monitoring import DASHBOARD, RULES, WAITING, prometheus_names
from telemetry.otlp.receiver import Receiver

from ..conftest import start_web, start_worker
from ..processes import ROOT, Process, Starter
from ..telemetry.export.conftest import HttpCollector
from .backends import BUILT, Jaeger, VictoriaLogs, overlay, sent_spans, start_collector, validate
from .prometheus import start_prometheus, wait_until
from .test_manifests import COLLECTOR, COLLECTORS
from .test_monitoring import load, needs_prometheus

pytestmark = pytest.mark.skipif(
    "QUEUEHOP_BACKENDS" not in os.environ, reason="run by make test-backends"
)

COMPOSE = ROOT / "deploy/otel-collector.yaml"

JAEGER, FRONT = "127.0.71.1", "127.0.71.2"
AGENTS, GATEWAYS = ("127.0.71.3", "127.0.71.4"), ("127.0.71.5", "127.0.71.6")
PROMETHEUS, VICTORIALOGS = "127.0.71.7", "127.0.71.8"

PROJECT = "tests.telemetry.celery.project"
FAIL, LAST_WORDS = f"{PROJECT}.fail", f"{PROJECT}.last_words"
RUN, SEND = f"process {FAIL}", f"send {FAIL}"

Spans = list[dict[str, Any]]


@pytest.fixture
def running() -> Iterator[list[Process]]:
    """Processes to end after the test: append them."""
    processes: list[Process] = []
    yield processes
    for process in reversed(processes):
        process.kill()


@pytest.fixture
def jaeger(running: list[Process]) -> Jaeger:
    started = Jaeger(JAEGER)
    running.append(started.process)
    return started


@pytest.mark.parametrize("names", [None, *COLLECTORS.values()], ids=["compose", *COLLECTORS])
def test_the_collector_takes_the_files_as_they_are(names: tuple[str, ...] | None) -> None:
    paths = [COMPOSE] if names is None else [COLLECTOR / f"{name}.yaml" for name in names]
    assert validate(*paths) == ""


def test_the_collector_refuses_what_is_wrong(tmp_path: Path) -> None:
    wrong = overlay(tmp_path / "wrong.yaml", {"receivers": {"otlp": {"protocol": {}}}})
    assert "protocol" in validate(COMPOSE, wrong)


def test_promtool_takes_the_configuration_with_its_part_for_kubernetes(tmp_path: Path) -> None:
    for path in (ROOT / "deploy/prometheus.yaml", RULES):
        shutil.copy(path, tmp_path)
    argv = [str(BUILT / "promtool"), "check", "config", str(tmp_path / "prometheus.yaml")]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def dashboard_errors(board: str) -> str:
    """Return the places where *board* differs from Grafana's schema."""
    done = subprocess.run(
        [str(BUILT / "dashboard")], input=board, capture_output=True, text=True, timeout=60
    )
    return done.stdout + done.stderr


def test_the_dashboard_fits_grafanas_schema() -> None:
    board = DASHBOARD.read_text()
    assert dashboard_errors(board) == ""
    assert "unexpected field" in dashboard_errors(board.replace('"graphMode"', '"graph"'))


def names(spans: Spans) -> list[str]:
    return sorted(span["operationName"] for span in spans)


@pytest.fixture
def collector(jaeger: Jaeger, running: list[Process], start: Starter, tmp_path: Path) -> Process:
    """The Collector of compose.yaml, in front of Jaeger."""
    addresses = overlay(tmp_path / "addresses.yaml", {
        "receivers": {"otlp": {"protocols": {"grpc": {"endpoint": f"{FRONT}:4317"}}}},
        "exporters": {"otlp_grpc": {"endpoint": jaeger.endpoint}},
        "extensions": {"health_check": {"endpoint": f"{FRONT}:13133"}},
    })  # fmt: skip
    running.append(start_collector(FRONT, COMPOSE, addresses))
    return running[-1]


@pytest.mark.parametrize(
    ("protocol", "port"), [("grpc", 4317), ("http/protobuf", 4318)], ids=["grpc", "http"]
)
def test_a_ping_is_one_trace_in_jaeger(
    jaeger: Jaeger, start: Starter, protocol: str, port: int
) -> None:
    start.env["OTEL_EXPORTER_OTLP_PROTOCOL"] = protocol
    start.env["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://{JAEGER}:{port}"
    start.env["OTEL_METRICS_EXPORTER"] = "none"
    assert len(ping(jaeger, start)) == 3


def test_a_ping_is_one_trace_behind_the_collector_and_its_log_records_are_printed(
    jaeger: Jaeger, collector: Process, start: Starter
) -> None:
    start.env["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://{FRONT}:4317"
    start.env["OTEL_LOGS_EXPORTER"] = "otlp"
    for trace_id in ping(jaeger, start):
        # Two attempts log why they are retried.
        assert len(collector.lines_until(f"Trace ID: {trace_id}", count=2)) >= 2


def ping(jaeger: Jaeger, start: Starter) -> list[str]:
    """Ping three times; return the ids of the traces once Jaeger has all of their spans."""
    web, worker = start_web(start), start_worker(start)
    pings = start(
        *("app.client", "--count", "3", "--interval", "0.1", "--task", "retry"),
        *("--wait", "10"), DESTINATION_URL=f"{web}/ping",
    )  # fmt: skip
    assert pings.wait() == 0
    worker.stop()

    run = "process workers.tasks.retry"
    whole = sorted(["ping", "GET", "GET /ping", *["send workers.tasks.retry"] * 3, *[run] * 3])
    found: dict[str, Spans] = {}

    def arrived() -> bool:
        found.update(jaeger.traces("queuehop-client"))
        return len(found) == 3 and all(names(spans) == whole for spans in found.values())

    wait_until(arrived, 30, lambda: {key: names(spans) for key, spans in found.items()})
    for trace_id, spans in found.items():
        assert names(jaeger.trace(trace_id)) == whole
        known = {span["spanID"]: span for span in spans}
        (root,) = [span for span in spans if not span["references"]]
        assert root["operationName"] == "ping"
        for span in spans:
            assert {reference["traceID"] for reference in span["references"]} <= {trace_id}
            assert {reference["spanID"] for reference in span["references"]} <= known.keys()
        (server,) = [span["spanID"] for span in spans if span["operationName"] == "GET /ping"]
        (first,) = [key for key in known if references(known[key]) == {"CHILD_OF": [server]}]
        # Jaeger shows a link to the parent and not the parent beside it. Each attempt is linked to
        # the first send, and to the attempt before it.
        runs = [span for span in spans if span["operationName"] == run]
        runs.sort(key=lambda span: span["startTime"])
        for before, span in zip([None, *runs], runs, strict=False):
            expected = [first] if before is None else [first, before["spanID"]]
            assert references(span) == {"FOLLOWS_FROM": expected}
            attributes = {tag["key"]: tag["value"] for tag in span["tags"]}
            assert attributes["celery.task.name"] == "workers.tasks.retry"
            assert attributes["celery.wait.queue"] >= 0
    return list(found)


def references(span: dict[str, Any]) -> dict[str, list[str]]:
    """Return the ids of the spans that *span* refers to, by the kind of reference."""
    found: dict[str, list[str]] = {}
    for reference in span["references"]:
        found.setdefault(reference["refType"], []).append(reference["spanID"])
    return found


def printed(heading: str) -> dict[str, str]:
    """Return the variables that docs/backends.md has under *heading*."""
    page = (ROOT / "docs/backends.md").read_text()
    (block,) = re.findall(rf"^##+ {heading}\n.*?```sh\n(.*?)```", page, re.DOTALL | re.MULTILINE)
    return dict(line.split("=", 1) for line in block.splitlines())


def test_each_signal_goes_to_its_own_backend_without_a_collector(
    jaeger: Jaeger, running: list[Process], start: Starter, tmp_path: Path
) -> None:
    """Jaeger takes the place of Tempo, and VictoriaLogs that of Loki."""
    logs = VictoriaLogs(VICTORIALOGS, tmp_path / "logs")
    running.append(logs.process)
    process, prometheus = start_prometheus(
        *(tmp_path / "prometheus", [], RULES.read_text(), "--web.enable-otlp-receiver"),
        program=str(BUILT / "prometheus"), address=f"{PROMETHEUS}:9090",
    )  # fmt: skip
    running.append(process)
    hosts = {"tempo": JAEGER, "prometheus": PROMETHEUS, "victorialogs": VICTORIALOGS}
    for name, value in {
        **printed("Grafana stack: Tempo, Loki and Prometheus"),
        **printed("VictoriaLogs"),
    }.items():
        start.env[name] = re.sub(r"(?<=//)\w+(?=:)", lambda found: hosts[found[0]], value)
    start.env["OTEL_METRIC_EXPORT_INTERVAL"] = "500"
    worker = start_worker(start, PROJECT)
    load(start, "fail=3", "add=3", "last_words=1")
    worker.wait_for_line("WorkerLostError")

    # The child was killed as soon as it had logged this.
    text = "I am about to die"
    wait_until(lambda: len(logs.query(f'"{text}"')) == 1, 30, lambda: logs.query("*"))
    (last,) = logs.query(f'"{text}"')
    assert (last["_msg"], last["severity_text"], last["service.name"]) == (text, "WARN", "worker")
    assert last["_stream"] == '{service.name="worker"}'
    whole = sorted([f"send {LAST_WORDS}", f"process {LAST_WORDS}"])
    wait_until(lambda: names(jaeger.trace(last["trace_id"])) == whole, 30)
    wait_until(lambda: len(jaeger.traces("worker")) == 7, 30)
    failed = {
        trace_id for trace_id, s in jaeger.traces("worker").items() if names(s) == [RUN, SEND]
    }
    assert len(failed) == 3
    raised = '"exception.type":="LookupError"'
    wait_until(lambda: {record["trace_id"] for record in logs.query(raised)} == failed, 30)

    run = "messaging_process_duration_seconds_count"
    prometheus.wait_for(f"sum by (celery_task_state) ({run})", {"FAILURE": 4, "SUCCESS": 3})
    prometheus.wait_for("sum by (job) (messaging_client_sent_messages_total)", {"shop": 7})
    prometheus.wait_for(WAITING, {"celery": 0})
    rules = [r for group in prometheus.get("rules")["groups"] for r in group["rules"]]
    assert {rule["name"]: rule["health"] for rule in rules if rule["health"] != "ok"} == {}
    series = f"{prometheus_names()['celery.wait.queue']}_bucket"
    found = prometheus.get("query_exemplars", query=series, start="0", end="9999999999")
    linked = {e["labels"]["trace_id"] for one in found for e in one["exemplars"]}
    assert linked
    assert linked <= jaeger.traces("worker").keys()
    worker.stop()


@pytest.fixture
def loki() -> Iterator[HttpCollector]:
    """A server in Loki's place: it accepts OTLP over HTTP."""
    server = HttpCollector()
    server.takes_logs = True
    server.start()
    yield server
    server.stop()


@pytest.mark.parametrize("logs_to", ["lightstep", "loki"])
def test_each_signal_goes_where_the_configuration_sends_it(
    logs_to: str,
    running: list[Process],
    start: Starter,
    receiver: Receiver,
    loki: HttpCollector,
    tmp_path: Path,
) -> None:
    backends = overlay(tmp_path / "backends.yaml", {
        "exporters": {
            "otlp_grpc": {
                "endpoint": receiver.endpoint.removeprefix("http://"), "tls": {"insecure": True},
            },
            "otlp_http/loki": {"endpoint": f"http://127.0.0.1:{loki.port}/otlp"},
        },
        "processors": {"tail_sampling": {"decision_wait": "1s"}},
    })  # fmt: skip
    files = dict.fromkeys(["gateway", "lightstep", logs_to])
    host, gateway = AGENTS[0], GATEWAYS[0]
    running.append(start_collector(gateway, *[COLLECTOR / f"{f}.yaml" for f in files], backends))
    agent_files = [COLLECTOR / f"{name}.yaml" for name in ("agent", "agent-metrics", "agent-logs")]
    running.append(start_collector(host, *agent_files, GATEWAY_HOST=gateway))
    start.env.update(
        OTEL_EXPORTER_OTLP_ENDPOINT=f"http://{host}:4317",
        OTEL_LOGS_EXPORTER="otlp",
        OTEL_METRIC_EXPORT_INTERVAL="500",
    )
    worker = start_worker(start, PROJECT)
    load(start, "fail=1")

    spans = receiver.wait_for(lambda spans: {span.name for span in spans} >= {RUN, SEND}, 60)
    assert len({span.trace_id for span in spans}) == 1
    wait_until(lambda: "messaging.process.duration" in metric_names(receiver), 60)
    if logs_to == "loki":
        logs = loki.wait_for_logs(1, 60)
        assert {request.path for request in loki.requests} == {"/otlp/v1/logs"}
        assert not receiver.logs
    else:
        logs = receiver.wait_for_logs(len, 60)
    assert spans[0].trace_id in {log.trace_id for log in logs}
    worker.stop()


def metric_names(receiver: Receiver) -> set[str]:
    return {
        metric.name
        for request in receiver.metrics
        for resource in request.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }


@needs_prometheus
def test_two_gateways_keep_whole_traces_and_a_killed_one_comes_back(
    jaeger: Jaeger, running: list[Process], start: Starter, tmp_path: Path
) -> None:
    backend = overlay(tmp_path / "backend.yaml", {
        "exporters": {"otlp_grpc": {"endpoint": jaeger.endpoint}},
        "processors": {"tail_sampling": {"decision_wait": "5s"}},
    })  # fmt: skip

    def gateway(host: str) -> Process:
        files = (COLLECTOR / "gateway.yaml", COLLECTOR / "jaeger.yaml", backend)
        process = start_collector(host, *files)
        running.append(process)
        return process

    gateways = [gateway(host) for host in GATEWAYS]
    # One name with the addresses of both would need a DNS server.
    resolver = {"dns": None, "static": {"hostnames": [f"{host}:4317" for host in GATEWAYS]}}
    addresses = overlay(
        tmp_path / "addresses.yaml", {"exporters": {"load_balancing": {"resolver": resolver}}}
    )
    for host in AGENTS:
        running.append(start_collector(host, COLLECTOR / "agent.yaml", addresses))
    # On two hosts: the send goes through one agent, the run through the other.
    start.env["OTEL_METRIC_EXPORT_INTERVAL"] = "500"
    worker = start_worker(
        start,
        PROJECT,
        OTEL_EXPORTER_OTLP_ENDPOINT=f"http://{AGENTS[1]}:4317",
        QUEUEHOP_STATE_DIR=str(tmp_path / "worker"),
    )
    start.env["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://{AGENTS[0]}:4317"

    def failed() -> dict[str, Spans]:
        """Return the traces of the failing task that Jaeger has as a whole."""
        traces = jaeger.traces("worker").items()
        return {trace_id: spans for trace_id, spans in traces if names(spans) == [RUN, SEND]}

    load(start, "fail=20", "add=20")
    wait_until(lambda: len(failed()) == 20, 60, lambda: len(failed()))
    assert all(sent_spans(host) for host in GATEWAYS), "both have traces of their own"

    gateways[1].kill()
    load(start, "fail=20", "add=20")
    worker.wait_for_line(f"Task {FAIL}", count=40)
    gateway(GATEWAYS[1])
    load(start, "add=1")  # starts a sender for the spans that the last one left on disk
    wait_until(lambda: len(failed()) == 40, 90, lambda: len(failed()))
    assert all(sent_spans(host) for host in GATEWAYS)
    for trace_id, spans in jaeger.traces("worker").items():
        assert len(names(spans)) == 2, (trace_id, names(spans))

    process, prometheus = start_prometheus(
        tmp_path / "prometheus", [f"{host}:8889" for host in AGENTS], RULES.read_text()
    )
    running.append(process)
    state = "sum by (celery_task_state) (messaging_process_duration_seconds_count)"
    prometheus.wait_for(state, {"FAILURE": 40, "SUCCESS": 41})
    prometheus.wait_for("sum(messaging_client_sent_messages_total)", {"": 81})
    for name in prometheus_names().values():
        suffix = "" if name.endswith("_total") else "_bucket"
        assert prometheus.query(f"count({name}{suffix})"), name
    assert prometheus.query("sum by (job) (queuehop_spans_dropped_total)") == {"queuehop": 0}
    series = f"{prometheus_names()['celery.wait.queue']}_bucket"
    found = prometheus.get("query_exemplars", query=series, start="0", end="9999999999")
    assert {e["labels"]["trace_id"] for one in found for e in one["exemplars"]}
    worker.stop()
