"""Break one thing of a real system: the doctor names it, and nothing else comes first."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from telemetry.otlp.receiver import Receiver

from ...processes import ROOT, Starter
from ...test_wheel import UV, run
from .conftest import BOTH, QUEUE, WEB, Doctor, below, codes, first, hints


@pytest.mark.parametrize("pool", ["prefork", "solo", "threads"])
def test_a_sound_system_is_one_trace(doctor: Doctor, worker, receiver: Receiver, pool) -> None:
    worker("--pool", pool)
    assert doctor() == (0, {"ok": True, "findings": []})
    spans = receiver.wait_for(lambda spans: len({span.name for span in spans}) == 4)
    (run,) = (span for span in spans if span.kind == "CONSUMER")
    probe = [span for span in spans if span.trace_id == run.trace_id]
    assert [span.kind for span in probe] == ["PRODUCER", "INTERNAL", "CONSUMER"]
    assert {span.service for span in probe} == {"project-web", "project-worker"}
    # So the viewer does not count them.
    assert {span.trace_state for span in spans} == {"queuehop=doctor"}


@pytest.mark.parametrize(
    "code",
    ["no-provider", "provider-without-exporter", "flask-not-instrumented"],
)
def test_the_web_side(sound: Doctor, code: str) -> None:
    assert codes(sound(BREAK=code)) == [code]


@pytest.fixture(scope="module")
def with_contribs_flask(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An interpreter of its own, since contrib's Flask package needs another SDK."""
    venv = tmp_path_factory.mktemp("venv")
    run(UV, "venv", "--python", sys.executable, str(venv), "--clear")
    python = str(venv / "bin" / "python")
    run(UV, "pip", "install", "--python", python, "-r", str(ROOT / "bench/requirements.lock"))
    return python


@pytest.mark.parametrize("how", ["flask-doubled", "flask-doubled-for-all"])
def test_contribs_flask_as_well(doctor: Doctor, with_contribs_flask: str, how: str) -> None:
    assert codes(doctor(*WEB, python=with_contribs_flask)) == []
    assert codes(doctor(*WEB, python=with_contribs_flask, BREAK=how)) == ["flask-doubled"]


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
    ],
)  # fmt: skip
def test_the_sending_side(sound: Doctor, code: str, env: dict[str, str]) -> None:
    assert codes(sound(**env)) == [code]


@pytest.mark.parametrize(
    ("code", "env"),
    [
        ("worker-not-instrumented", {"BREAK": "celery-not-instrumented"}),
        ("service-name-default", {"BREAK": "service-name-default"}),
        ("celery-doubled", {"BREAK": "celery-doubled"}),
        ("set-up-only-in-parent", {"BREAK": "set-up-only-in-parent"}),
        ("set-up-only-in-children", {"BREAK": "set-up-only-in-children"}),
        ("clocks-apart", {"BREAK": "clocks-apart"}),
        ("clocks-apart", {"BREAK": "clocks-apart", "AHEAD": "0.5"}),
        ("clocks-apart", {"BREAK": "clocks-apart", "AHEAD": "2.2"}),
        ("clocks-apart", {"BREAK": "clocks-apart", "AHEAD": "-0.5"}),
        ("run-apart", {"BREAK": "run-apart"}),
        ("no-provider", {"OTEL_SDK_DISABLED": "true"}),
        ("propagator-missing", {"OTEL_PROPAGATORS": "baggage"}),
        ("sampler-drops-all", {"OTEL_TRACES_SAMPLER": "always_off"}),
        ("sampler-drops-all", {"OTEL_TRACES_SAMPLER": "traceidratio",
                               "OTEL_TRACES_SAMPLER_ARG": "0.99"}),
        ("provider-without-exporter", {"BREAK": "another-provider-in-children"}),
        ("worker-export-failed", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1",
                                  "OTEL_EXPORTER_OTLP_TIMEOUT": "1"}),
    ],
)  # fmt: skip
def test_the_worker(doctor: Doctor, worker, code: str, env: dict[str, str]) -> None:
    worker(**env)
    said = doctor()
    assert codes(said) == [code]
    # A consequence is not a finding of its own.
    explained = {"propagator-missing": ["run-apart"], "set-up-only-in-children": ["no-provider"]}
    assert below(first(said)) == explained.get(code, [])


