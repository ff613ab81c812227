"""The bench of the viewer reports that the viewer cannot start."""

import subprocess
import sys
from pathlib import Path


def test_it_ends_and_names_the_remedy(tmp_path: Path) -> None:
    """The database cannot be a directory."""
    command = [sys.executable, "-m", "bench.viewer", "--db", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "choose another file with --db" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("the viewer did not start")
    assert ".venv/bin/python -m bench.viewer" in done.stderr
