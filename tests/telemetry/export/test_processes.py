"""Forks, threads, signals and descriptors of an application beside the export."""

import os
import signal
import socket
import time
from pathlib import Path

import grpc
import pytest

from ...conftest import free_port
from ...processes import ROOT
from .conftest import Collector, Program
from .test_delivery import KILLED, once


@pytest.mark.parametrize("before", ["", "spans(1, 'parent')"])
def test_a_hundred_forks_leave_nothing_behind(
    program: Program, collector: Collector, before: str
) -> None:
    collector.start()
    process = program.run(
        before
        + """
def held():
    return len(os.listdir("/dev/fd")), threading.active_count(), len(os.listdir("/proc/self/task"))

def child(number):
    pid = os.fork()
    if not pid:
        spans(10, f"child{number}")
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)

child(0)
at_first = held()
for number in range(1, 100):
    child(number)
print(at_first == held(), at_first, held())
"""
    )
    assert "True" in process.output
    names = collector.wait_for(1000 + bool(before))
    assert once(names)
    assert len(program.segments) <= 1


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing_in_all_its_ways(
    program: Program, collector: Collector, method: str
) -> None:
    collector.start()
    program.run(
        f"""
        import multiprocessing

        def work(number):
            spans(20, f"child{{number}}")

        if __name__ == "__main__":
            spans(1, "parent")
            children = [
                multiprocessing.get_context("{method}").Process(target=work, args=(number,))
                for number in range(4)
            ]
            for child in children:
                child.start()
            for child in children:
                child.join()
                assert child.exitcode == 0
        """
    )
    assert once(collector.wait_for(81))


def test_threads_and_forks_at_once(program: Program, collector: Collector) -> None:
    collector.start()
    program.run(
        """
        import faulthandler
        faulthandler.dump_traceback_later(50, exit=True)

        def work(number):
            spans(200, f"thread{number}")

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for number in range(30):
            pid = os.fork()
            if not pid:
                spans(5, f"child{number}")
                os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0
        for thread in threads:
            thread.join()
        """
    )
    assert once(collector.wait_for(950))


@pytest.mark.parametrize(
    "patch", ["import gevent.monkey as m; m.patch_all()", "import eventlet as e; e.monkey_patch()"]
)
def test_greenlets_go_on_while_spans_are_kept(
    program: Program, collector: Collector, patch: str
) -> None:
    pytest.importorskip(patch.split()[1].split(".")[0])
    collector.start()
    program.run(
        f"""
        {patch}

        def work(number):
            for each in range(20):
                spans(1, f"green{{number}}.{{each}}")
                time.sleep(0)

        green = [threading.Thread(target=work, args=(number,)) for number in range(50)]
        for one in green:
            one.start()
        for one in green:
            one.join()
        """
    )
    assert once(collector.wait_for(1000))


def test_the_sender_holds_no_port_and_no_pipe_of_the_application(
    program: Program, collector: Collector
) -> None:
    port = free_port()
    process = program(
        f"""
        import socket
        listening = socket.create_server(("127.0.0.1", {port}))
        listening.set_inheritable(True)
        os.set_inheritable(1, True)
        spans(1)
        {KILLED}
        """
    )
    assert process.wait() == -9  # waits for the end of its output too
    with socket.create_server(("127.0.0.1", port)):
        collector.start()
        collector.wait_for(1)


def test_ctrl_c_and_a_stop_of_the_whole_group_reach_the_sender_last(
    program: Program, collector: Collector
) -> None:
    process = program(
        """
        spans(100)
        try:
            print("ended", flush=True)
            time.sleep(60)
        except KeyboardInterrupt:
            spans(1, "last")
        """
    )
    process.wait_for_line("ended")
    process.signal(signal.SIGINT)
    collector.start()
    assert process.wait() == 0
    assert once(collector.wait_for(101))


def test_a_daemon_that_closes_every_descriptor_writes_to_no_file_but_its_own(
    program: Program, collector: Collector
) -> None:
    collector.start()
    program.run(
        """
        spans(10, "before")
        os.closerange(3, 1024)
        files = [open(f"/tmp/queuehop.{os.getpid()}.{number}", "w+b") for number in range(20)]
        for file in files:
            os.unlink(file.name)
        spans(10, "after")
        assert all(os.fstat(file.fileno()).st_size == 0 for file in files)
        """
    )
    assert once(collector.wait_for(20))


def test_a_sender_that_is_killed_is_replaced_and_repeats_one_batch_at_most(
    program: Program, collector: Collector
) -> None:
    killed: list[int] = []

    def answer(spans, context):  # type: ignore[no-untyped-def]
        if collector.asked == 4:
            killed.extend(program.senders())
            for pid in killed:
                os.kill(pid, signal.SIGKILL)

    collector.answer = answer
    collector.start()
    program.run(
        """
        spans(3000)
        telemetry.flush(20)
        """
    )
    names = collector.wait_for(3000)
    assert killed
    assert sum(names.values()) <= 3000 + 512


def test_no_sender_runs_for_a_program_that_ends_no_span(
    program: Program, collector: Collector
) -> None:
    program.run("pass")
    assert not program.senders()
    assert not [path for path in program.segments if path.stat().st_size]