def test_a_worker_whose_spans_nobody_sends(doctor: Doctor, worker, tmp_path: Path) -> None:
    worker(BREAK="no-sender", QUEUEHOP_STATE_DIR=str(tmp_path / "of-the-worker"))
    said = first(doctor())
    assert said["code"] == "worker-export-failed"
    assert "the process that sends spans is missing" in said["problem"]


@pytest.mark.parametrize("off", [{"OTEL_SDK_DISABLED": "true"}, {"OTEL_TRACES_EXPORTER": "none"}])
def test_tracing_is_turned_off(doctor: Doctor, off: dict[str, str]) -> None:
    said = doctor(*WEB, **off)
    assert codes(said) == ["no-provider"]
    ((name, value),) = off.items()
    assert f"{name}={value}" in first(said)["problem"]
    assert name in first(said)["remedy"]
    assert hints(said) == []


def test_a_propagator_that_is_not_installed(doctor: Doctor) -> None:
    assert codes(doctor(*WEB, OTEL_PROPAGATORS="pigeon")) == ["propagator-missing"]


def test_why_the_worker_exports_nothing(doctor: Doctor, worker) -> None:
    worker(OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1")
    said = first(doctor())
    assert "Connection refused" in said["problem"]
    assert "start the collector" in said["remedy"]


def test_an_exporter_of_the_applications_own_is_its_affair(doctor: Doctor) -> None:
    away = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_SERVICE_NAME": "project-web"}
    said = doctor(*WEB, BREAK="own-provider", **away)
    assert codes(said) == []
    assert hints(said) == ["provider-foreign"]


def test_a_collector_that_both_sides_do_not_reach(doctor: Doctor, worker) -> None:
    """It is one finding. The worker's report is below it."""
    away = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}
    worker(**away)
    said = doctor(**away)
    assert codes(said) == ["exporter-refused"]
    assert below(first(said)) == ["worker-export-failed"]


def test_a_directory_that_cannot_be_written(sound: Doctor, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    said = sound(QUEUEHOP_STATE_DIR=str(tmp_path / "file"))
    assert codes(said) == ["directory-not-writable"]


def test_a_directory_that_the_worker_cannot_write(doctor: Doctor, worker, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    worker(QUEUEHOP_STATE_DIR=str(tmp_path / "file"))
    said = doctor()
    assert codes(said) == ["directory-not-writable"]
    assert first(said)["hop"] == "worker"
    said = doctor(QUEUEHOP_STATE_DIR=str(tmp_path / "file"))
    assert codes(said) == below(first(said)) == ["directory-not-writable"]


def test_a_disk_that_is_full_for_the_worker(doctor: Doctor, worker) -> None:
    """The reason is the first finding, before the spans that do not arrive."""
    worker(BREAK="disk-full")
    said = doctor()
    assert codes(said) == ["directory-not-writable"]
    assert first(said)["hop"] == "worker"
    assert first(said)["remedy"].startswith("free space there")


def test_what_a_person_reads(start: Starter) -> None:
    process = start("telemetry", "doctor", *WEB, BREAK="flask-not-instrumented")
    assert process.wait(30) == 1
    assert process.lines[0] == "The first problem is at: web"
    assert "instrument_flask(app)" in process.output
    assert "  and so: web: OPTIONS /ping made no SERVER span" in process.output
    assert "\x1b" not in process.output


def test_a_terminal_shows_each_step(start: Starter) -> None:
    """On standard error, so that the report can be read by a program."""
    terminal, ours = pty.openpty()
    env = {"PATH": os.environ["PATH"], **start.env, "CELERY_BROKER_URL": "memory://"}
    done = subprocess.run(
        [sys.executable, "-m", "telemetry", "doctor", *BOTH, "--json"],
        env=env, cwd=ROOT, stdout=subprocess.PIPE, stderr=ours, timeout=300,
    )  # fmt: skip
    os.close(ours)
    steps = os.read(terminal, 65536).decode().splitlines()
    os.close(terminal)
    assert json.loads(done.stdout)["findings"][0]["code"] == "broker-in-memory"
    assert [line for line in steps if line.startswith("·")] == [
        f"· loading the Flask app {WEB[1]}",
        "· sending the Flask app a request with a traceparent",
        f"· loading the Celery app {QUEUE[1]}",
        "· connecting to the broker",
        "· sending the collector an export without spans",
    ]


def test_help(start: Starter) -> None:
    process = start("telemetry", "doctor", "--help")
    assert process.wait(30) == 0
    for option in ("--celery", "--flask", "--path", "--url", "--json", "--timeout", "--count"):
        assert option in process.output
