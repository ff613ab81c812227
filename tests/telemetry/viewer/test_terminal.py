"""A trace in the terminal: its line, and its tree."""

import io
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from rich.console import Console, RenderableType

from telemetry.otlp.decode import Event, Link, ReceivedSpan
from telemetry.viewer.analysis.wait import live_wait, wait_of
from telemetry.viewer.terminal import ping_header, ping_line, render_tree

from .pings import BEGIN, TRACE, WEB, span


def text_of(renderable: RenderableType, width: int = 80, **options: object) -> str:
    console = Console(file=io.StringIO(), width=width, **options)  # type: ignore[arg-type]
    console.print(renderable)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def lines_of(spans: dict[str, ReceivedSpan], width: int = 80) -> list[str]:
    return text_of(render_tree(list(spans.values())), width).splitlines()


# The line of a ping


def test_the_line_of_a_ping(ping: dict[str, ReceivedSpan]) -> None:
    line = text_of(ping_line(7, list(ping.values())))
    assert line.split() == ["7", "200", "40", "ms", "3.0", "ms", TRACE, "6", "✓"]
    assert len(line.rstrip("\n")) <= 80
    header = ping_header().plain
    assert line.index(TRACE) == header.index("trace")


def test_the_line_of_a_broken_ping_says_why(ping: dict[str, ReceivedSpan]) -> None:
    del ping["run"], ping["store"]
    first, *reasons = text_of(ping_line(1, list(ping.values()))).splitlines()
    assert first.split() == ["1", "200", "40", "ms", "\N{EN DASH}", TRACE, "4", "✗"]
    assert [reason.strip() for reason in reasons] == [
        "the run of workers.tasks.ping did not arrive",
        "2 processes instead of at least 3",
    ]


def test_the_line_of_nothing_at_all() -> None:
    assert "no span arrived" in text_of(ping_line(1, []))


# The tree


def test_the_tree_of_a_ping_at_80_columns(ping: dict[str, ReceivedSpan]) -> None:
    spans = list(ping.values())
    assert text_of(render_tree(spans), 80).splitlines() == [
        f"trace {TRACE}   6 spans, 3 processes",
        "                                                             0             40 ms",
        "shop-client  c1",
        "ping  INTERNAL                                        40 ms  ━━━━━━━━━━━━━━━━━━━",
        "└─ GET  CLIENT 200                                    38 ms  ╺━━━━━━━━━━━━━━━━━╸",
        "   │  shop  w1",
        "   └─ GET /ping  SERVER 200                           34 ms   ╺━━━━━━━━━━━━━━━╸",
        "      └─ send workers.tasks.ping  PRODUCER → celery  3.0 ms    ╺━",
        "         │  ⧗ waited 3.0 ms in celery                           ┄┄",
        "         │  shop-worker  r1",
        "         └─ process workers.tasks.ping  CONSUMER      20 ms       ━━━━━━━━━",
        "            │  ↗ links to send workers.tasks.ping above",
        "            └─ SET  CLIENT redis                     1.0 ms       ╺",
    ]


@pytest.mark.parametrize("width", [10, 40, 80, 120, 300])
def test_it_fits(ping: dict[str, ReceivedSpan], width: int) -> None:
    long = "x" * 400
    ping["store"] = replace(ping["store"], name=long, status="ERROR", status_message=long)
    lines = lines_of(ping, width)
    assert max(map(len, lines)) <= width
    assert width < 40 or any("⧗" in line for line in lines)


def test_each_wait_has_its_own_line(ping: dict[str, ReceivedSpan]) -> None:
    waits = {"celery.wait.scheduled": 2.5, "celery.wait.queue": 0.003, "celery.wait.prefetch": 0.12}
    ping["run"] = replace(ping["run"], attributes={**ping["run"].attributes, **waits})
    lines = [line.split("⧗ ")[1].split("  ")[0] for line in lines_of(ping) if "⧗" in line]
    assert lines == [
        "waited 2.50 s until it was due",
        "waited 3.0 ms in celery",
        "waited 120 ms for a free process",
    ]


@pytest.mark.parametrize(
    ("waits", "shown"),
    [
        ({}, []),
        ({"celery.wait.queue": 0.0}, ["waited 0 ms in celery"]),
        ({"celery.wait.queue": "long"}, []),
        ({"celery.wait.queue": float("inf")}, []),
        (
            {"celery.wait.queue": 0.001, "celery.wait.skewed": True},
            ["waited 1.0 ms in celery (the clocks disagree)"],
        ),
    ],
)
def test_waits_that_are_not_known_or_odd(
    ping: dict[str, ReceivedSpan], waits: dict[str, object], shown: list[str]
) -> None:
    queue = {"messaging.destination.name": "celery"}
    ping["run"] = replace(ping["run"], attributes={**queue, **waits})
    lines = [line for line in lines_of(ping, 120) if "⧗" in line]
    assert [line.split("⧗ ")[1].split("  ")[0] for line in lines] == shown


