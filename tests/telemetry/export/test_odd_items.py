"""If one item raises, only that item is lost, counted and logged, and the others arrive."""

import os
import shutil
import stat
import textwrap
from pathlib import Path

import pytest

from telemetry.export.spool.sender_files import SenderFiles
from telemetry.export.status import SignalStatus
from telemetry.otlp.receiver import Receiver

from ...conftest import free_port
from ...processes import Process
from .conftest import OF_ALL, OF_BOTH, Collector, Program
from .test_delivery import once
from .test_sender_errors import IN_THE_SENDER, break_sender

#: Writes frames of any content into the program's own segment.
WRITE = """
from msgspec import msgpack
from msgspec.structs import replace
from telemetry.export.outgoing import LOGS, Origin
from telemetry.export.spool import frames
from telemetry.setup import _provider
from telemetry.tracing.record import *
from telemetry.tracing.scope import Scope

writer = _provider.sink._writer
template = SpanTemplate("odd", 0, {}, Scope("x"))
origin = Origin({"service.name": "shop"}, "", False, template)
record = Record(bytes(15) + b"1", 2, 3, 4, flags=Record.SAMPLED)
run = RunFacts(("id", None, None, None, 0, None, None), "celery")
log = RecordedLog(1, "shop", 20, "INFO", "a line", "/shop.py", "order", 7)

def write_log(**fields):
    write(replace(log, **fields), replace(origin, template=LOGS), frames.LOG)

def write(record=record, origin=origin, kind=frames.RECORD):
    content = record if isinstance(record, bytes) else msgpack.encode(record)
    writer.append(kind, frames.define(msgpack.encode(origin)), content)

def with_template(**fields):
    return replace(origin, template=replace(template, **fields))

def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value
"""

#: The frames that are written, and the number of lost spans.
ODD = {
    "a number beyond 64 bits in a resource": (
        "write(origin=replace(origin, resource={'n': 2**64 - 1}))",
        0,
    ),
    "a table whose keys are numbers in a resource": (
        "write(origin=replace(origin, resource={'n': {1: 2}}))",
        0,
    ),
    "a number beyond 64 bits in a scope": (
        "write(origin=with_template(scope=Scope('x', attributes={'n': 2**64 - 1})))",
        0,
    ),
    "a list among what a metric counts by": (
        "write(replace(record, facts=run), with_template("
        "static_attributes={'messaging.system': ['a']}))",
        1,
    ),
    "as many messages as 64 bits hold, twice": (
        "for id in (1, 2): "
        "write(replace(record, span_id=id, facts=replace(run, messages=2**63 - 1)))",
        2,
    ),
    "fewer messages than none": (
        "write(replace(record, facts=replace(run, messages=-5)))",
        1,
    ),
    "a time that is not a number": (
        "write(replace(record, facts=replace(run, sent_at='nan', received_at=float('inf'))))",
        0,
    ),
    "a kind that does not exist": ("write(origin=with_template(kind=-5000))", 1),
    "ids below zero": ("write(replace(record, span_id=-1))", 1),
    "attributes nested without end": (
        "write(replace(record, attributes={'n': nested(400)}))",
        0,
    ),
    "bytes that are not a record": ("write(b'\\xff\\xff')", 1),
    "text that is not Unicode": (
        "write(msgpack.encode(replace(record, name='odd')).replace(b'odd', b'\\xed\\xa0\\x80'))",
        1,
    ),
    "values of no type of ours": (
        "import datetime; write(replace(record, attributes={'n': datetime.datetime.now()}))",
        0,
    ),
}


#: The same for log records.
ODD_LOGS = {
    "a trace id of five bytes": ("write_log(trace_id=b'12345')", 1),
    "a time below zero": ("write_log(time=-1)", 1),
    "a level that is not a number": ("write_log(level='high')", 1),
    "a level beyond all others": ("write_log(level=10**9)", 0),
    "a number beyond 64 bits": ("write_log(attributes={'n': 2**64 - 1})", 0),
    "attributes nested without end": ("write_log(attributes={'n': nested(400)})", 0),
    "no text": ("write_log(body=None)", 1),
    "no logger": ("write_log(logger='')", 0),
    "bytes that are no log record": (
        "writer.append(frames.LOG, frames.define(msgpack.encode(origin)), b'\\xff')",
        1,
    ),
    "a record in its place": ("write(record, origin, frames.LOG)", 1),
}


@pytest.mark.parametrize(("odd", "lost"), ODD.values(), ids=ODD)
def test_what_decodes_into_odd_values_costs_itself_alone(
    program: Program, receiver: Receiver, odd: str, lost: int
) -> None:
    program.endpoint = receiver.endpoint
    process = program.run(
        f"{WRITE}\nspans(5, 'before')\n{odd}\nspans(5, 'after')\n"
        "telemetry.flush(); time.sleep(2.1); spans(1, 'late'); telemetry.flush()"
    )
    wanted = {f"{part}.{number}" for part in ("before", "after") for number in range(5)}
    found = receiver.wait_for(lambda spans: wanted | {"late.0"} <= {s.name for s in spans})
    only_odd_is_lost(program, process, "spans", lost)
    assert len(found) == 11 + odd.count("write(") * (not lost)


