"""The doctor, run in the environment of a system, and a worker of the project that it looks at."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ...processes import ROOT, Process, Starter

PROJECT = "tests.telemetry.doctor.project"
WEB = ("--flask", f"{PROJECT}:create_app")
QUEUE = ("--celery", f"{PROJECT}:celery")
BOTH = (*QUEUE, *WEB)
Said = tuple[int, dict]
Doctor = Callable[..., Said]


@pytest.fixture
def doctor(start: Starter, tmp_path: Path) -> Doctor:
    """Run the doctor in the environment of the system; return its status and what it says."""

    def run(*args: str, python: str = sys.executable, **env: str) -> Said:
        named = args or BOTH
        done = subprocess.run(
            [python, "-m", "telemetry", "doctor", "--json", *named],
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
            *("celery", "-A", f"{PROJECT}:celery", "worker", "-c", "1", "-l", "INFO"),
            *("--without-mingle", *args),
            **env,
        )
        process.wait_for_line(" ready.")
        return process

    return run


def first(said: Said) -> dict[str, str]:
    """Return the first finding, of which there must be one."""
    status, report = said
    assert status == 1
    return report["findings"][0]


def codes(said: Said) -> list[str]:
    status, report = said
    found = [finding["code"] for finding in report["findings"]]
    assert status == bool(found)
    return found