def test_an_error_says_its_type_and_message(ping: dict[str, ReceivedSpan]) -> None:
    exception = {"exception.type": "redis.ConnectionError", "exception.message": "refused"}
    ping["store"] = replace(
        ping["store"], status="ERROR", events=(Event("exception", BEGIN, exception),)
    )
    shown = text_of(render_tree(list(ping.values())), force_terminal=True, color_system="standard")
    line = next(line for line in shown.splitlines() if "✗" in line)
    assert "\x1b[31m✗ redis.ConnectionError: refused\x1b[0m" in line


def test_an_error_without_an_exception(ping: dict[str, ReceivedSpan]) -> None:
    ping["store"] = replace(ping["store"], status="ERROR", attributes={"error.type": "timeout"})
    assert any(line.endswith("✗ timeout") for line in lines_of(ping))


def test_links_name_what_they_link_to(ping: dict[str, ReceivedSpan]) -> None:
    links = [Link(TRACE, "a1", {}), Link("e" * 32, "f" * 16, {}), *[Link(TRACE, "a1", {})] * 100]
    ping["run"] = replace(ping["run"], links=(Link(TRACE, "b2", {}), *links))
    lines = [line.split("↗ ")[1].rstrip() for line in lines_of(ping, 120) if "↗" in line]
    assert lines[:3] == [
        "links to send workers.tasks.ping above",
        "links to ping",
        f"links to {'f' * 16} in trace {'e' * 32}",
    ]
    assert lines[-1] == "and to 98 more"


def test_a_parent_that_is_missing_is_said(ping: dict[str, ReceivedSpan]) -> None:
    del ping["send"]
    lines = lines_of(ping)
    assert "the parent b2 did not arrive" in lines
    assert any(line.startswith("process workers.tasks.ping") for line in lines)


@pytest.mark.parametrize(
    ("seconds", "due", "words"),
    [
        (2, {}, "waiting 2.00 s in celery"),
        (90, {}, "stuck for 1 min 30 s in celery"),
        (2, {"celery.task.eta": 5}, "scheduled in celery, due in 3.00 s"),
        (7, {"celery.task.eta": 5}, "overdue by 2.00 s in celery"),
        (7, {"celery.task.expires": 5}, "expired after 5.00 s in celery"),
    ],
)
def test_a_message_that_waits_has_a_line(
    ping: dict[str, ReceivedSpan], seconds: float, due: dict[str, float], words: str
) -> None:
    sent = ping["send"]
    times = {
        key: datetime.fromtimestamp(sent.end_ns / 1e9 + after, UTC).isoformat()
        for key, after in due.items()
    }
    attributes = {**sent.attributes, "celery.task.name": "workers.tasks.ping", **times}
    sent = replace(sent, parent_id="", attributes=attributes)
    lines = text_of(render_tree([sent], [live_wait(sent, sent.end_ns + seconds * 10**9)]))
    assert [line.strip() for line in lines.splitlines() if "⧗" in line] == [f"⧗ {words}"]


def test_a_message_that_ran_in_another_trace_names_it(ping: dict[str, ReceivedSpan]) -> None:
    sent, ran = replace(ping["send"], parent_id=""), replace(ping["run"], trace_id="f" * 32)
    wait = wait_of(ran, sent)
    assert wait is not None
    text = text_of(render_tree([sent], [wait]))
    assert f"waited 3.0 ms in celery, and ran in trace {'f' * 32}" in text


def test_spans_in_a_circle_are_drawn_once(ping: dict[str, ReceivedSpan]) -> None:
    ping["root"] = replace(ping["root"], parent_id="c2")
    lines = lines_of(ping)
    for drawn in ping.values():
        assert sum(f"{drawn.name}  {drawn.kind}" in line for line in lines) == 1


def test_a_tree_of_any_depth() -> None:
    ids = [f"{number:016x}" for number in range(1500)]
    spans = {
        own: span(own, parent, f"s{at}", "INTERNAL", WEB, (at, 2000))
        for at, (own, parent) in enumerate(zip(ids, ["", *ids], strict=False))
    }
    assert len(lines_of(spans)) == 1500 + 3


def test_what_a_terminal_would_obey_is_not_printed(ping: dict[str, ReceivedSpan]) -> None:
    nasty = "a\x1b[2Jb\r\nc\x07"
    ping["store"] = replace(ping["store"], name=nasty, status="ERROR", status_message=nasty)
    ping["send"] = replace(ping["send"], name="[bold]send[/] x", kind="INTERNAL")
    shown = "\n".join(lines_of(ping))
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert "a [2Jb  c" in shown
    assert "[bold]send[/] x" in shown


def test_no_color_where_none_is_wanted(
    ping: dict[str, ReceivedSpan], monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = render_tree(list(ping.values()))
    assert "\x1b" not in text_of(tree)
    assert "\x1b[1;36m" in text_of(tree, force_terminal=True, color_system="standard")
    monkeypatch.setenv("NO_COLOR", "1")
    assert "36m" not in text_of(tree, force_terminal=True, color_system="standard")


def test_nothing_is_an_empty_tree() -> None:
    assert text_of(render_tree([])) == ""
