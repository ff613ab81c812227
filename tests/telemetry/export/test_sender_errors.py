"""The error with which a sender ended is on disk, in the log, and in the application."""

import pytest

from .conftest import Collector, Program

#: Runs in the sender alone, which is started with its module's name.
IN_THE_SENDER = """
import sys

if "telemetry.export.sender.process" in sys.orig_argv:
{}
"""

BROKEN_IMPORT = "    sys.modules['grpc'] = None\n"

BROKEN_CODE = """
    import telemetry.export.sender.process as process

    def run(self):
        raise RuntimeError("the sender is broken")

    process.Sender.run = run
"""


def break_sender(program: Program, code: str) -> None:
    (program.directory / "sitecustomize.py").write_text(IN_THE_SENDER.format(code))


@pytest.mark.parametrize(
    ("code", "error"), [(BROKEN_IMPORT, "grpc"), (BROKEN_CODE, "the sender is broken")]
)
def test_the_error_reaches_the_application(program: Program, code: str, error: str) -> None:
    break_sender(program, code)
    process = program.run(
        """
        from telemetry.setup import sink

        spans(1)
        while not sink().last_export_error():
            time.sleep(0.01)
        until = time.monotonic() + 20
        while error not in sink().last_export_error() and time.monotonic() < until:
            time.sleep(0.01)
        print(sink().last_export_error(), flush=True)
        """.replace("error not in", f"{error!r} not in")
    )
    assert error in process.output
    # The process may have started a last sender, which has not failed yet.
    program.wait_for_sender_to_end()
    assert error in on_disk(program)


def on_disk(program: Program) -> str:
    """Return the status that the sender wrote, or the end of its standard error."""
    names = ("status.json", "sender.stderr")
    return "".join(path.read_text() for path in program.files if path.name in names)


@pytest.mark.parametrize(
    ("code", "error"), [(BROKEN_IMPORT, "grpc"), (BROKEN_CODE, "the sender is broken")]
)
def test_one_line_says_it_and_spans_arrive_from_memory(
    program: Program, collector: Collector, code: str, error: str
) -> None:
    break_sender(program, code)
    collector.start()
    process = program.run(
        """
        from telemetry.export.spool import watch

        watch.INTERVAL = 0.05
        until = time.monotonic() + 30
        sink = telemetry.setup.__globals__["_provider"].sink
        number = 0
        while not sink._gave_up and time.monotonic() < until:
            spans(1, f"early{number}")
            number += 1
            time.sleep(0.1)
        spans(10)
        assert telemetry.flush() is True
        """
    )
    lines = [line for line in process.output.splitlines() if error in line]
    assert 1 <= len(lines) <= 2, process.output  # of the failure, and of what follows from it
    assert "sends them from memory" in lines[-1]
    names = collector.wait_for(10)
    assert {f"program1.{number}" for number in range(10)} <= set(names)
    assert set(names.values()) == {1}


def test_where_no_process_can_be_started_spans_arrive_from_memory(
    program: Program, collector: Collector
) -> None:
    collector.start()
    process = program.run(
        """
        def posix_spawn(*_, **__):
            raise PermissionError(1, "not allowed here")

        os.posix_spawn = posix_spawn
        spans(10)
        assert telemetry.flush() is True
        assert telemetry.flush() is True
        """
    )
    (line,) = process.output.splitlines()
    assert "not allowed here" in line
    # The first span was on disk before that, and waits for the next start.
    names = collector.wait_for(9)
    assert set(names.values()) == {1}
