"""Processes log the status that their sender has written: each count once."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from telemetry.export.spool.directory import SpoolDirectory
from telemetry.export.spool.sender_files import LOG_INTERVAL, SenderStatus
from telemetry.export.spool.watch import Watch
from telemetry.export.status import SignalStatus


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[SpoolDirectory]:
    """The directory of a destination whose sender runs."""
    directory = SpoolDirectory(tmp_path)
    lock = directory.sender_files.lock()
    assert lock is not None
    yield directory
    os.close(lock)


def watch(directory: SpoolDirectory) -> Watch:
    return Watch(directory, pytest.fail)


def drop(directory: SpoolDirectory, spans: int, unreadable: str = "") -> None:
    """Write the status of a sender that has dropped *spans* so far."""
    signals = SignalStatus("", spans, "too old"), SignalStatus(), SignalStatus()
    directory.sender_files.write_status(SenderStatus(0, unreadable, signals))


def pass_a_minute(directory: SpoolDirectory) -> None:
    past = time.time() - LOG_INTERVAL
    for marker in directory.path.glob("logged.*"):
        os.utime(marker, (past, past))


def test_what_is_dropped_within_a_minute_of_a_line_is_in_the_next(
    directory: SpoolDirectory, caplog: pytest.LogCaptureFixture
) -> None:
    process = watch(directory)
    for dropped in (3, 5, 6):
        drop(directory, dropped)
        process.look()
    assert caplog.messages == ["dropped 3 spans: too old"]
    pass_a_minute(directory)
    process.look()
    assert caplog.messages[1:] == ["dropped 3 spans: too old"]
    pass_a_minute(directory)
    process.look()
    assert not caplog.messages[2:]


def test_what_one_process_has_counted_no_other_counts_again(
    directory: SpoolDirectory, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = watch(directory), watch(directory)
    drop(directory, 3)
    for process in (first, second):
        process.look()
    drop(directory, 4)
    pass_a_minute(directory)
    for process in (second, first, watch(directory)):
        process.look()
        pass_a_minute(directory)
    assert caplog.messages == ["dropped 3 spans: too old", "dropped 1 spans: too old"]


def test_a_segment_that_becomes_unreadable_within_a_minute_of_a_line_is_in_the_next(
    directory: SpoolDirectory, caplog: pytest.LogCaptureFixture
) -> None:
    process = watch(directory)
    for unreadable in ("a: denied", "a: denied; b: denied"):
        drop(directory, 0, unreadable)
        process.look()
    pass_a_minute(directory)
    process.look()
    assert [line.partition("delivered: ")[2] for line in caplog.messages] == [
        "a: denied; remove them",
        "a: denied; b: denied; remove them",
    ]


def test_segments_that_the_user_has_removed_are_no_line(
    directory: SpoolDirectory, caplog: pytest.LogCaptureFixture
) -> None:
    process = watch(directory)
    drop(directory, 0, "a: denied")
    process.look()
    drop(directory, 0)
    pass_a_minute(directory)
    process.look()
    assert len(caplog.messages) == 1
