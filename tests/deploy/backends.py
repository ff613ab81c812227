"""The Collector and Jaeger themselves, as ``make backends`` builds them."""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import urlopen

import grpc
import yaml
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from ..processes import ROOT, Process
from .prometheus import started

BUILT = Path(os.environ.get("QUEUEHOP_BACKENDS", ROOT / ".backends"))

READY = "Everything is ready"

#: What the files want from the environment.
VARIABLES = {"GATEWAY_HOST": "localhost", "CLICKHOUSE_PASSWORD": "x", "LS_ACCESS_TOKEN": "x"}


@cache
def components() -> set[str]:
    """Return the names of the components that the Collector was built with."""
    argv = [str(BUILT / "otelcol"), "components"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    kinds = yaml.safe_load(done.stdout)
    return {
        component["name"]
        for kind in ("receivers", "processors", "exporters", "extensions")
        for component in kinds[kind]
    }


def validate(*configs: Path) -> str:
    """Return what the Collector has against *configs*, empty if nothing."""
    done = subprocess.run(
        [str(BUILT / "otelcol"), "validate", *_arguments(configs)],
        env=VARIABLES, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    return "" if done.returncode == 0 else done.stderr or "failed"


def start_collector(*configs: Path, **env: str) -> Process:
    # Its own metrics are at localhost:8888 by default, of which there is one.
    env["OWN_METRICS"] = "service: {telemetry: {metrics: {level: none}}}"
    argv = [str(BUILT / "otelcol"), *_arguments(configs), "--config=env:OWN_METRICS"]
    return started(argv, {**VARIABLES, **env}, READY)


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


def overlay(path: Path, changes: Mapping[str, Any]) -> Path:
    """Write *changes* for the Collector to merge over the files before."""
    path.write_text(yaml.safe_dump(dict(changes)))
    return path


class Balancer:
    """Stands in for ``load_balancing``: passes each trace on to one of *targets*, by its id.

    It answers as its targets do, and keeps nothing.
    """

    _METHOD = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"

    def __init__(self, *targets: str) -> None:
        self._channels = [grpc.insecure_channel(target) for target in targets]
        self._exports = [channel.unary_unary(self._METHOD) for channel in self._channels]
        handler = grpc.unary_unary_rpc_method_handler(self._pass_on)
        service = self._METHOD.split("/")[1]
        self._server = grpc.server(ThreadPoolExecutor(max_workers=4))
        self._server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler(service, {"Export": handler})]
        )
        self.endpoint = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    def __enter__(self) -> "Balancer":
        self._server.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.stop(None).wait()
        for channel in self._channels:
            channel.close()

    def _pass_on(self, body: bytes, context: grpc.ServicerContext) -> bytes:
        for number, export in enumerate(self._exports):
            request = ExportTraceServiceRequest.FromString(body)
            for resource in request.resource_spans:
                for scope in resource.scope_spans:
                    here = [s for s in scope.spans if s.trace_id[-1] % len(self._exports) == number]
                    del scope.spans[:]
                    scope.spans.extend(here)
            try:
                export(request.SerializeToString(), timeout=5)
            except grpc.RpcError as error:
                context.abort(error.code(), error.details())
        return ExportTraceServiceResponse().SerializeToString()
