"""The spool is private, survives damage and a full disk, and is optional."""

import os
import re
import stat
import struct
import textwrap
import time
from pathlib import Path

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec.structs import replace
from opentelemetry.trace import SpanKind

from telemetry.export.outgoing import Origin
from telemetry.export.sender.segment import Segment
from telemetry.export.spool import frames
from telemetry.export.spool.directory import SpoolDirectory
from telemetry.tracing.record import Record, RunFacts, SendFacts, SpanTemplate, pack
from telemetry.tracing.scope import Scope

from ...tiers import examples
from .conftest import OF_BOTH, Collector, Program
from .test_delivery import KILLED, once


def test_what_is_kept_is_private(program: Program) -> None:
    program.run("os.umask(0); spans(10); telemetry.flush(1)")
    kept = (program.directory / "state").rglob("*")
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in kept}
    assert len(modes) > 4
    directories = {path.name for path in (program.directory / "state").rglob("*") if path.is_dir()}
    for name, mode in modes.items():
        assert mode == (0o700 if name in directories else 0o600), name


def test_a_token_is_in_no_file_and_in_no_name(program: Program) -> None:
    program.run("spans(10); telemetry.flush(1)", OTEL_EXPORTER_OTLP_HEADERS="api-key=s3cret")
    for path in program.files:
        assert "s3cret" not in str(path)
        assert b"s3cret" not in path.read_bytes()


def test_another_token_is_another_destination(program: Program, collector: Collector) -> None:
    program.run(f"spans(10); {KILLED}", status=-9, OTEL_EXPORTER_OTLP_HEADERS="api-key=one")
    program.wait_for_sender_to_end()
    collector.start()
    program.run("spans(1)", OTEL_EXPORTER_OTLP_HEADERS="api-key=two")
    assert collector.wait_for(1) == {"program2.0": 1}


@pytest.mark.parametrize("where", ["file", "link"])
def test_a_directory_that_cannot_be_used_is_one_line_and_spans_arrive(
    program: Program, collector: Collector, tmp_path: Path, where: str
) -> None:
    if where == "file":
        (tmp_path / "taken").write_text("")
    else:
        (tmp_path / "taken").symlink_to(tmp_path / "nowhere" / "else")
    collector.start()
    process = program.run("spans(10)", QUEUEHOP_STATE_DIR=str(tmp_path / "taken"))
    (line,) = process.output.splitlines()
    assert line.startswith("spans cannot be written to disk (")
    assert "QUEUEHOP_STATE_DIR" in line
    assert once(collector.wait_for(10))


def test_a_directory_that_is_taken_away_is_made_again(
    program: Program, collector: Collector
) -> None:
    collector.start()
    program.run(
        """
        import shutil
        spans(10, "before")
        telemetry.flush()
        shutil.rmtree(os.environ["QUEUEHOP_STATE_DIR"])
        spans(10, "after")
        """
    )
    assert once(collector.wait_for(20))


@OF_BOTH
def test_a_full_disk_is_one_line_and_bounded_memory(program: Program, collector: Collector) -> None:
    collector.start()
    # The kernel refuses writes beyond the limit, and accepts a part of the one that crosses it.
    process = program.run(
        """
        import resource
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        items(1, "first")
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_001, limit[1]))
        items(2000, "full")
        assert telemetry.flush(0.5) is False
        from telemetry.setup import sink
        assert "File too large" in sink().last_export_error()
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        items(1, "last")
        assert telemetry.flush() is True
        assert not sink().last_export_error()
        """
    )
    names = collector.wait_for(2002)
    assert once(names)
    (line,) = process.output.splitlines()
    assert line.startswith("spans cannot be written to disk (File too large): 1 in memory")


def test_what_a_full_disk_never_takes_is_counted_when_the_process_ends(
    program: Program, collector: Collector
) -> None:
    collector.start()
    process = program.run(
        """
        import resource
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        items(1, "first")
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limit[1]))
        items(500, "full")
        telemetry.shutdown()
        """
    )
    waits, lost = process.output.splitlines()
    assert ": 1 in memory, 0 lost" in waits
    reason, _, rest = lost.rpartition(": ")
    assert reason == "spans cannot be written to disk (File too large)"
    assert 300 < int(rest.removesuffix(" lost with this process")) < 500


