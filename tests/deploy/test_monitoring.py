"""Prometheus' rules and Grafana's dashboard agree with the code, and run in a real Prometheus."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy import monitoring
from deploy.monitoring import DASHBOARD, RULES, prometheus_names
from telemetry.otlp.receiver import Receiver

from ..conftest import Broker
from ..processes import ROOT, Process, Starter
from ..system import producer
from .prometheus import Exposition, Prometheus, start_prometheus, wait_until

needs_prometheus = pytest.mark.skipif(
    not (shutil.which("prometheus") and shutil.which("promtool")),
    reason="Prometheus is not installed: apt install prometheus",
)


def promtool(*argv: str) -> None:
    done = subprocess.run(
        ["promtool", *argv], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr


def panels() -> Iterator[tuple[str, str]]:
    """Yield the title and the expression of each panel of the dashboard."""
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel.get("targets", ()):
            expr = target["expr"].replace("$__rate_interval", "1m")
            yield panel["title"], expr.replace("$queue", ".*").replace("$task", ".*")


def recorded() -> set[str]:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return {rule["record"] for group in groups for rule in group["rules"] if "record" in rule}


@pytest.mark.parametrize(
    ("path", "written"), [(RULES, monitoring.rules), (DASHBOARD, monitoring.dashboard)]
)
def test_the_files_are_those_that_the_script_writes(path: Path, written: Any) -> None:
    assert path.read_text() == written(), "stale: run `make monitoring`"


def test_everything_that_is_asked_for_is_measured_or_recorded() -> None:
    exprs = [expr for _, expr in panels()]
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        exprs += [rule["expr"] for rule in group["rules"]]
    asked = {name for expr in exprs for name in re.findall(r"\b[a-z_]+(?=[{\[])", expr)}
    measured = {
        name + suffix
        for name in prometheus_names().values()
        for suffix in ("", "_bucket", "_count")
    }
    assert len(asked) > 5
    assert asked <= measured | {name.rpartition(":")[2] for name in recorded()} | {"seconds"}
    named = {name for expr in exprs for name in re.findall(r"[a-z_]+:[a-z_]+:\w+", expr)}
    assert named <= recorded()


def test_no_panel_lies_on_another() -> None:
    board = json.loads(DASHBOARD.read_text())
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        assert place["x"] + place["w"] <= 24
        taken |= cells
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


@needs_prometheus
def test_promtool_takes_the_rules_and_their_tests() -> None:
    promtool("check", "rules", str(RULES))
    promtool("test", "rules", *map(str, sorted((ROOT / "tests/deploy").glob("*-rules.yaml"))))


@needs_prometheus
def test_promtool_takes_the_configuration(tmp_path: Path) -> None:
    config = yaml.safe_load((ROOT / "deploy/prometheus.yaml").read_text())
    assert config["rule_files"] == [RULES.name]
    for job in config["scrape_configs"]:
        del job["kubernetes_sd_configs"]  # which Debian's is built without
    shutil.copy(RULES, tmp_path)
    (tmp_path / "prometheus.yaml").write_text(yaml.safe_dump(config))
    promtool("check", "config", str(tmp_path / "prometheus.yaml"))


@pytest.fixture
def prometheus(receiver: Receiver, tmp_path: Path) -> Iterator[Prometheus]:
    """A Prometheus that has the rules, and scrapes what ``receiver`` gets."""
    with Exposition(lambda: receiver.metrics) as exposition:
        process, running = start_prometheus(
            tmp_path / "prometheus", [exposition.target], RULES.read_text()
        )
        try:
            yield running
        finally:
            process.stop()


def load(start: Starter, *tasks: str) -> None:
    assert start("tests.deploy.load", *tasks).wait() == 0


@needs_prometheus
def settled(prometheus: Prometheus, expr: str) -> float:
    """Return the value for the queue ``celery`` once it has stayed the same for many answers."""
    values: list[float] = []

    def stays() -> bool:
        values.append(prometheus.query(expr)["celery"])
        return len(values) >= 25 and len(set(values[-25:])) == 1

    wait_until(stays, 60)
    return values[-1]


def test_prometheus_evaluates_it_all_on_real_load(
    prometheus: Prometheus, start: Starter, broker: Broker, receiver: Receiver
) -> None:
    start.env["OTEL_METRIC_EXPORT_INTERVAL"] = "200"
    worker: Process = start(
        *("celery", "-A", "tests.telemetry.celery.project", "worker", "--loglevel=INFO"),
        *("--concurrency", "2", "--without-gossip", "--without-mingle"),
    )
    worker.wait_for_line(" ready.")
    ended = "sum by (celery_task_state) (messaging_process_duration_seconds_count)"
    # Twice: Prometheus does not count the first value of a counter as an increase.
    load(start, "add=4", "fail=1", "retry=1")
    prometheus.wait_for(ended, {"SUCCESS": 5, "FAILURE": 1, "RETRY": 2})
    load(start, "add=4", "fail=1", "retry=1")
    prometheus.wait_for(ended, {"SUCCESS": 10, "FAILURE": 2, "RETRY": 4})
    name = "tests.telemetry.celery.project"
    prometheus.wait_for(f"{monitoring.FAILURES} > bool 0.05", {f"{name}.fail celery": 1.0})
    prometheus.wait_for(f"{monitoring.RETRIES} > bool 0.25", {f"{name}.retry celery": 1.0})
    for title, expr in panels():
        # None of this has happened, so these panels have no line.
        if title not in ("Sends that failed",):
            assert prometheus.query(expr), (title, expr)

    with producer(broker.url) as app:
        (answer,) = app.control.cancel_consumer("celery", reply=True, timeout=10, limit=1)
    assert "ok" in next(iter(answer.values()))
    # While the rules are young, what a process had counted at its first scrape is missing.
    difference = "queue:queuehop_sent:increase1d - queue:queuehop_taken:increase1d"
    before = settled(prometheus, difference)
    load(start, "add=7")
    prometheus.wait_for(difference, {"celery": before + 7})
    prometheus.wait_for(monitoring.WAITING, {"celery": max(0, before + 7)})

    alerts = {alert["labels"]["alertname"] for alert in prometheus.get("alerts")["alerts"]}
    assert alerts == {"QueuehopFailures", "QueuehopRetries"}
    rules = [r for group in prometheus.get("rules")["groups"] for r in group["rules"]]
    assert {rule["name"]: rule["lastError"] for rule in rules if rule.get("lastError")} == {}
    assert {rule["health"] for rule in rules} == {"ok"}

    series = f"{prometheus_names()['celery.wait.queue']}_bucket"
    found = prometheus.get("query_exemplars", query=series, start="0", end="9999999999")
    linked = {e["labels"]["trace_id"] for one in found for e in one["exemplars"]}
    assert linked
    assert linked <= {span.trace_id for span in receiver.spans}
    worker.stop()
