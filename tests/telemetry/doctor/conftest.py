"""The doctor, run in the environment of a system, and a worker of the project that it checks."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ...processes import PATIENCE, ROOT, Process, Starter
from ...receiving import PatientReceiver
from ...system import Server

PROJECT = "tests.telemetry.doctor.project"
WEB = ("--flask", f"{PROJECT}:create_app")
QUEUE = ("--celery", f"{PROJECT}:celery")
BOTH = (*QUEUE, *WEB)
Said = tuple[int, dict]
Doctor = Callable[..., Said]


def run_doctor(
    env: dict[str, str], *args: str, python: str = sys.executable, cwd: Path = ROOT
) -> Said:
    """Run the doctor with *env*; return its status and its report."""
    done = subprocess.run(
        [python, "-m", "telemetry", "doctor", "--json", *(args or BOTH)],
        env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **env},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
    )
    assert done.returncode in (0, 1), done.stderr
    return done.returncode, json.loads(done.stdout)


@pytest.fixture
def doctor(start: Starter, tmp_path: Path) -> Doctor:
    """Run the doctor in the environment of the system; return its status and its report."""

    def run(*args: str, python: str = sys.executable, **env: str) -> Said:
        env = {**start.env, "QUEUEHOP_STATE_DIR": str(tmp_path), **env}
        return run_doctor(env, *args, python=python)

    return run


def start_worker(start: Starter, *args: str, **env: str) -> Process:
    """Start a worker of the project; return it once it is ready."""
    process = start(
        *("celery", "-A", f"{PROJECT}:celery", "worker", "-c", "1", "-l", "INFO"),
        *("--without-mingle", *args),
        **env,
    )
    process.wait_for_line(" ready.")
    return process


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doctor]:
    """Run the doctor beside a sound worker, broker and collector, which a module shares."""
    directory = tmp_path_factory.mktemp("sound")
    server = Server(directory, "secret")
    with PatientReceiver() as receiver:
        start = Starter(
            CELERY_BROKER_URL=server.url,
            OTEL_EXPORTER_OTLP_ENDPOINT=receiver.endpoint,
            OTEL_BSP_SCHEDULE_DELAY="100",
            QUEUEHOP_STATE_DIR=str(directory),
        )
        start_worker(start)

        def run(*args: str, python: str = sys.executable, **env: str) -> Said:
            return run_doctor({**start.env, **env}, *args, python=python)

        yield run
        assert not list(start.end())
    server.process.stop()


@pytest.fixture
def worker(start: Starter) -> Callable[..., Process]:
    """Start a worker of the project."""
    return partial(start_worker, start)


def first(said: Said) -> dict[str, Any]:
    """Return the first finding. There must be one."""
    status, report = said
    assert status == 1
    found: dict[str, Any] = report["findings"][0]
    return found


def codes(said: Said) -> list[str]:
    """Return the codes of the findings that no other explains."""
    status, report = said
    found = [finding["code"] for finding in report["findings"]]
    assert status == bool(found)
    return found


def below(finding: dict[str, Any]) -> list[str]:
    """Return the codes of the consequences of *finding*."""
    return [each["code"] for each in finding.get("consequences", [])]


def hints(said: Said) -> list[str]:
    """Return the codes of the hints."""
    return [hint["code"] for hint in said[1].get("hints", [])]