@pytest.mark.parametrize(("odd", "lost"), ODD_LOGS.values(), ids=ODD_LOGS)
def test_an_odd_log_record_costs_itself_alone(
    program: Program, collector: Collector, odd: str, lost: int
) -> None:
    program.logs = collector.takes_logs = True
    collector.start()
    process = program.run(
        f"{WRITE}\nitems(5, 'before')\n{odd}\nspans(5, 'span')\nitems(5, 'after')\n"
        "telemetry.flush(); time.sleep(2.1); items(1, 'late'); telemetry.flush()"
    )
    wanted = {f"{part}.{n}" for part in ("before", "span", "after") for n in range(5)} | {"late.0"}
    names = collector.wait_for(len(wanted) + (not lost))
    assert names.keys() >= wanted
    assert once(names)
    only_odd_is_lost(program, process, "log records", lost)


def only_odd_is_lost(program: Program, process: Process, items: str, lost: int) -> None:
    """Assert that *lost* of *items* are counted and logged, and that the sender has not failed."""
    program.wait_for_sender_to_end()
    signal = 0 if items == "spans" else 2
    assert [each.dropped for each in statuses(program)] == [
        lost * (at == signal) for at in range(3)
    ]
    assert status(program).error == ""
    lines = process.output.splitlines()
    assert len(lines) == bool(lost), lines
    assert all(line.startswith(f"dropped {lost} {items}: damaged") for line in lines)
    assert not program.segments


def spool_of(program: Program) -> Path:
    """Return the directory of the destination."""
    (lock,) = [path for path in program.files if path.name == "sender.lock"]
    return lock.parent


def statuses(program: Program) -> tuple[SignalStatus, ...]:
    """Return the last status of each signal."""
    return SenderFiles(spool_of(program)).status().signals


def status(program: Program) -> SignalStatus:
    """Return the last status of the spans."""
    return statuses(program)[0]


@OF_ALL
@pytest.mark.parametrize(
    ("size", "said"),
    [(5_000_000, "dropped 1 {}: "), (20_000_000, "tracing could not ")],
)
def test_an_item_that_is_too_large_costs_itself_alone(
    program: Program, collector: Collector, size: int, said: str
) -> None:
    collector.start()  # takes 4 MiB in a request
    process = program.run(
        f"""
        items(5, "before")
        items(1, "large", text="x" * {size})
        items(5, "after")
        telemetry.flush(); time.sleep(2.1); items(1, "late"); telemetry.flush()
        """
    )
    names = collector.wait_for(11)
    assert once(names)
    assert "large.0" not in names
    assert sum(said.format(collector.items) in line for line in process.lines) == 1


RAISES = """
    import telemetry.otlp.encode as encode
    from telemetry.export import outgoing

    def raising(function, name):
        def call(template, record, *rest):
            if record.name == name or template.name == name:
                raise RuntimeError("an odd one")
            return function(template, record, *rest)
        return call

    outgoing.interpret = raising(outgoing.interpret, "odd.0")
    outgoing.encode_span = raising(outgoing.encode_span, "odd.1")
    outgoing.measurement = raising(outgoing.measurement, "odd.2")

    encode_log = outgoing.encode_log

    def encode(log):
        if log.body.startswith("odd"):
            raise RuntimeError("an odd one")
        return encode_log(log)

    outgoing.encode_log = encode
"""


@OF_BOTH
@pytest.mark.parametrize("spool", ["disk", "memory"])
def test_a_record_at_which_our_own_code_raises_costs_itself_alone(
    program: Program, collector: Collector, spool: str
) -> None:
    if spool == "disk":
        break_sender(program, RAISES)
    collector.start()
    process = program.run(
        (textwrap.dedent(RAISES) if spool == "memory" else "")
        + textwrap.dedent("""
        items(5, "before")
        items(3, "odd")
        items(5, "after")
        telemetry.flush(); time.sleep(2.1); items(1, "late"); telemetry.flush()
        """),
        QUEUEHOP_SPOOL=spool,
    )
    names = collector.wait_for(11)
    assert not {name for name in names if name.startswith("odd")}
    (line,) = process.output.splitlines()
    assert line.startswith(f"dropped 3 {collector.items}")


def test_a_segment_at_which_the_disk_fails_costs_itself_alone(
    program: Program, collector: Collector
) -> None:
    (program.directory / "sitecustomize.py").write_text(
        IN_THE_SENDER.format("""
    import errno, os
    pread = os.pread

    def failing(fd, size, at):
        if "failing" in os.readlink(f"/proc/self/fd/{fd}"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return pread(fd, size, at)

    os.pread = failing
    """)
    )
    program.run("spans(3); os.kill(os.getpid(), signal.SIGKILL)", status=-9)
    program.wait_for_sender_to_end()
    (segment,) = program.segments
    failing = segment.with_name("failing.000000.spool")
    shutil.copy(segment, failing)
    collector.start()
    process = program("while True: spans(1, f'later{time.monotonic()}'); time.sleep(0.05)")
    assert "failing.000000: Input/output error" in process.wait_for_line("cannot be read")
    collector.wait_for(4)
    process.stop()
    assert failing.exists()