def test_a_child_writes_what_waited_before_it_ends(program: Program, collector: Collector) -> None:
    collector.start()
    program.run(
        """
        import resource
        from telemetry.setup import sink
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        items(1, "first")
        if not (child := os.fork()):
            resource.setrlimit(resource.RLIMIT_FSIZE, (1, limit[1]))
            items(5, "child")
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)
            sink().before_exit()
            os._exit(0)
        os.waitpid(child, 0)
        """
    )
    assert once(collector.wait_for(6))


@OF_BOTH
def test_what_a_full_disk_does_not_take_for_long_is_bounded(
    program: Program, collector: Collector
) -> None:
    collector.start()
    program.run(
        """
        import resource
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        items(1, "first")
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limit[1]))
        items(100, "large", text="x" * 100_000)
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        items(1, "last")
        """
    )
    names = collector.wait_for(2)
    large = [name for name in names if name.startswith("large")]
    assert "large.99" in large
    assert 20 < len(large) < 60


@OF_BOTH
def test_past_the_bound_the_oldest_go_and_are_counted(
    program: Program, collector: Collector
) -> None:
    bound = 128 * 1024
    bounds = {"QUEUEHOP_SPOOL_MAX_BYTES": str(bound)}
    process = program.run(
        """
        items(3000)
        telemetry.flush()
        time.sleep(2.1)
        items(1, "last")
        """,
        **bounds,
    )
    assert sum(path.stat().st_size for path in program.segments) <= bound * 1.5
    assert re.search(
        rf"dropped \d+ {collector.items}: more than {bound} bytes wait", process.output
    )
    collector.start()
    program.run("items(1)", **bounds)
    names = collector.wait_for(2)
    program.run("telemetry.flush()", **bounds)
    names = collector.names
    assert "program1.0" not in names
    assert "program1.2999" in names
    assert "last.0" in names
    assert once(names)


@OF_BOTH
def test_past_their_age_spans_go(program: Program, collector: Collector) -> None:
    program.run(f"items(10); {KILLED}", status=-9)
    program.wait_for_sender_to_end()
    for path in program.segments:
        os.utime(path, (time.time() - 7200,) * 2)
    collector.start()
    program.run("items(1)", QUEUEHOP_SPOOL_MAX_AGE="3600")
    assert collector.wait_for(1) == {"program2.0": 1}


@OF_BOTH
def test_a_torn_frame_costs_itself_alone(program: Program, collector: Collector) -> None:
    program.run(f"items(100, 'one'); {KILLED}", status=-9)
    program.wait_for_sender_to_end()
    (segment,) = program.segments
    whole = segment.read_bytes()
    segment.write_bytes(whole[:-7])
    collector.start()
    program.run("items(1)")
    names = collector.wait_for(100)
    assert once(names)
    assert "one.99" not in names


@OF_BOTH
def test_damage_in_the_middle_costs_what_is_damaged(program: Program, collector: Collector) -> None:
    program.run(f"items(100, 'one'); {KILLED}", status=-9)
    program.wait_for_sender_to_end()
    (segment,) = program.segments
    data = bytearray(segment.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 20] = bytes(20)
    segment.write_bytes(data)
    collector.start()
    program.run("items(1)")
    names = collector.wait_for(99)
    assert once(names)
    assert {"one.0", "one.99", "program2.0"} <= set(names)


def frame(seed: int, content: bytes) -> bytes:
    return frames.frame(seed, frames.RECORD + b"an id of" + content)