def test_a_process_that_has_ended_no_span_yet_holds_up_no_other(
    program: Program, collector: Collector
) -> None:
    collector.start()
    program("print('ready', flush=True); signal.pause()").wait_for_line("ready")
    program.run("spans(10)")
    assert once(collector.wait_for(10))


def test_spans_ended_in_the_middle_of_a_write(program: Program, collector: Collector) -> None:
    """A signal handler or a finalizer ends spans while its own thread writes one."""
    collector.start()
    process = program.run(
        """
        from itertools import count
        numbers = count()
        def on_alarm(*_):
            spans(1, f"handler{next(numbers)}")
        signal.signal(signal.SIGALRM, on_alarm)
        signal.setitimer(signal.ITIMER_REAL, 0.0003, 0.0003)
        spans(4000)
        signal.setitimer(signal.ITIMER_REAL, 0)
        print("handled", next(numbers))
        """
    )
    handled = int(process.wait_for_line("handled").split()[1])
    assert handled > 10
    assert "tracing could not" not in process.output
    assert once(collector.wait_for(4000 + handled))


@pytest.mark.parametrize("closed", [[0], [0, 1, 2]])
def test_a_daemon_without_standard_streams(
    program: Program, collector: Collector, closed: list[int]
) -> None:
    """Then the sender's lock has the descriptor number of one of them."""
    collector.start()
    program.run(f"for fd in {closed}: os.close(fd)\nspans(3)\nos._exit(0)")
    assert once(collector.wait_for(3))


def test_a_token_that_is_taken_out_of_the_environment_after_setup(
    program: Program, collector: Collector
) -> None:
    tokens = []

    def answer(names: list[str], context: grpc.ServicerContext) -> None:
        tokens.append(dict(context.invocation_metadata()).get("api-key"))

    collector.answer = answer
    collector.start()
    program.run(
        "del os.environ['OTEL_EXPORTER_OTLP_HEADERS']; spans(1)",
        OTEL_EXPORTER_OTLP_HEADERS="api-key=t0ken",
    )
    collector.wait_for(1)
    assert tokens == ["t0ken"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_a_process_that_becomes_another_user_is_not_disturbed(program: Program) -> None:
    process = program.run("spans(1)\nos.setuid(65534)\nspans(1)\nprint(telemetry.flush(1))")
    assert "False" in process.output


def test_flush_in_a_signals_handler_in_the_middle_of_a_write(
    program: Program, collector: Collector
) -> None:
    collector.start()
    process = program.run(
        """
        signal.signal(signal.SIGTERM, lambda *_: telemetry.flush(0.1))
        from telemetry.export.spool import frames

        crc32 = frames.crc32

        def interrupted(*args):
            frames.crc32 = crc32
            os.kill(os.getpid(), signal.SIGTERM)
            return crc32(*args)

        frames.crc32 = interrupted
        spans(3)
        """
    )
    assert "tracing could not" not in process.output
    assert once(collector.wait_for(3))


def test_an_exception_right_after_a_write_does_not_send_the_span_twice(
    program: Program, collector: Collector
) -> None:
    collector.start()
    program.run(
        """
        spans(1, "first")
        write = os.write

        def interrupted(*args):
            os.write = write
            write(*args)
            raise KeyboardInterrupt

        os.write = interrupted
        try:
            spans(1, "interrupted")
        except KeyboardInterrupt:
            pass
        spans(1, "last")
        """
    )
    assert once(collector.wait_for(3))


#: In the sender, the last check of the segments waits until the file "go" exists.
SLOW_LOOK = """
import sys
if "telemetry.export.sender.process" in sys.orig_argv:
    import pathlib, time
    from telemetry.export.spool.directory import SpoolDirectory

    segments, here = SpoolDirectory.segments, pathlib.Path(__file__).parent

    def slow(self):
        found = segments(self)
        if not found and sys._getframe(1).f_code.co_name == "_is_over":
            (here / "looked").touch()
            while not (here / "go").exists():
                time.sleep(0.01)
        return found

    SpoolDirectory.segments = slow
"""


def test_a_process_that_writes_while_the_sender_ends_is_delivered(
    program: Program, collector: Collector, tmp_path: Path
) -> None:
    (program.directory / "sitecustomize.py").write_text(SLOW_LOOK)
    collector.start()
    program.run("spans(1, 'first')")
    collector.wait_for(1)
    deadline = time.monotonic() + 60
    while not (tmp_path / "looked").exists():
        assert time.monotonic() < deadline, "the sender did not look"
        time.sleep(0.01)
    program.run("spans(1, 'second')")
    (tmp_path / "go").touch()
    assert len(collector.wait_for(2)) == 2


def test_the_agent_of_another_tracer_does_not_trace_the_sender(
    program: Program, collector: Collector, tmp_path: Path
) -> None:
    """``ddtrace-run`` and the like put the folder of a package on the path of every process."""
    agent = tmp_path / "agent"
    agent.mkdir()
    (agent / "__init__.py").touch()
    (agent / "sitecustomize.py").write_text(
        "import pathlib, sys\n"
        "name = 'the sender' if '-P' in sys.orig_argv else 'it'\n"
        f"pathlib.Path({str(tmp_path)!r}, name).touch()\n"
    )
    collector.start()
    program.start.env["PYTHONPATH"] = f"{agent}:{ROOT}"
    program.run("spans(1)")
    collector.wait_for(1)
    assert (tmp_path / "it").exists()
    assert not (tmp_path / "the sender").exists()
