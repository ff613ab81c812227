"""A Prometheus, and a page with the metrics of a receiver, in the form of the Collector's."""

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)

from deploy.monitoring import label, prometheus_names

from ..conftest import free_port
from ..processes import Process


class Prometheus:
    """The API of a Prometheus at *url*."""

    def __init__(self, url: str) -> None:
        self.url = url

    def get(self, path: str, **parameters: str) -> Any:
        """Return the data that */api/v1/path* answers with."""
        with urlopen(f"{self.url}/api/v1/{path}?{urlencode(parameters)}", timeout=10) as answer:
            return json.load(answer)["data"]

    def query(self, expr: str) -> dict[str, float]:
        """Return the values of *expr*, each by the values of its labels."""
        found = {}
        for one in self.get("query", query=expr)["result"]:
            labels = sorted((name, value) for name, value in one["metric"].items())
            key = " ".join(value for name, value in labels if name != "__name__")
            found[key] = float(one["value"][1])
        return found

    def wait_for(self, expr: str, expected: dict[str, float], timeout: float = 60.0) -> None:
        """Wait until *expr* has the *expected* values."""
        wait_until(lambda: self.query(expr) == expected, timeout, lambda: (expr, self.query(expr)))


def wait_until(
    holds: Callable[[], bool], timeout: float, why: Callable[[], object] = lambda: ""
) -> None:
    """Wait until *holds* is true, for *timeout* seconds at most. The error shows *why* it is not.

    Prometheus sends no event after a scrape or an evaluation, so *holds* is called every 0.2 s.
    """
    deadline = time.monotonic() + timeout
    while not holds():
        assert time.monotonic() < deadline, why()
        time.sleep(0.2)


def start_prometheus(
    directory: Path,
    targets: Sequence[str],
    rules: str,
    *options: str,
    program: str = "prometheus",
    address: str = "",
) -> tuple[Process, Prometheus]:
    """Start a Prometheus that scrapes *targets* each second, and evaluates *rules* as often.

    Without *address* it listens on a free port.
    """
    directory.mkdir()
    (directory / "rules.yaml").write_text(rules.replace("interval: 30s", "interval: 1s"))
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": ["rules.yaml"],
        "scrape_configs": [
            {
                "job_name": "otel-agent",
                "honor_labels": True,
                "static_configs": [{"targets": list(targets)}],
            }
        ],
    }
    (directory / "prometheus.yaml").write_text(json.dumps(config))  # which is YAML too
    address = address or f"127.0.0.1:{free_port()}"
    argv = [
        *(program, f"--config.file={directory / 'prometheus.yaml'}"),
        *(f"--storage.tsdb.path={directory / 'data'}", f"--web.listen-address={address}"),
        *("--enable-feature=exemplar-storage", *options),
    ]
    process = started(argv, {}, "Server is ready to receive web requests")
    return process, Prometheus(f"http://{address}")


def started(argv: list[str], env: dict[str, str], line: str) -> Process:
    """Start *argv* and wait until it prints *line*."""
    process = Process(argv, env)
    try:
        process.wait_for_line(line)
    except BaseException:
        process.kill()
        raise
    return process


class Exposition:
    """Serves metrics that came over OTLP as the Collector's ``prometheus`` exporter does."""

    def __init__(self, requests: Callable[[], list[ExportMetricsServiceRequest]]) -> None:
        exposition = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = exposition.text(requests()).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/openmetrics-text; version=1.0.0")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                """Log nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._names = prometheus_names()
        self._samples: dict[tuple[str, str], list[str]] = {}
        self.target = f"127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "Exposition":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def text(self, requests: list[ExportMetricsServiceRequest]) -> str:
        """Return OpenMetrics text: the last point of each series."""
        for request in requests:
            for resource in request.resource_metrics:
                said = _plain(resource.resource.attributes)
                labels = {"job": said["service.name"], "instance": said["service.instance.id"]}
                for metric in resource.scope_metrics[0].metrics:
                    for series, lines in self._points(metric, labels):
                        self._samples[metric.name, series] = lines
        lines = []
        for name, translated in self._names.items():
            samples = [
                x for (found, _), some in self._samples.items() for x in some if found == name
            ]
            kind = "counter" if translated.endswith("_total") else "histogram"
            lines += [f"# TYPE {translated.removesuffix('_total')} {kind}", *samples]
        return "\n".join([*lines, "# EOF"]) + "\n"

    def _points(self, metric: Any, of: dict[str, str]) -> Iterator[tuple[str, list[str]]]:
        translated = self._names.get(metric.name)
        if translated is None:
            return
        for point in getattr(metric, metric.WhichOneof("data")).data_points:
            pairs = {**of, **{label(k): v for k, v in _plain(point.attributes).items()}}
            series = ",".join(f'{name}="{value}"' for name, value in pairs.items())
            if not hasattr(point, "bucket_counts"):
                yield series, [f"{translated}{{{series}}} {point.as_int}"]
                continue
            lines, count, below = [], 0, float("-inf")
            for bound, more in zip(
                [*point.explicit_bounds, float("inf")], point.bucket_counts, strict=True
            ):
                count += more
                le = "+Inf" if bound == float("inf") else f"{bound:g}"
                exemplars = [
                    f' # {{trace_id="{e.trace_id.hex()}",span_id="{e.span_id.hex()}"}} '
                    f"{e.as_double} {e.time_unix_nano / 1e9:.3f}"
                    for e in point.exemplars
                    if below < e.as_double <= bound
                ]
                lines.append(
                    f'{translated}_bucket{{{series},le="{le}"}} {count}{"".join(exemplars[:1])}'
                )
                below = bound
            lines.append(f"{translated}_count{{{series}}} {point.count}")
            lines.append(f"{translated}_sum{{{series}}} {point.sum}")
            yield series, lines


def _plain(pairs: Any) -> dict[str, str]:
    return {p.key: str(getattr(p.value, p.value.WhichOneof("value"))) for p in pairs}
