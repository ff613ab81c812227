"""Delivery through a real collector: rotel, written in Rust, whose wheel has the program."""

import os
import subprocess
import sysconfig
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from telemetry.otlp.receiver import Receiver

from ...conftest import free_port
from ...processes import Process
from .conftest import Program

COUNT = 2_000


#: The program is linked to the library of the Python that its wheel is for.
ENV = {**os.environ, "LD_LIBRARY_PATH": sysconfig.get_config_var("LIBDIR") or ""}


def agent() -> str:
    """Return the path of the program in the wheel."""
    spec = find_spec("rotel")
    if spec is None or spec.origin is None:
        pytest.skip("rotel has no wheel for this Python")
    path = str(Path(spec.origin).with_name("rotel-agent"))
    if subprocess.run([path, "--version"], env=ENV, capture_output=True).returncode:
        pytest.skip("rotel needs a Python with a shared library")
    return path


@pytest.fixture
def ports(receiver: Receiver) -> Iterator[dict[str, int]]:
    """The ports of a rotel that passes on to ``receiver``, by protocol."""
    ports = {"grpc": free_port(), "http/protobuf": free_port()}
    process = Process(
        [
            *(agent(), "start", "--exporter", "otlp", "--batch-timeout", "50ms"),
            *("--otlp-grpc-endpoint", f"127.0.0.1:{ports['grpc']}"),
            *("--otlp-http-endpoint", f"127.0.0.1:{ports['http/protobuf']}"),
            *("--otlp-exporter-endpoint", receiver.endpoint),
        ],
        env=ENV,
    )
    yield ports
    process.kill()
    assert "ERROR" not in process.output, process.output


@pytest.mark.parametrize("compression", ["none", "gzip"])
@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_traces_and_metrics_come_through(
    program: Program, receiver: Receiver, ports: dict[str, int], protocol: str, compression: str
) -> None:
    program.protocol = protocol
    program.endpoint = f"http://127.0.0.1:{ports[protocol]}"
    process = program.run(
        f"""
        from telemetry.requests import traced_session

        spans({COUNT})
        for _ in range(7):
            try:
                traced_session().get("http://127.0.0.1:1/")
            except OSError:
                pass
        telemetry.flush()
        """,
        OTEL_EXPORTER_OTLP_COMPRESSION=compression,
    )
    spans = receiver.wait_for(lambda spans: len(spans) >= COUNT + 7, timeout=60)
    names = Counter(span.name for span in spans)
    assert names == {"GET": 7, **{f"program1.{number}": 1 for number in range(COUNT)}}
    assert {span.service for span in spans} == {"program1"}
    receiver.wait_for(lambda _: counted(receiver) == 7)
    assert process.output == ""


def counted(receiver: Receiver) -> int:
    """Return the number of requests in the last metrics."""
    if not receiver.metrics:
        return 0
    (metric,) = receiver.metrics[-1].resource_metrics[0].scope_metrics[0].metrics
    return int(metric.histogram.data_points[0].count)
