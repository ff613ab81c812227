"""Other files in the spool's directory do not stop the sender."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from telemetry.export.spool.directory import SpoolDirectory
from telemetry.export.spool.sender_files import SenderStatus
from telemetry.export.spool.watch import Watch

from .conftest import Collector, Program


def fifo(path: Path) -> None:
    os.mkfifo(path)


def directory(path: Path) -> None:
    path.mkdir()


def link(path: Path) -> None:
    path.symlink_to("/etc/hostname")


def link_to_nothing(path: Path) -> None:
    path.symlink_to("/nonexistent")


def garbage(path: Path) -> None:
    path.write_bytes(os.urandom(10_000))


def unreadable(path: Path) -> None:
    path.write_bytes(b"")
    path.chmod(0)


ODD: list[Callable[[Path], None]] = [fifo, directory, link, link_to_nothing, garbage, unreadable]
NAMES = (
    *("odd.000001.spool", "wake", "sender.stderr"),
    *("status.json", "status.new", "counted.json", "counted.new"),
)


@pytest.fixture
def spool(program: Program, collector: Collector) -> Path:
    """The directory of the destination. A process has made it."""
    collector.start()
    program.run("spans(1)\nassert telemetry.flush()")
    (lock,) = [path for path in program.files if path.name == "sender.lock"]
    return lock.parent


@pytest.mark.parametrize("odd", ODD)
def test_everything_else_is_delivered(
    program: Program,
    collector: Collector,
    spool: Path,
    odd: Callable[[Path], None],
) -> None:
    for name in NAMES:
        (spool / name).unlink(missing_ok=True)
        odd(spool / name)
    program.run("spans(20)\nassert telemetry.flush()")
    collector.wait_for(21)


def test_a_segment_that_cannot_be_read_is_logged_once(
    program: Program, collector: Collector, spool: Path
) -> None:
    os.mkfifo(spool / "odd.000001.spool")
    process = program(
        """
        while True:
            spans(1, f"later{time.monotonic()}")
            time.sleep(0.05)
        """
    )
    line = process.wait_for_line("cannot be read and are not delivered")
    assert "odd.000001: not a regular file" in line
    process.stop()
    assert process.output.count("cannot be read and are not delivered") == 1


def test_a_process_logs_what_was_unreadable_before_it_started(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = SpoolDirectory(tmp_path / "0123456789abcdef")
    directory.make()
    lock = directory.sender_files.lock()  # as if a sender runs
    assert lock is not None
    directory.sender_files.write_status(SenderStatus(unreadable="odd: not a regular file"))
    Watch(directory, print).look()
    os.close(lock)
    assert "odd: not a regular file" in caplog.text
