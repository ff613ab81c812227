"""The Makefile finds a suitable Python, and names the remedy if there is none."""

import os
import re
import runpy
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from .processes import ROOT

SUITABLE = str(ROOT / ".ci/suitable.py")


@pytest.fixture
def version(monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """Return a function that checks a Python of a version."""
    monkeypatch.setattr(sysconfig, "get_config_var", lambda name: 0)

    def check(*version: int) -> None:
        monkeypatch.setattr(sys, "version_info", version)
        runpy.run_path(SUITABLE)

    return check


def tried() -> list[str]:
    """Return the versions that ``make pythons`` tries."""
    (line,) = re.findall(r"^all=\((.*)\)$", (ROOT / "tests/pythons.sh").read_text(), re.M)
    return str(line).split()


def test_every_list_of_pythons_is_the_same() -> None:
    names = runpy.run_path(SUITABLE)
    oldest, newest = (f"{major}.{minor}" for major, minor in (names["OLDEST"], names["NEWEST"]))
    versions = tried()
    assert (versions[0], versions[-1]) == (oldest, newest)
    pyproject = (ROOT / "pyproject.toml").read_text()
    assert re.findall(r"Python :: (3\.\d+)", pyproject) == versions
    assert f'requires-python = ">={oldest}"' in pyproject
    workflow = (ROOT / ".github/workflows/ci.yaml").read_text()
    (matrix,) = re.findall(r"python: \[(.*)\]", workflow)
    assert re.findall(r"[\d.]+", matrix) == versions
    (search,) = re.findall(r"for p in python3 (.*); do", (ROOT / "Makefile").read_text())
    assert search.split() == [f"python{version}" for version in reversed(versions)]
    for page in ("README.md", "CONTRIBUTING.md"):
        assert f"Python {oldest} to {newest}" in (ROOT / page).read_text()


def test_those_that_were_tried_are_used_in_silence(version, capsys) -> None:  # type: ignore[no-untyped-def]
    for each in tried():
        version(*map(int, each.split(".")))
    assert capsys.readouterr() == ("", "")


def test_a_newer_one_is_used_and_named(version, capsys) -> None:  # type: ignore[no-untyped-def]
    version(3, 99, 1)
    (line,) = capsys.readouterr().out.splitlines()
    assert line == "Python 3.99 is newer than any that was tried: using it."


def test_an_older_one_is_refused(version) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(SystemExit, match=r"Python 3\.10 is too old"):
        version(3, 10, 13)


def test_a_free_threaded_build_is_refused(version, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(sysconfig, "get_config_var", {"Py_GIL_DISABLED": 1}.get)
    with pytest.raises(SystemExit, match="Free-threaded builds of Python are not supported"):
        version(3, 14, 0)


def make(path: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    """Run make with the programs of *path* before the system's, and without a .venv."""
    return subprocess.run(
        ["make", "setup", f"VENV={path / 'venv'}", *argv],
        env={"PATH": f"{path}:{os.defpath}"},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


def fake_python(path: Path, answer: str) -> None:
    path.write_text(f"#!/bin/sh\n{answer}\n")
    path.chmod(0o755)


def test_without_a_python_it_ends_in_two_lines(tmp_path: Path) -> None:
    done = make(tmp_path, "PYTHON=")
    assert done.returncode == 2
    first, second, *_ = done.stderr.splitlines()
    assert first == "No Python 3.11 or newer was found; free-threaded builds are not supported."
    assert second == "Install one, or name it: make setup PYTHON=/path/to/python3"


def test_one_that_is_named_is_checked_too(tmp_path: Path) -> None:
    fake_python(tmp_path / "python3.10", "echo Python 3.10 is too old. >&2; exit 1")
    done = make(tmp_path, f"PYTHON={tmp_path / 'python3.10'}")
    assert done.returncode == 2
    assert done.stderr.startswith("Python 3.10 is too old.\nPython 3.11 or newer is needed: make")


def test_the_first_that_suits_is_chosen(tmp_path: Path) -> None:
    fake_python(tmp_path / "python3", "exit 1")
    fake_python(tmp_path / "python3.15", "exit 0")
    done = make(tmp_path, "--dry-run")
    assert "python3.15 -m venv" in done.stdout
