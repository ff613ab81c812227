"""Environments for packages that cannot be installed beside those of the tests.

Each is made once, from the lock file of its name, and used again. `make clean` removes them.
"""

import fcntl
import hashlib
import subprocess
import sys
from pathlib import Path

__all__ = ["python_with"]

TESTS = Path(__file__).parent


def python_with(group: str) -> str:
    """Return the Python of an environment with the packages of *group*; make it if needed."""
    lock = TESTS / f"requirements-{group}.lock"
    folder = TESTS / ".venv" / group
    python = folder / "bin" / "python"
    stamp = folder / "installed"
    wanted = f"{sys.version}\n{hashlib.sha256(lock.read_bytes()).hexdigest()}\n"
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)  # two processes of pytest-xdist may want the same one
        if not stamp.exists() or stamp.read_text() != wanted:
            _run("venv", "--clear", "--without-pip", str(folder))
            _run(
                *("uv", "pip", "install", "--quiet", "--python", str(python)),
                *("--require-hashes", "--no-deps", "--only-binary", ":all:", "-r", str(lock)),
            )
            stamp.write_text(wanted)
    return str(python)


def _run(*argv: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *argv], capture_output=True, text=True, timeout=600
    )
    if done.returncode:
        raise RuntimeError(
            f"the environment could not be made: check the network, then run the tests again\n"
            f"{done.stdout}{done.stderr}"
        )
