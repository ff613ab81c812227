"""The backends themselves, as ``make backends`` builds them."""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import urlopen

import yaml

from ..processes import ROOT, Process
from .prometheus import started

BUILT = Path(os.environ.get("QUEUEHOP_BACKENDS", ROOT / ".backends"))

READY = "Everything is ready"

#: The variables in the files.
VARIABLES = {"GATEWAY_HOST": "localhost", "CLICKHOUSE_PASSWORD": "x", "LS_ACCESS_TOKEN": "x"}


def validate(*configs: Path) -> str:
    """Return the Collector's error for *configs*, empty if there is none."""
    done = subprocess.run(
        [str(BUILT / "otelcol"), "validate", *_arguments(configs)],
        env=VARIABLES, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    return "" if done.returncode == 0 else done.stderr or "failed"


def start_collector(host: str, *configs: Path, **env: str) -> Process:
    """Start a Collector. Its own metrics are on *host* too, as ``sent_spans`` reads them."""
    pull = {"exporter": {"prometheus": {"host": host, "port": 8888}}}
    own = {"service": {"telemetry": {"metrics": {"readers": [{"pull": pull}]}}}}
    argv = [str(BUILT / "otelcol"), *_arguments(configs), "--config=env:OWN_METRICS"]
    return started(
        argv, {**VARIABLES, "LISTEN": host, "OWN_METRICS": json.dumps(own), **env}, READY
    )


def sent_spans(host: str) -> float:
    """Return how many spans the Collector on *host* has sent."""
    with urlopen(f"http://{host}:8888/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    found = [line for line in lines if line.startswith("otelcol_exporter_sent_spans")]
    return sum(float(line.rpartition(" ")[2]) for line in found)


def _arguments(configs: Sequence[Path]) -> list[str]:
    return [f"--config={path}" for path in configs]


class Jaeger:
    """A Jaeger that listens on one address of the loopback network."""

    def __init__(self, host: str) -> None:
        self.endpoint, self._url = f"{host}:4317", f"http://{host}:16686"
        self.process = started([str(BUILT / "jaeger")], {"JAEGER_LISTEN_HOST": host}, READY)

    def trace(self, trace_id: str) -> list[dict[str, Any]]:
        """Return the spans of a trace, none if there is no such trace."""
        try:
            return [s for trace in self._get(f"traces/{trace_id}") for s in trace["spans"]]
        except HTTPError as error:
            if error.code == 404:
                return []
            raise

    def traces(self, service: str) -> dict[str, list[dict[str, Any]]]:
        """Return the spans of all traces in which *service* takes part."""
        found = self._get(f"traces?{urlencode({'service': service, 'limit': 5000})}")
        return {trace["traceID"]: trace["spans"] for trace in found}

    def _get(self, path: str) -> list[dict[str, Any]]:
        with urlopen(f"{self._url}/api/{path}", timeout=10) as answer:
            data: list[dict[str, Any]] = json.load(answer)["data"]
            return data


class VictoriaLogs:
    """A VictoriaLogs that listens on one address of the loopback network."""

    def __init__(self, host: str, directory: Path) -> None:
        self._url = f"http://{host}:9428"
        argv = [
            *(str(BUILT / "victoria-logs"), f"-storageDataPath={directory}"),
            f"-httpListenAddr={host}:9428",
        ]
        self.process = started(argv, {}, "started server at")

    def query(self, text: str) -> list[dict[str, str]]:
        """Return the log records that the LogsQL query *text* finds."""
        form = urlencode({"query": text}).encode()
        with urlopen(f"{self._url}/select/logsql/query", form, timeout=10) as answer:
            return [json.loads(line) for line in answer]


def overlay(path: Path, changes: Mapping[str, Any]) -> Path:
    """Write *changes*, which the Collector merges into the files before."""
    path.write_text(yaml.safe_dump(dict(changes)))
    return path
