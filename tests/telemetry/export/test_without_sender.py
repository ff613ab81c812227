"""Without a sender, the disk is bounded, and spans are sent from memory."""

import re

import pytest

from .conftest import OF_SPANS, Collector, Program
from .test_delivery import once

pytestmark = OF_SPANS


def test_without_a_sender_the_disk_is_bounded_too(program: Program, collector: Collector) -> None:
    bound = 128 * 1024
    process = program.run(
        """
        from telemetry.export.spool import spawn

        spawn.start = lambda *_: None
        spans(5000)
        """,
        QUEUEHOP_SPOOL_MAX_BYTES=str(bound),
    )
    assert sum(path.stat().st_size for path in program.segments) <= 2.2 * bound
    assert re.search(r"dropped \d+ bytes of undelivered spans in .+: size limit", process.output)


@pytest.mark.parametrize(
    ("started", "reason"),
    [
        ("raise OSError('no more processes')", "no process can be started: no more processes"),
        ("pass", "it ends as soon as it is started"),
    ],
)
def test_where_no_sender_stays_spans_go_on_from_memory(
    program: Program, collector: Collector, started: str, reason: str
) -> None:
    collector.start()
    process = program.run(
        f"""
        from telemetry.export.spool import spawn, watch

        def start(*_):
            {started}

        spawn.start = start
        watch.INTERVAL = 0.01
        for number in range(10):
            spans(1, f"first{{number}}")
            time.sleep(0.02)
        spans(10)
        """
    )
    line = process.wait_for_line("the process that sends spans cannot be started")
    assert reason in line
    names = collector.wait_for(10)
    assert {f"program1.{number}" for number in range(10)} <= set(names)
    # The records written before wait for the next start.
    program.run("spans(1)")
    assert once(collector.wait_for(21))


def test_within_the_bound_nothing_goes_though_nobody_delivers(
    program: Program, collector: Collector
) -> None:
    """Segments are small compared with the default bound."""
    process = program.run(
        """
        for number in range(5000):
            with tracer.start_as_current_span("large", attributes={"text": "x" * 20_000}):
                pass
        """
    )
    assert sum(path.stat().st_size for path in program.segments) > 5000 * 20_000
    assert "dropped" not in process.output
