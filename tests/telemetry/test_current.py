"""What is current is where OpenTelemetry keeps it, whatever keeps it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

CONTEXT = """
from opentelemetry.context.contextvars_context import ContextVarsRuntimeContext

class Counting(ContextVarsRuntimeContext):
    attached = detached = 0

    def attach(self, context):
        Counting.attached += 1
        return super().attach(context)

    def detach(self, token):
        Counting.detached += 1
        super().detach(token)
"""

PROGRAM = """
from flask import Flask
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from counting import Counting
from telemetry.flask import instrument_flask

trace.set_tracer_provider(TracerProvider())
app = Flask("site")
app.get("/")(lambda: trace.get_current_span().name)
said = instrument_flask(app).test_client().get("/").text
steps = Counting.attached
print(said, trace.get_current_span().is_recording(), steps > 0, steps == Counting.detached)
"""


@pytest.mark.parametrize(("named", "asked"), [("", False), ("counting", True)])
def test_a_context_of_another_kind_is_asked(tmp_path: Path, named: str, asked: bool) -> None:
    (tmp_path / "counting.py").write_text(CONTEXT)
    (tmp_path / "program.py").write_text(PROGRAM)
    described = tmp_path / "counting-1.dist-info"
    described.mkdir()
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: counting\nVersion: 1\n")
    (described / "entry_points.txt").write_text(
        "[opentelemetry_context]\ncounting = counting:Counting\n"
    )
    environ = {
        **os.environ,
        "OTEL_PYTHON_CONTEXT": named,
        "PYTHONPATH": os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])]),
    }
    done = subprocess.run(
        [sys.executable, str(tmp_path / "program.py")],
        env=environ,
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout == f"GET / False {asked} True\n"
