"""What the fast path of a write does, and what it does not."""

import os
import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from telemetry.spool import append as module
from telemetry.spool.append import append


@pytest.fixture(params=["keeping the lock", "os.write"])
def either(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "os.write":
        monkeypatch.setattr(module, "_write", None)
    else:
        assert module._write is not None


@pytest.mark.usefixtures("either")
@pytest.mark.parametrize("data", [b"", b"a", b"a\0b\0", bytes(range(256)) * 4096])
def test_all_of_it_is_written_at_the_end(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "segment"
    path.write_bytes(b"before")
    fd = os.open(path, os.O_WRONLY | os.O_APPEND)
    append(fd, data)
    append(fd, data)
    os.close(fd)
    assert path.read_bytes() == b"before" + data + data


@pytest.mark.usefixtures("either")
def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    fd = os.open(tmp_path / "segment", os.O_RDONLY | os.O_CREAT)
    with pytest.raises(OSError, match="Bad file descriptor"):
        append(fd, b"data")
    os.close(fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        append(fd, b"data")


@pytest.mark.usefixtures("either")
def test_a_disk_that_takes_a_part_is_full(tmp_path: Path) -> None:
    fd = os.open(tmp_path / "segment", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    asked = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))
        with pytest.raises(OSError, match="No space left"):
            append(fd, b"x" * 16)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, asked)
        os.close(fd)


def test_no_other_thread_goes_on_meanwhile(tmp_path: Path) -> None:
    """One that waits for the interpreter gets it when this one gives it away, and not before."""
    fd = os.open(tmp_path / "segment", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    went_on = False
    begin = threading.Lock()
    begin.acquire()

    def other() -> None:
        nonlocal went_on
        begin.acquire()
        went_on = True

    thread = threading.Thread(target=other)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(60)
    try:
        thread.start()
        begin.release()  # it wants to go on from here
        for _ in range(20_000):
            append(fd, b"data")
        meanwhile = went_on
    finally:
        sys.setswitchinterval(interval)
        thread.join()
        os.close(fd)
    assert went_on
    assert not meanwhile


def test_without_ctypes_it_is_written_all_the_same(tmp_path: Path) -> None:
    program = """
import os, sys
sys.modules["ctypes"] = None
from telemetry.spool.append import append
append(1, b"written")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, cwd=Path.cwd()
    )
    assert done.stdout == b"written"