@pytest.mark.parametrize("name", [b"odd\xff.000001.spool", b"odd\n.000001.spool"])
def test_a_name_that_is_no_text_stops_nothing(
    program: Program, collector: Collector, name: bytes
) -> None:
    collector.start()
    program.run("spans(1)\nassert telemetry.flush()")
    odd = os.path.join(os.fsencode(spool_of(program)), name)
    os.mkfifo(odd)
    program.run("spans(3)\nassert telemetry.flush()")
    assert set(collector.wait_for(4).values()) == {1}
    os.unlink(odd)
    Path(os.fsdecode(odd)).write_bytes(b"no segment")
    program.run("spans(3)\nassert telemetry.flush()")
    assert set(collector.wait_for(7).values()) == {1}
    program.wait_for_sender_to_end()
    assert "ended" not in status(program).error


def test_a_directory_in_place_of_a_note_stops_nothing(
    program: Program, collector: Collector
) -> None:
    program.run("spans(3); os.kill(os.getpid(), signal.SIGKILL)", status=-9)
    program.wait_for_sender_to_end()
    (segment,) = program.segments
    segment.with_suffix(".ack").unlink(missing_ok=True)
    segment.with_suffix(".ack").mkdir()
    collector.start()
    program.run("spans(3)\nassert telemetry.flush()")
    collector.wait_for(6)
    program.wait_for_sender_to_end()
    assert not program.segments
    assert status(program).error == ""


def test_what_a_collector_says_is_one_line_and_short(
    program: Program, collector: Collector
) -> None:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
        ExportTracePartialSuccess,
        ExportTraceServiceResponse,
    )

    said = "a\nb" * 1_000_000
    collector.answer = lambda spans, context: ExportTraceServiceResponse(
        partial_success=ExportTracePartialSuccess(rejected_spans=1, error_message=said)
    )
    collector.start()
    process = program.run("spans(1); telemetry.flush(); time.sleep(2.1); spans(1, 'late')")
    collector.wait_for(2)
    (line,) = process.output.splitlines()
    assert line.startswith("dropped 1 spans: a ba b")
    assert len(line) < 300


# The spool's own path


def test_a_link_in_place_of_the_directory_is_not_followed(
    program: Program, collector: Collector
) -> None:
    collector.start()
    program.run("spans(1)")
    collector.wait_for(1)
    program.wait_for_sender_to_end()
    directory = spool_of(program)
    elsewhere = program.directory / "elsewhere"
    shutil.move(directory, elsewhere)
    directory.symlink_to(elsewhere)
    before = sorted(elsewhere.iterdir())
    process = program.run("spans(3)")
    assert "is not a directory of this user" in process.output
    collector.wait_for(4)
    assert sorted(elsewhere.iterdir()) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a directory away")
def test_a_directory_of_another_user_is_not_used(program: Program, collector: Collector) -> None:
    collector.start()
    program.run("spans(1)")
    collector.wait_for(1)
    program.wait_for_sender_to_end()
    directory = spool_of(program)
    os.chown(directory, 65534, 65534)
    process = program.run("spans(3)")
    assert "is not a directory of this user" in process.output
    assert "QUEUEHOP_STATE_DIR" in process.output
    collector.wait_for(4)
    assert not list(directory.glob("*.spool"))


def test_directories_are_private_whatever_the_umask_and_made_private_again(
    program: Program, tmp_path: Path
) -> None:
    state = tmp_path / "new" / "deep" / "state"
    env = {
        "QUEUEHOP_STATE_DIR": str(state),
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{free_port()}",
    }
    program.endpoint = env.pop("OTEL_EXPORTER_OTLP_ENDPOINT")
    program.run("spans(1)", **env)
    made = [tmp_path / "new", tmp_path / "new" / "deep", state, state / "spool"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in made} == {0o700}
    (directory,) = (state / "spool").iterdir()
    directory.chmod(0o777)
    program.run("spans(1)", **env)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_a_directory_above_that_cannot_be_listed_stops_nothing(
    program: Program, collector: Collector
) -> None:
    """Such as /var/spool, which some users may enter and not list."""
    break_sender(
        program,
        """
    import os
    from pathlib import Path

    iterdir = Path.iterdir

    def entered_only(path):
        if path.name == "spool":
            raise PermissionError(13, "Permission denied", str(path))
        return iterdir(path)

    Path.iterdir = entered_only
""",
    )
    collector.start()
    program.run("spans(3)\nassert telemetry.flush()")
    collector.wait_for(3)
    program.wait_for_sender_to_end()
    assert status(program).error == ""
