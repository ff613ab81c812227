"""The wheel in an empty environment, used by a foreign project as README says."""

import os
import re
import shutil
import subprocess
import sys
import textwrap
import zipfile
from itertools import pairwise
from pathlib import Path

import pytest

from telemetry.otlp.receiver import Receiver

from .conftest import Broker, free_port
from .processes import ROOT, Process

UV = shutil.which("uv", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")

SETTINGS = """
import os
broker_url = os.environ["BROKER"]
broker_connection_retry_on_startup = True
imports = ["shop.jobs"]
task_routes = {"shop.jobs.invoice": {"queue": "slow"}}
beat_schedule = {"tick": {"task": "shop.jobs.pack", "schedule": 3600}}
"""
QUEUE = """
from celery import Celery

app = Celery("shop")
app.config_from_object("shop.settings")
{queue_side}
"""
JOBS = """
from celery import shared_task

@shared_task
def pack():
    invoice.delay()

@shared_task
def invoice():
    pass
"""
WEB = """
from flask import Flask

def make_web():
    from shop.queue import app as celery
    celery.set_default()
    from shop.jobs import pack
    app = Flask(__name__)
    @app.get("/orders")
    def order():
        pack.delay()
        return "", 202
{web_side}
    return app
"""
ORDER = """
{client_side}
assert telemetry.flush()
"""


def section() -> str:
    """Return README's section about one's own code."""
    _, _, rest = (ROOT / "README.md").read_text().partition("## In your own code\n")
    return rest.partition("\n## ")[0]


def readme() -> list[str]:
    """Return README's code for a project of one's own: web, queue and client side."""
    blocks = re.findall(r"```python\n(.*?)```", section(), re.S)
    assert len(blocks) == 3
    return blocks


def run(*argv: str, **options: object) -> str:
    # uv has certificates of its own, without the one of a proxy.
    env = {**os.environ, "UV_SYSTEM_CERTS": "1", **options.pop("env", {})}
    done = subprocess.run(argv, capture_output=True, text=True, timeout=100, env=env, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    assert UV, "uv is missing: it is one of the test group"
    out = tmp_path_factory.mktemp("dist")
    run(UV, "build", "--wheel", "--out-dir", str(out), str(ROOT))
    [wheel] = out.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An interpreter with the wheel and the extras that README names, and no other package."""
    (extras,) = re.findall(r"^    pip install '\.(\[\S+\])'$", section(), re.M)
    venv = tmp_path_factory.mktemp("venv")
    run(UV, "venv", "--python", sys.executable, str(venv), "--clear")
    python = str(venv / "bin" / "python")
    run(UV, "pip", "install", "--python", python, f"{wheel}{extras}")
    return python


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """The foreign project, with README's code in it."""
    package = tmp_path / "shop"
    package.mkdir()
    web_side, queue_side, client_side = readme()
    files = {
        **{"settings": SETTINGS, "jobs": JOBS, "__init__": ""},
        "queue": QUEUE.format(queue_side=queue_side),
        "web": WEB.format(web_side=textwrap.indent(web_side, "    ")),
    }
    for name, text in files.items():
        (package / f"{name}.py").write_text(text)
    (tmp_path / "order.py").write_text(ORDER.format(client_side=client_side))
    return tmp_path


def order(python: str, shop: Path, env: dict[str, str]) -> None:
    """Start worker and web server, run the client, and end all when the last task was run."""
    argv = ["-m", "celery", "-A", "shop.queue", "worker", "-Q", "celery,slow", "-c", "1"]
    state = ["-B", "-s", str(shop / "beat"), "-l", "INFO"]
    worker = Process([python, *argv, *state], env=env, cwd=shop)
    port = free_port()
    flask = ["-m", "flask", "--app", "shop.web:make_web", "run", "--port", str(port)]
    web = Process([python, *flask], env=env, cwd=shop)
    client = shop / "order.py"
    address = "http://127.0.0.1:5000/ping"
    assert address in client.read_text()
    client.write_text(client.read_text().replace(address, f"http://127.0.0.1:{port}/orders"))
    try:
        worker.wait_for_line(" ready.")
        web.wait_for_line("Running on")
        run(python, "order.py", cwd=shop, env=env)
        worker.wait_for_line("shop.jobs.invoice", count=2)
    finally:
        web.stop()
        worker.stop()


def environment(broker: Broker, receiver: Receiver) -> dict[str, str]:
    return {
        **{"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")},
        **{"BROKER": broker.url, "PYTHONUNBUFFERED": "1", "OTEL_BSP_SCHEDULE_DELAY": "100"},
        **{"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint},
    }


NAMES = [
    "GET",
    "GET /orders",
    "send shop.jobs.pack",
    "process shop.jobs.pack",
    "send shop.jobs.invoice",
    "process shop.jobs.invoice",
]


def test_the_wheel_holds_the_library_alone(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    tracked = run("git", "ls-files", "telemetry", cwd=ROOT).split()
    assert names == set(tracked)
    assert "telemetry/py.typed" in names


def test_import_loads_nothing_that_was_not_asked_for() -> None:
    program = (
        "import sys, telemetry\n"
        "print({'flask', 'celery', 'requests', 'telemetry.viewer'} & set(sys.modules))"
    )
    assert run(sys.executable, "-c", program, cwd=ROOT).strip() == "set()"


@pytest.mark.parametrize(("option", "needs"), [("flask", "Flask"), ("celery", "Celery")])
def test_the_doctor_says_which_extra_is_missing(
    wheel: Path, tmp_path: Path, option: str, needs: str
) -> None:
    run(UV, "venv", "--python", sys.executable, str(tmp_path))
    python = str(tmp_path / "bin" / "python")
    run(UV, "pip", "install", "--python", python, str(wheel))
    command = [python, "-m", "telemetry", "doctor", f"--{option}", "shop"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert f"needs {needs}: pip install 'queuehop[{option}]'" in done.stderr


@pytest.mark.parametrize("copied", [False, True], ids=["installed", "copied"])
def test_a_foreign_project_is_one_trace(
    python: str, shop: Path, broker: Broker, receiver: Receiver, copied: bool
) -> None:
    if copied:
        shutil.copytree(ROOT / "telemetry", shop / "tracing")
        for name in ("shop/queue.py", "shop/web.py", "order.py"):
            path = shop / name
            path.write_text(path.read_text().replace("telemetry", "tracing"))
    order(python, shop, environment(broker, receiver))
    spans = receiver.wait_for(lambda spans: {*NAMES} <= {span.name for span in spans})
    [client] = [span for span in spans if span.name == NAMES[0]]
    trace = {span.name: span for span in spans if span.trace_id == client.trace_id}
    assert set(trace) == set(NAMES)
    for parent, child in pairwise(NAMES):
        assert trace[child].parent_id == trace[parent].span_id
    services = [trace[name].service for name in NAMES[:4]]
    assert services == ["shop-client", "shop", "shop", "shop-worker"]


def test_removing_it_is_as_short(
    python: str, shop: Path, broker: Broker, receiver: Receiver
) -> None:
    for path in (shop / "shop/queue.py", shop / "shop/web.py", shop / "order.py"):
        text = path.read_text()
        text = text.replace("from telemetry.requests import traced_session", "import requests")
        text = text.replace("traced_session()", "requests")
        kept = [line for line in text.splitlines() if not re.search("telemetry|instrument", line)]
        path.write_text("\n".join(kept))
    order(python, shop, environment(broker, receiver))
    assert receiver.spans == []
