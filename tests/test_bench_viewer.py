"""The bench of the viewer starts a viewer, which ends with it."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from telemetry.viewer.store import exclusive

from .processes import Starter


def test_it_ends_and_names_the_remedy(tmp_path: Path) -> None:
    """The database cannot be a directory."""
    command = [sys.executable, "-m", "bench.viewer", "--db", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "choose another file with --db" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("the viewer did not start")
    assert ".venv/bin/python -m bench.viewer" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_its_viewer_ends_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    db = str(tmp_path / "traces.db")
    bench = Starter()("bench.viewer", "--pages", "--total", "2000", "--db", db)
    try:
        bench.wait_for_line("as fast as it accepts them")
        bench.signal(number)
        assert bench.wait() != 0
        # The next run can use the file at once.
        monkeypatch.setattr(exclusive, "PATIENCE", 0.0)
        with exclusive.exclusive(db):
            pass
    finally:
        bench.kill()
