"""The files of compose.yaml and deploy/, run by the Collector and Jaeger: ``make test-backends``.

Each process has an address of its own in 127.0.0.0/8, so the ports are those in the files.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.monitoring import RULES, prometheus_names

from ..conftest import start_web, start_worker
from ..processes import ROOT, Process, Starter
from .backends import Balancer, Jaeger, components, overlay, start_collector, validate
from .prometheus import start_prometheus, wait_until
from .test_manifests import COLLECTOR, COLLECTORS
from .test_monitoring import load, needs_prometheus

pytestmark = pytest.mark.skipif(
    "QUEUEHOP_BACKENDS" not in os.environ, reason="no part of make test: make test-backends"
)

COMPOSE = ROOT / "deploy/otel-collector.yaml"

JAEGER, FRONT = "127.0.71.1", "127.0.71.2"
AGENTS, GATEWAYS = ("127.0.71.3", "127.0.71.4"), ("127.0.71.5", "127.0.71.6")

Spans = list[dict[str, Any]]


@pytest.fixture
def running() -> Iterator[list[Process]]:
    """Processes to be ended: put them in."""
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
    if "load_balancing" not in components() and "load_balancing" in paths[0].read_text():
        pytest.skip("this Collector was built without load_balancing")
    assert validate(*paths) == ""


def test_the_collector_refuses_what_is_wrong(tmp_path: Path) -> None:
    wrong = overlay(tmp_path / "wrong.yaml", {"receivers": {"otlp": {"protocol": {}}}})
    assert "protocol" in validate(COMPOSE, wrong)


def names(spans: Spans) -> list[str]:
    return sorted(span["operationName"] for span in spans)


def test_a_ping_is_one_trace_in_jaeger_with_its_links(
    jaeger: Jaeger, running: list[Process], start: Starter, tmp_path: Path
) -> None:
    addresses = overlay(tmp_path / "addresses.yaml", {
        "receivers": {"otlp": {"protocols": {"grpc": {"endpoint": f"{FRONT}:4317"}}}},
        "exporters": {"otlp_grpc": {"endpoint": jaeger.endpoint}},
        "extensions": {"health_check": {"endpoint": f"{FRONT}:13133"}},
    })  # fmt: skip
    running.append(start_collector(COMPOSE, addresses))
    start.env["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://{FRONT}:4317"
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


def references(span: dict[str, Any]) -> dict[str, list[str]]:
    """Return the ids of the spans that *span* refers to, by the kind of reference."""
    found: dict[str, list[str]] = {}
    for reference in span["references"]:
        found.setdefault(reference["refType"], []).append(reference["spanID"])
    return found


def agent(directory: Path, balancer: str) -> Path:
    """Return ``agent.yaml``, which sends to the gateways.

    A Collector without ``load_balancing`` has a plain exporter with its settings, to *balancer*.
    """
    config = yaml.safe_load((COLLECTOR / "agent.yaml").read_text())
    exporter = config["exporters"]["load_balancing"]
    if "load_balancing" in components():
        # A name with the address of each gateway would need a DNS server.
        exporter["resolver"] = {"static": {"hostnames": [f"{host}:4317" for host in GATEWAYS]}}
    else:
        del config["exporters"]["load_balancing"]
        config["exporters"]["otlp_grpc"] = {"endpoint": balancer, **exporter["protocol"]["otlp"]}
        config["service"]["pipelines"]["traces"]["exporters"] = ["otlp_grpc"]
    return overlay(directory / "agent.yaml", config)


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
        process = start_collector(*files, LISTEN=host)
        running.append(process)
        return process

    gateways = [gateway(host) for host in GATEWAYS]
    with Balancer(*[f"{host}:4317" for host in GATEWAYS]) as balancer:
        config = agent(tmp_path, balancer.endpoint)
        for host in AGENTS:
            running.append(start_collector(config, LISTEN=host))
        # Two hosts: the send comes through one agent, the run through the other.
        start.env["OTEL_METRIC_EXPORT_INTERVAL"] = "500"
        worker = start(
            *("celery", "-A", "tests.telemetry.celery.project", "worker", "--loglevel=INFO"),
            *("--concurrency", "2", "--without-gossip", "--without-mingle"),
            OTEL_EXPORTER_OTLP_ENDPOINT=f"http://{AGENTS[1]}:4317",
            QUEUEHOP_STATE_DIR=str(tmp_path / "worker"),
        )
        worker.wait_for_line(" ready.")
        start.env["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://{AGENTS[0]}:4317"

        def failed() -> dict[str, Spans]:
            """Return the traces of the failing task that are there as a whole."""
            return {
                trace_id: spans
                for trace_id, spans in jaeger.traces("worker").items()
                if names(spans) == ["process " + FAIL, "send " + FAIL]
            }

        load(start, "fail=20", "add=20")
        wait_until(lambda: len(failed()) == 20, 60, lambda: len(failed()))

        gateways[1].kill()
        load(start, "fail=20", "add=20")
        worker.wait_for_line(f"Task {FAIL}", count=40)
        gateway(GATEWAYS[1])
        load(start, "add=1")  # a sender for what the last one had to leave on disk
        wait_until(lambda: len(failed()) == 40, 90, lambda: len(failed()))
        # Both have judged some, and none was judged in halves.
        assert {int(trace_id[-1], 16) % 2 for trace_id in failed()} == {0, 1}
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


FAIL = "tests.telemetry.celery.project.fail"