@examples(500)
@example(payloads=[b"\x00"], cuts=[(12, b"\x00")], at_end=False)
@given(
    payloads=st.lists(st.binary(max_size=60), max_size=8),
    cuts=st.lists(st.tuples(st.integers(0, 400), st.binary(max_size=12)), max_size=3),
    at_end=st.booleans(),
)
def test_reading_damaged_bytes_yields_what_was_written_and_nothing_else(
    payloads: list[bytes], cuts: list[tuple[int, bytes]], at_end: bool
) -> None:
    seed = frames.seed("segment")
    data = b"".join(frame(seed, payload) for payload in payloads)
    for at, junk in cuts:
        data = data[:at] + junk + data[at + len(junk) // 2 :]
    found = [each.content for each in frames.unpack(seed, data, at_end)]
    left = iter(payloads)
    assert all(payload in left for payload in found)
    if not cuts:
        assert found == payloads


def test_a_payload_cannot_pass_for_a_frame() -> None:
    seed, other = frames.seed("segment"), frames.seed("another")
    inner = frame(other, b"forged")
    data = frame(seed, b"x" * 50 + inner + b"x" * 50)
    assert not list(frames.unpack(seed, data[:100]))


@OF_BOTH
def test_a_killed_process_among_many_leaves_others_frames_whole(
    program: Program, collector: Collector
) -> None:
    collector.start()
    process = program.run(
        """
        children = []
        for number in range(4):
            pid = os.fork()
            if not pid:
                each = 0
                while True:
                    items(1, f"child{number}.{each}")
                    each += 1
                    os.write(1, b"%d %d\\n" % (number, each))
            children.append(pid)
        time.sleep(1)
        for pid in children:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        """
    )
    ended: dict[int, int] = {}
    for line in process.lines:
        number, each = map(int, line.split())
        ended[number] = max(each, ended.get(number, 0))
    names = collector.wait_for(sum(ended.values()))
    # Each process may have ended one more span and not printed it yet.
    assert sum(ended.values()) <= len(names) <= sum(ended.values()) + 4
    assert once(names)


def test_a_directory_that_was_there_is_left_as_it_is(program: Program, tmp_path: Path) -> None:
    """With ``QUEUEHOP_STATE_DIR=/var`` it would be the system's spool."""
    theirs = tmp_path / "var" / "spool"
    theirs.mkdir(parents=True)
    theirs.chmod(0o755)
    program.run("spans(1)", QUEUEHOP_STATE_DIR=str(tmp_path / "var"))
    assert stat.S_IMODE(theirs.stat().st_mode) == 0o755
    (ours,) = theirs.iterdir()
    assert stat.S_IMODE(ours.stat().st_mode) == 0o700


@pytest.fixture
def spool(tmp_path: Path) -> SpoolDirectory:
    directory = SpoolDirectory(tmp_path / "0123456789abcdef")
    directory.make()
    return directory


ORIGIN = Origin(
    {"service.name": "shop"},
    "",
    False,
    SpanTemplate("send ping", SpanKind.PRODUCER.value, {"messaging.system": "redis"}, Scope("x")),
)
RECORD = Record(bytes(15) + b"\x01", 2, 3, 4, flags=Record.SAMPLED, facts=SendFacts())


class Written:
    """A segment that a test writes frame by frame."""

    def __init__(self, directory: SpoolDirectory) -> None:
        self.name = "tree.000000"
        self.seed = frames.seed(self.name)
        self.path = directory.segment(self.name)
        self.path.touch()

    def define(self, content: bytes) -> bytes:
        definition = frames.define(content)
        self.write(definition.payload)
        return definition.id

    def write(self, *payload: bytes) -> None:
        with self.path.open("ab") as file:
            file.write(frames.frame(self.seed, b"".join(payload)))


def test_a_reader_goes_on_where_another_has_been(spool: SpoolDirectory) -> None:
    """Each of the two cursors sees all frames, wherever the other one is."""
    written = Written(spool)
    id = written.define(msgspec.msgpack.encode(ORIGIN))
    written.write(frames.RECORD, id, pack(RECORD))
    segment = Segment(spool, written.name, {})
    assert len(list(segment.waiting["TRACES"].drain())) == 1
    for span_id in (5, 6):
        written.write(frames.RECORD, id, pack(replace(RECORD, span_id=span_id)))
    assert len(list(segment.waiting["TRACES"].drain())) == 2
    assert len(list(segment.waiting["METRICS"].drain())) == 3
    assert segment.take_unreadable() == (0, 0)
    segment.close()


@pytest.mark.parametrize(
    ("kind", "origin", "record"),
    [
        pytest.param(b"\x09", ORIGIN, pack(RECORD), id="an unknown kind"),
        pytest.param(frames.RECORD, ["a", 1], pack(RECORD), id="a damaged origin"),
        pytest.param(frames.RECORD, ORIGIN, b"\xc1", id="no MessagePack"),
        pytest.param(frames.RECORD, ORIGIN, msgspec.msgpack.encode([1, 2]), id="no record"),
        pytest.param(
            frames.RECORD,
            ORIGIN,
            msgspec.msgpack.encode([bytes(16), 2, 3, 4, 0, 1, False, "", [9, "?"]]),
            id="unknown facts",
        ),
        pytest.param(
            frames.RECORD,
            ORIGIN,
            pack(replace(RECORD, facts=RunFacts(("only", "two")))),
            id="facts that are too short",
        ),
    ],
)
def test_a_record_that_does_not_fit_is_counted_once_and_stops_no_other(
    spool: SpoolDirectory, kind: bytes, origin: object, record: bytes
) -> None:
    written = Written(spool)
    odd, usual = (written.define(msgspec.msgpack.encode(each)) for each in (origin, ORIGIN))
    written.write(kind, odd, record)
    written.write(frames.RECORD, usual, pack(RECORD))
    written.write(frames.RECORD, b"no such!", pack(RECORD))
    segment = Segment(spool, written.name, {})
    assert len(list(segment.waiting["TRACES"].drain())) == 1
    assert len(list(segment.waiting["METRICS"].drain())) == 1
    # A definition that is damaged counts, and so does each record that refers to it.
    assert segment.take_unreadable() == (2 + (origin is not ORIGIN), 0)
    segment.close()


def test_fields_that_a_newer_version_appends_are_passed_over(spool: SpoolDirectory) -> None:
    written = Written(spool)
    origin, record = (
        msgspec.msgpack.encode([*msgspec.msgpack.decode(encoded), "new"])
        for encoded in (msgspec.msgpack.encode(ORIGIN), pack(replace(RECORD, limited=True)))
    )
    written.write(frames.RECORD, written.define(origin), record)
    segment = Segment(spool, written.name, {})
    assert len(list(segment.waiting["TRACES"].drain())) == 1
    segment.close()


@pytest.mark.parametrize(
    ("magic", "kind_counts", "kinds", "spans"),
    [(b"\x9aQH\x01", 0, (1, 2, 4, 5, 6, 3), 4), (b"\x9aQH\x03", 1, (1, 2, 2, 3, 4), 3)],
    ids=["formats 1 to 4", "format 6"],
)
def test_the_spans_of_an_older_version_are_counted_and_removed(
    program: Program,
    collector: Collector,
    magic: bytes,
    kind_counts: int,
    kinds: tuple[int, ...],
    spans: int,
) -> None:
    """This version cannot read their format, so it cannot deliver them."""
    older = program.directory / "state" / "spool" / "0123456789abcdef"
    older.mkdir(parents=True, mode=0o700)
    (older / "sender.lock").touch()
    # A magic number, the length, a checksum and a kind: of a definition, of spans, of numbers.
    length = 5 + kind_counts
    found = [struct.pack("4sIIB", magic, length, 0, kind) + b"12345" for kind in kinds]
    (older / "tree.000000.spool").write_bytes(b"".join(found))
    collector.start()
    process = program.run("spans(1); telemetry.flush(); time.sleep(2.1); spans(1, 'late')")
    collector.wait_for(2)
    assert f"dropped {spans} spans: written by an older version" in process.output
    assert not list(older.glob("*.spool"))


def test_what_others_have_beside_it_is_left_there(
    program: Program, collector: Collector, tmp_path: Path
) -> None:
    """Old directories of ours are removed. Other files stay, and do not stop the sender."""
    spool = tmp_path / "var" / "spool"
    cron, ours = spool / "cron", spool / "0123456789abcdef"
    for directory, file in ((cron, "crontab"), (ours, "sender.lock")):
        directory.mkdir(parents=True)
        (directory / file).touch()
        os.utime(directory, (0, 0))
    (spool / "README").touch()
    collector.start()
    program.run("spans(1)", QUEUEHOP_STATE_DIR=str(tmp_path / "var"), QUEUEHOP_SPOOL_MAX_AGE="3600")
    collector.wait_for(1)
    assert (cron / "crontab").exists()
    assert (spool / "README").exists()
    assert not ours.exists()


def test_more_segments_than_files_that_may_be_open(program: Program, collector: Collector) -> None:
    """Each short-lived process leaves one while the collector is down."""
    (program.directory / "many.py").write_text(
        textwrap.dedent("""
        import os, resource
        import telemetry
        from opentelemetry import trace

        resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
        for number in range(120):
            if pid := os.fork():
                assert os.waitpid(pid, 0)[1] == 0
                continue
            telemetry.setup("many")
            with trace.get_tracer("test").start_as_current_span(f"one.{number}"):
                pass
            os._exit(0)
        """)
    )
    env = {"PYTHONPATH": f"{program.directory}:.", "OTEL_EXPORTER_OTLP_ENDPOINT": program.endpoint}
    many = program.start("many", **env)
    assert many.wait(60) == 0, many.output
    assert len(program.segments) == 120
    collector.start()
    program.run("spans(1)")
    assert once(collector.wait_for(121))
