"""The system accepts only a part of a write: the log has the reason."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec import msgpack

from telemetry.config.settings import Spool
from telemetry.export.outgoing import LOGS, origin_of
from telemetry.export.spool import frames
from telemetry.export.spool.directory import SpoolDirectory
from telemetry.export.spool.reader import recent_records
from telemetry.export.spool.watch import Watch
from telemetry.export.spool.writer import Writer
from telemetry.tracing.record import Record, pack

from ..tracing.sinks import RESOURCE

ORIGIN = frames.define(msgpack.encode(origin_of(RESOURCE, LOGS, False)))

Write = Callable[[int, bytes], int]
os_write = os.write


@pytest.fixture
def writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Writer:
    monkeypatch.setattr(Watch, "look", lambda _: None)
    directory = SpoolDirectory(tmp_path / "0123456789abcdef")
    directory.make()
    return Writer(directory, Watch(directory, print), Spool(tmp_path, 1 << 30, 600.0))


def append(writer: Writer, name: str) -> None:
    writer.append(frames.RECORD, ORIGIN, pack(Record(bytes(16), 1, 2, name=name)))


def names_in(writer: Writer) -> list[str]:
    """Return the names of the spans whose frames in the segments are whole."""
    directory, segments = writer._directory, writer.segments()
    records = [record for each in segments for _, record in recent_records(directory, [each])]
    return [str(record.name) for record in records]


def half(fd: int, data: bytes) -> int:
    return os_write(fd, data[: len(data) // 2])


def full(fd: int, data: bytes) -> int:
    raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))


@pytest.mark.parametrize(
    ("then", "said"),
    [(half, "bytes were written"), (full, os.strerror(errno.EDQUOT)), (os_write, "")],
)
def test_the_reason_is_logged_and_nothing_is_lost(
    writer: Writer,
    then: Write,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    append(writer, "before")
    writes = iter([half])
    monkeypatch.setattr(os, "write", lambda fd, data: next(writes, then)(fd, data))
    append(writer, "torn")
    assert "No space left" not in caplog.text
    if said:
        (line,) = caplog.messages
        assert line.startswith("spans cannot be written to disk (")
        assert said in line
        assert said in writer.error
    else:  # the next try wrote it
        assert not caplog.messages
    monkeypatch.setattr(os, "write", os_write)
    append(writer, "after")
    assert not writer.error
    assert names_in(writer) == ["before", "torn", "after"]
