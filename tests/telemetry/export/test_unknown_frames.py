"""The sender counts and logs unknown frames, and delivers the rest."""

from .conftest import Collector, Program
from .test_odd_items import status

#: Writes frames of another version into the program's own segment.
ODD = """
from telemetry.export.spool import frames
from telemetry.setup import _provider

writer = _provider.sink._writer

def odd(kind, definition, content):
    writer.append(kind, frames.define(definition), content)

spans(1, "before")
odd(b"\\x09", b"an origin of another version", b"a kind of another version")
odd(frames.RECORD, b"no MessagePack", b"no MessagePack either")
odd(b"\\x03", b"\\xc1", b"a kind of an older version")
spans(1, "after")
assert telemetry.flush(), "all is on disk"
"""


def test_the_rest_is_delivered_and_the_log_has_the_count(
    program: Program, collector: Collector
) -> None:
    collector.start()
    process = program.run(ODD + "time.sleep(2.1); spans(1, 'late'); telemetry.flush()")
    assert set(collector.wait_for(3)) == {"before.0", "after.0", "late.0"}
    (line,) = process.output.splitlines()
    # Three definitions that do not fit, and three frames.
    assert line.startswith("dropped 6 spans: ")
    assert "unknown kind" in line


def test_the_sender_does_not_read_them_again(program: Program, collector: Collector) -> None:
    collector.start()
    program.run(ODD)
    collector.wait_for(2)
    program.wait_for_sender_to_end()
    assert status(program).dropped == 6
    assert not program.segments
    assert collector.names == {"before.0": 1, "after.0": 1}
