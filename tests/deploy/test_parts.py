"""Web and worker, started and probed as in their manifests."""

import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.request import Request, urlopen

from telemetry.otlp.receiver import Receiver

from ..conftest import free_port
from ..processes import ROOT, Process, Starter
from .test_manifests import container

POD = "worker-7d4b9c-x2x7k"


def as_pod(arguments: list[str]) -> list[str]:
    """Return *arguments* with the variables in them, as Kubernetes puts them there."""
    return [argument.replace("$(POD_NAME)", POD) for argument in arguments]


def probe(start: Starter) -> subprocess.CompletedProcess[str]:
    env = {**start.env, "POD_NAME": POD, "HOME": os.environ.get("HOME", "/")}
    return subprocess.run(
        container("worker")["startupProbe"]["exec"]["command"],
        env={**env, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )


def start_worker(start: Starter) -> Process:
    worker = start(*as_pod(container("worker")["args"]))
    worker.wait_for_line(" ready.")
    return worker


def test_a_worker_answers_its_probe_until_it_ends(start: Starter) -> None:
    assert probe(start).returncode != 0
    worker = start_worker(start)
    answered = probe(start)
    assert answered.returncode == 0, answered.stderr
    assert worker.stop() == 0
    assert probe(start).returncode != 0


def test_web_is_ready_with_a_worker_and_the_check_leaves_no_trace(
    start: Starter, receiver: Receiver
) -> None:
    port = free_port()
    arguments = [re.sub(r"^--bind=.*", f"--bind=127.0.0.1:{port}", argument)
                 for argument in as_pod(container("web")["args"])]  # fmt: skip
    web = start(*arguments)
    web.wait_for_line("Listening at")
    start_worker(start)
    check = container("web")["readinessProbe"]["httpGet"]
    headers = {header["name"]: header["value"] for header in check["httpHeaders"]}
    url = f"http://127.0.0.1:{port}"
    with urlopen(Request(url + check["path"], headers=headers), timeout=10) as answer:
        assert answer.status == 200
    with urlopen(f"{url}/ping?wait=10", timeout=20) as answer:
        assert answer.status == 200
    spans = receiver.wait_for(lambda spans: any(s.name.startswith("process") for s in spans))
    assert "GET /healthz" not in {span.name for span in spans}
