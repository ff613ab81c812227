"""setup() with another SDK, and in a child that is forked while a thread is in setup()."""

import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from telemetry.otlp.receiver import Receiver

from ..processes import Process, Starter

Run = Callable[[str], Process]


@pytest.fixture
def run(start: Starter, tmp_path: Path) -> Run:
    """Run a script to its end."""

    def run(script: str) -> Process:
        (tmp_path / "script.py").write_text(textwrap.dedent(script))
        process = start("script", PYTHONPATH=f"{tmp_path}:{start.env.get('PYTHONPATH', '')}:.")
        assert process.wait(120) == 0, process.output
        return process

    return run


SET_UP_AND_WORK = """
import telemetry
from opentelemetry import trace

telemetry.setup("billing")
with trace.get_tracer("test").start_as_current_span("work"):
    headers = {}
    telemetry.inject(headers)
assert telemetry.flush()
"""


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(
            """
            def constructor(self, name, *, everything_else):
                raise AssertionError("spans of the SDK are not made")

            sdk.Span.__init__ = sdk._Span.__init__ = constructor
            """,
            id="the constructor of spans",
        ),
        pytest.param(
            """
            del sdk._Span, sdk.Span
            """,
            id="no class of spans",
        ),
        pytest.param(
            """
            class Processors:
                on_start = on_end = shutdown = lambda *_, **__: None
                force_flush = lambda *_, **__: True

            made = sdk.TracerProvider.__init__

            def constructor(self, *args, **options):
                made(self, *args, **options)
                self._active_span_processor = Processors()
                for name in ("_tracers", "_tracer_configurator", "_span_limits", "_disabled"):
                    vars(self).pop(name, None)

            sdk.TracerProvider.__init__ = constructor
            """,
            id="private fields of the provider",
        ),
    ],
)
def test_spans_arrive_with_another_sdk(run: Run, receiver: Receiver, other: str) -> None:
    run("import opentelemetry.sdk.trace as sdk\n" + textwrap.dedent(other) + SET_UP_AND_WORK)
    (span,) = receiver.wait_for(lambda spans: len(spans) >= 1)
    assert (span.name, span.service) == ("work", "billing")


def test_another_signature_of_the_provider_is_one_line(run: Run, receiver: Receiver) -> None:
    process = run(
        """
        import opentelemetry.sdk.trace as sdk

        def constructor(self, *, something_else):
            pass

        sdk.TracerProvider.__init__ = constructor
        """
        + textwrap.indent(SET_UP_AND_WORK, " " * 8)
    )
    assert process.output.count("tracing could not set itself up") == 1
    assert not receiver.spans


def test_a_child_forked_while_a_thread_sets_up_goes_on(run: Run, receiver: Receiver) -> None:
    """Each of fifteen processes forks while one of its threads is in setup()."""
    count = 15
    run(
        f"""
        import os, signal, sys, threading
        import telemetry
        import telemetry.setup
        from opentelemetry import trace
        from telemetry.config import settings

        setup = sys.modules["telemetry.setup"]

        def work(name):
            telemetry.setup("forks")
            with trace.get_tracer("test").start_as_current_span(name):
                pass

        def fork(child):
            pid = os.fork()
            if pid:
                return pid
            code = 1
            signal.alarm(20)  # ends what hangs
            try:
                child()
                code = 0
            finally:
                os._exit(code)

        def both(number):
            inside, sampler = threading.Event(), settings.sampler

            def sampler_of_a_thread():
                inside.set()
                return sampler()

            settings.sampler = sampler_of_a_thread
            thread = threading.Thread(target=work, args=(f"thread.{{number}}",))
            thread.start()
            inside.wait()
            pid = fork(lambda: work(f"child.{{number}}"))
            status = os.waitpid(pid, 0)[1]
            thread.join()
            assert status == 0, status

        statuses = [os.waitpid(fork(lambda: both(number)), 0)[1] for number in range({count})]
        assert not any(statuses), statuses
        """
    )
    wanted = {f"{who}.{number}" for who in ("thread", "child") for number in range(count)}
    spans = receiver.wait_for(lambda spans: len(spans) >= len(wanted), 60)
    assert {span.name for span in spans} == wanted
