"""Every hop detaches each context that it attaches, through OpenTelemetry's API."""

import os
import subprocess
import sys
from pathlib import Path

from ...processes import ROOT

COUNTING = """
from opentelemetry.context.contextvars_context import ContextVarsRuntimeContext

class Counting(ContextVarsRuntimeContext):
    attached = detached = 0

    def attach(self, context):
        Counting.attached += 1
        return super().attach(context)

    def detach(self, token):
        super().detach(token)
        Counting.detached += 1
"""

PROGRAM = """
import requests
from celery import Celery
from flask import Flask
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from counting import Counting
from telemetry.celery import instrument_celery
from telemetry.flask import instrument_flask
from telemetry.requests import traced_session

trace.set_tracer_provider(TracerProvider())
tasks = instrument_celery(Celery("tasks", broker="memory://", set_as_default=False))
site = instrument_flask(Flask("site"))

@tasks.task(name="succeed")
def succeed():
    return trace.get_current_span().name

@tasks.task(name="fail")
def fail():
    raise ValueError("fail")

@site.get("/stream")
def stream():
    name = trace.get_current_span().name
    return iter([name, "\\n", trace.get_current_span().name, "\\n"])

@site.get("/fail")
def fail_request():
    raise ValueError("fail")

def no_server():
    try:
        traced_session().get("http://127.0.0.1:1/")
    except requests.ConnectionError:
        return "no server"

for hop in (
    lambda: site.test_client().get("/stream").text.strip(),
    lambda: site.test_client().get("/fail").status,
    lambda: succeed.apply().get(),
    lambda: fail.apply().state,
    lambda: succeed.delay() and "sent",
    no_server,
):
    before = Counting.attached
    print(hop(), "attached" if Counting.attached > before else "not attached")
    assert not trace.get_current_span().get_span_context().is_valid
assert Counting.attached == Counting.detached
"""

OUTPUT = """\
GET /stream
GET /stream attached
500 INTERNAL SERVER ERROR attached
process succeed attached
FAILURE attached
sent attached
no server attached
"""


def test_as_many_contexts_are_detached_as_attached(tmp_path: Path) -> None:
    (tmp_path / "counting.py").write_text(COUNTING)
    (tmp_path / "program.py").write_text(PROGRAM)
    distribution = tmp_path / "counting-1.dist-info"
    distribution.mkdir()
    (distribution / "METADATA").write_text("Metadata-Version: 2.1\nName: counting\nVersion: 1\n")
    (distribution / "entry_points.txt").write_text(
        "[opentelemetry_context]\ncounting = counting:Counting\n"
    )
    environ = {
        **os.environ,
        "OTEL_PYTHON_CONTEXT": "counting",
        "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)]),
    }
    done = subprocess.run(
        [sys.executable, str(tmp_path / "program.py")],
        env=environ,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, OUTPUT), done.stderr
