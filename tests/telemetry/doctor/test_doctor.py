"""Break one thing of a real system: the doctor names it, and nothing else comes first."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import grpc
import pytest
import trustme
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)

from telemetry.viewer.receiver import Receiver

from ...conftest import free_port
from ...processes import ROOT, Process, Starter

PROJECT = "tests.telemetry.doctor.project"
BOTH = ("--celery", f"{PROJECT}:celery", "--flask", f"{PROJECT}:create_app")
Doctor = Callable[..., tuple[int, dict]]


@pytest.fixture
def doctor(start: Starter, tmp_path: Path) -> Doctor:
    """Run the doctor in the environment of the system; return its status and what it says."""

    def run(*args: str, **env: str) -> tuple[int, dict]:
        named = args or BOTH
        done = subprocess.run(
            [sys.executable, "-m", "telemetry", "doctor", "--json", *named],
            env={
                "PATH": os.environ["PATH"],
                "HOME": os.environ.get("HOME", "/"),
                **start.env,
                "QUEUEHOP_STATE_DIR": str(tmp_path),
                **env,
            },
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode in (0, 1), done.stderr
        return done.returncode, json.loads(done.stdout)

    return run


@pytest.fixture
def worker(start: Starter) -> Callable[..., Process]:
    def run(*args: str, **env: str) -> Process:
        process = start(
            *("celery", "-A", f"{PROJECT}:celery", "worker", "-c", "1", "-l", "INFO", *args),
            **env,
        )
        process.wait_for_line(" ready.")
        return process

    return run


def first(said: tuple[int, dict]) -> str:
    status, report = said
    assert status == 1
    return report["findings"][0]["code"]


def codes(said: tuple[int, dict]) -> list[str]:
    return [finding["code"] for finding in said[1]["findings"]]


@pytest.mark.parametrize("pool", ["prefork", "solo", "threads"])
def test_a_sound_system_is_one_trace(doctor: Doctor, worker, receiver: Receiver, pool) -> None:
    worker("--pool", pool)
    assert doctor() == (0, {"ok": True, "findings": []})
    spans = receiver.wait_for(lambda spans: len({span.name for span in spans}) == 3)
    assert len({span.trace_id for span in spans}) == 1
    assert {span.service for span in spans} == {"project-web", "project-worker"}


@pytest.mark.parametrize(
    "code",
    ["no-provider", "flask-not-instrumented", "flask-doubled"],
)
def test_the_web_side(doctor: Doctor, worker, code: str) -> None:
    worker()
    assert codes(doctor(BREAK=code)) == [code]


@pytest.mark.parametrize(
    ("code", "env"),
    [
        ("propagator-missing", {"OTEL_PROPAGATORS": "baggage"}),
        ("sampler-drops-all", {"OTEL_TRACES_SAMPLER": "always_off"}),
        ("sampler-drops-all", {"OTEL_TRACES_SAMPLER": "traceidratio",
                               "OTEL_TRACES_SAMPLER_ARG": "0"}),
        ("service-name-default", {"BREAK": "service-name-default"}),
        ("celery-not-instrumented", {"BREAK": "celery-not-instrumented"}),
        ("celery-doubled", {"BREAK": "celery-doubled"}),
        ("header-stripped", {"BREAK": "header-stripped"}),
        ("broker-unreachable", {"CELERY_BROKER_URL": "redis://127.0.0.1:1/0"}),
    ],
)  # fmt: skip
def test_the_sending_side(doctor: Doctor, worker, code: str, env: dict[str, str]) -> None:
    worker()
    assert first(doctor(**env)) == code


@pytest.mark.parametrize(
    ("code", "env"),
    [
        ("worker-not-instrumented", {"BREAK": "celery-not-instrumented"}),
        ("service-name-default", {"BREAK": "service-name-default"}),
        ("celery-doubled", {"BREAK": "celery-doubled"}),
        ("set-up-only-in-parent", {"BREAK": "set-up-only-in-parent"}),
        ("set-up-only-in-children", {"BREAK": "set-up-only-in-children"}),
        ("clocks-apart", {"BREAK": "clocks-apart"}),
        ("run-apart", {"BREAK": "run-apart"}),
        ("no-provider", {"OTEL_SDK_DISABLED": "true"}),
        ("propagator-missing", {"OTEL_PROPAGATORS": "baggage"}),
        ("sampler-drops-all", {"OTEL_TRACES_SAMPLER": "always_off"}),
        ("worker-export-failed", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1",
                                  "OTEL_EXPORTER_OTLP_TIMEOUT": "1"}),
    ],
)  # fmt: skip
def test_the_worker(doctor: Doctor, worker, code: str, env: dict[str, str]) -> None:
    worker(**env)
    found = codes(doctor())
    # A worker that reads no context has both: that it does not, and what comes of it.
    assert found == ([code, "run-apart"] if code == "propagator-missing" else [code])


def test_no_worker(doctor: Doctor) -> None:
    assert codes(doctor()) == ["no-worker"]


def test_a_queue_without_worker(doctor: Doctor, worker) -> None:
    worker("-Q", "other")
    assert codes(doctor()) == ["queue-not-consumed"]


def test_a_pool_that_nobody_has_tried(doctor: Doctor, worker) -> None:
    worker("--pool", "custom", CELERY_CUSTOM_WORKER_POOL=f"{PROJECT}:OwnPool")
    assert codes(doctor()) == ["pool-not-covered"]


def test_a_worker_that_does_not_come_to_the_probe(doctor: Doctor, worker) -> None:
    main = worker().pid
    (child,) = map(int, Path(f"/proc/{main}/task/{main}/children").read_text().split())
    os.kill(child, signal.SIGSTOP)
    try:
        assert codes(doctor(*BOTH, "--timeout", "1")) == ["probe-unanswered"]
    finally:
        os.kill(child, signal.SIGCONT)


def test_a_directory_that_cannot_be_written(doctor: Doctor, worker, tmp_path: Path) -> None:
    worker()
    (tmp_path / "file").touch()
    said = doctor(QUEUEHOP_STATE_DIR=str(tmp_path / "file"))
    assert codes(said) == ["directory-not-writable"]


def exporter(doctor: Doctor, endpoint: str, **env: str) -> list[str]:
    """What is said of *endpoint* where no worker is needed."""
    said = doctor(
        *("--flask", f"{PROJECT}:create_app"), OTEL_EXPORTER_OTLP_ENDPOINT=endpoint,
        OTEL_EXPORTER_OTLP_TIMEOUT="1", **env,
    )  # fmt: skip
    return codes(said)


def test_a_name_that_does_not_resolve(doctor: Doctor) -> None:
    assert exporter(doctor, "http://collector.invalid:4317") == ["exporter-dns"]


def test_nothing_listens(doctor: Doctor) -> None:
    assert exporter(doctor, f"http://127.0.0.1:{free_port()}") == ["exporter-refused"]


def test_an_address_that_says_nothing(doctor: Doctor) -> None:
    """A listener whose queue is full: the kernel drops what else wants to connect."""
    with socket.socket() as full, ExitStack() as waiting:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(2):
            one = waiting.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        endpoint = f"http://127.0.0.1:{full.getsockname()[1]}"
        assert exporter(doctor, endpoint) == ["exporter-unreachable"]


def test_a_collector_that_fails(doctor: Doctor) -> None:
    class Failing(TraceServiceServicer):
        def Export(self, request, context):
            context.abort(grpc.StatusCode.INTERNAL, "no room")

    with ThreadPoolExecutor(1) as pool:
        server = grpc.server(pool)
        add_TraceServiceServicer_to_server(Failing(), server)
        endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        assert exporter(doctor, endpoint) == ["exporter-failed"]
        server.stop(None).wait()


def test_an_address_of_no_use(doctor: Doctor) -> None:
    assert exporter(doctor, "ftp://127.0.0.1:4317") == ["exporter-endpoint-unusable"]


@pytest.fixture
def http_port() -> Iterator[int]:
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_the_port_for_http(doctor: Doctor, http_port: int) -> None:
    assert exporter(doctor, f"http://127.0.0.1:{http_port}") == ["exporter-wrong-protocol"]


@pytest.fixture
def authority(tmp_path: Path) -> trustme.CA:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return authority


@pytest.fixture
def secure(authority: trustme.CA) -> Iterator[Receiver]:
    issued = authority.issue_cert("127.0.0.1")
    key, chain = issued.private_key_pem.bytes(), [each.bytes() for each in issued.cert_chain_pems]
    with Receiver(credentials=grpc.ssl_server_credentials([(key, b"".join(chain))])) as receiver:
        yield receiver


def test_tls(doctor: Doctor, secure: Receiver, receiver: Receiver, tmp_path: Path) -> None:
    trusted = {"OTEL_EXPORTER_OTLP_CERTIFICATE": str(tmp_path / "ca.pem")}
    plain = secure.endpoint.replace("https", "http")
    assert exporter(doctor, secure.endpoint, **trusted) == []
    assert exporter(doctor, secure.endpoint) == ["exporter-tls-untrusted"]
    assert exporter(doctor, plain) in (["exporter-plain-to-tls"], ["exporter-no-grpc"])
    to_plain = receiver.endpoint.replace("http", "https")
    assert exporter(doctor, to_plain, **trusted) == ["exporter-tls"]


class Guarded(grpc.ServerInterceptor):
    """Takes exports with a token only."""

    def intercept_service(self, continuation, details):
        if ("token", "right") in details.invocation_metadata:
            return continuation(details)
        return grpc.unary_unary_rpc_method_handler(
            lambda request, context: context.abort(grpc.StatusCode.UNAUTHENTICATED, "who?")
        )


def test_grpc_that_refuses(doctor: Doctor) -> None:
    with ThreadPoolExecutor(1) as pool:
        server = grpc.server(pool, interceptors=[Guarded()])
        endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        assert exporter(doctor, endpoint) == ["exporter-unauthenticated"]
        with_token = {"OTEL_EXPORTER_OTLP_HEADERS": "token=right"}
        assert exporter(doctor, endpoint, **with_token) == ["exporter-no-otlp"]
        server.stop(None).wait()


@pytest.mark.parametrize(
    "args", [[], ["--celery", "no_such_module"], ["--flask", "no_such_module"], ["--what"]]
)
def test_usage(args: list[str]) -> None:
    done = subprocess.run([sys.executable, "-m", "telemetry", "doctor", *args], cwd=ROOT)
    assert done.returncode == 2


def test_what_a_person_reads(start: Starter) -> None:
    args = ("--flask", f"{PROJECT}:create_app")
    process = start("telemetry", "doctor", *args, BREAK="no-provider")
    assert process.wait(30) == 1
    assert process.lines[0] == "The trace would break first at: web"
    assert "telemetry.setup()" in process.output
    assert "\x1b" not in process.output
