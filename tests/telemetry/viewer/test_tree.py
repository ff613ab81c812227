"""What a person is told of a trace: whether it is one, its line, and its tree."""

import io
from dataclasses import replace

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Link as SdkLink
from opentelemetry.trace import SpanKind, set_span_in_context
from rich.console import Console, RenderableType

from telemetry.viewer.receiver import Receiver
from telemetry.viewer.spans import Event, Link, Span
from telemetry.viewer.tree import by_trace, judge, ping_header, ping_line, render_tree

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
BEGIN = 1_700_000_000_000_000_000
CLIENT = {"service.name": "shop-client", "service.instance.id": "c1"}
WEB = {"service.name": "shop", "service.instance.id": "w1"}
WORKER = {"service.name": "shop-worker", "service.instance.id": "r1"}


def span(
    span_id: str,
    parent_id: str,
    name: str,
    kind: str,
    resource: dict[str, str],
    milliseconds: tuple[float, float],
    **more: object,
) -> Span:
    start, end = (BEGIN + int(value * 1e6) for value in milliseconds)
    facts: dict[str, object] = {
        **{"status": "UNSET", "status_message": "", "attributes": {}, "events": (), "links": ()},
        **{"trace_state": "", "flags": 1, "scope": "tests", **more},
    }
    ids = (TRACE, span_id, parent_id, name, kind, start, end)
    return Span(*ids, resource=resource, **facts)  # type: ignore[arg-type]


@pytest.fixture
def ping() -> dict[str, Span]:
    """One whole ping, by the names that the tests use; it takes 40 ms."""
    status = {"http.response.status_code": 200}
    queue = {"messaging.destination.name": "celery"}
    waits = {"celery.wait.scheduled": 0.0, "celery.wait.queue": 0.003, "celery.wait.prefetch": 0.0}
    task = "workers.tasks.ping"
    spans = {
        "root": span("a1", "", "ping", "INTERNAL", CLIENT, (0, 40)),
        "request": span("a2", "a1", "GET", "CLIENT", CLIENT, (1, 39), attributes=status),
        "server": span("b1", "a2", "GET /ping", "SERVER", WEB, (3, 37), attributes=status),
        "send": span("b2", "b1", f"send {task}", "PRODUCER", WEB, (5, 8), attributes=queue),
        "run": span(
            *("c1", "b2", f"process {task}", "CONSUMER", WORKER, (10, 30)),
            attributes={**queue, **waits, "celery.task.state": "SUCCESS"},
            links=(Link(TRACE, "b2", {}),),
        ),
        "store": span(
            *("c2", "c1", "SET", "CLIENT", WORKER, (12, 13)), attributes={"db.system.name": "redis"}
        ),
    }
    return spans


def text_of(renderable: RenderableType, width: int = 80, **options: object) -> str:
    console = Console(file=io.StringIO(), width=width, **options)  # type: ignore[arg-type]
    console.print(renderable)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def lines_of(spans: dict[str, Span], width: int = 80) -> list[str]:
    return text_of(render_tree(list(spans.values())), width).splitlines()


# Whether it is one trace


def test_a_whole_ping_is_one_trace(ping: dict[str, Span]) -> None:
    verdict = judge(list(ping.values()))
    assert verdict.ok
    assert (verdict.trace_id, verdict.spans, verdict.processes) == (TRACE, 6, 3)


def test_in_whatever_order_and_however_often_its_spans_come(ping: dict[str, Span]) -> None:
    spans = [*reversed(ping.values()), ping["run"], ping["root"]]
    verdict = judge(spans)
    assert verdict.ok
    assert verdict.spans == 6


def test_one_that_begins_at_the_web_side_crosses_two_processes(ping: dict[str, Span]) -> None:
    del ping["root"], ping["request"]
    ping["server"] = replace(ping["server"], parent_id="")
    verdict = judge(list(ping.values()))
    assert verdict.ok
    assert verdict.processes == 2


def test_no_spans_are_no_trace() -> None:
    assert judge([]).reasons == ("no span arrived",)


@pytest.mark.parametrize(
    ("missing", "reason"),
    [
        ("root", "its root did not arrive"),
        ("request", "the parent of GET /ping (shop) did not arrive"),
        ("server", "the parent of send workers.tasks.ping (shop) did not arrive"),
        ("send", "the parent of process workers.tasks.ping (shop-worker) did not arrive"),
        ("run", "the run of workers.tasks.ping did not arrive"),
    ],
)
def test_a_missing_span_is_named(ping: dict[str, Span], missing: str, reason: str) -> None:
    del ping[missing]
    assert reason in judge(list(ping.values())).reasons


@pytest.mark.parametrize(
    ("which", "change", "reason"),
    [
        ("server", {"parent_id": ""}, "2 roots instead of one: ping, GET /ping"),
        ("server", {"kind": "INTERNAL"}, "GET /ping is INTERNAL instead of SERVER"),
        ("server", {"parent_id": "a1"}, "GET /ping is under ping, which is no request"),
        ("root", {"kind": "PRODUCER"}, "ping is PRODUCER instead of INTERNAL or SERVER"),
        ("send", {"kind": "INTERNAL"}, "send workers.tasks.ping is INTERNAL instead of PRODUCER"),
        ("run", {"kind": "INTERNAL"}, "process workers.tasks.ping is INTERNAL instead of CONSUMER"),
        ("run", {"links": ()}, "process workers.tasks.ping does not link to its send"),
        ("run", {"parent_id": "b1"}, "process workers.tasks.ping is under GET /ping instead of"),
        ("request", {"kind": "SERVER"}, "GET is SERVER instead of CLIENT or INTERNAL"),
        ("store", {"resource": {}}, "1 span does not say which process made them"),
        ("store", {"trace_id": "f" * 32}, "2 traces instead of one"),
        ("store", {"kind": "SERVER"}, "SET is SERVER instead of CLIENT or INTERNAL"),
        ("server", {"parent_id": "c1"}, "some spans are their own ancestors"),
    ],
)
def test_what_is_wrong_is_said(
    ping: dict[str, Span], which: str, change: dict[str, object], reason: str
) -> None:
    ping[which] = replace(ping[which], **change)  # type: ignore[arg-type]
    reasons = judge(list(ping.values())).reasons
    assert any(said.startswith(reason) for said in reasons), reasons


def test_too_few_processes(ping: dict[str, Span]) -> None:
    for which in ("run", "store"):
        ping[which] = replace(ping[which], resource=WEB)
    assert judge(list(ping.values())).reasons == ("2 processes instead of 3 at least",)


def test_a_retry_is_complete_with_its_last_run(ping: dict[str, Span]) -> None:
    again = replace(ping["send"], span_id="c3", parent_id="c1", kind="CLIENT")
    spans = [*ping.values(), again]
    assert judge(spans).reasons == ("the run of workers.tasks.ping did not arrive",)
    assert judge([*spans, replace(ping["run"], span_id="d1")]).ok


def test_a_publish_that_failed_has_no_run(ping: dict[str, Span]) -> None:
    del ping["run"], ping["store"]
    ping["send"] = replace(ping["send"], status="ERROR")
    assert "nothing was sent to a worker" in judge(list(ping.values())).reasons


def test_spans_that_the_sdk_made_and_sent(receiver: Receiver) -> None:
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor

    def tracer(resource: dict[str, str]):
        provider = TracerProvider(resource=Resource(resource))
        provider.add_span_processor(
            SimpleSpanProcessor(OTLPSpanExporter(endpoint=receiver.endpoint))
        )
        providers.append(provider)
        return provider.get_tracer("tests")

    providers: list[TracerProvider] = []
    parent = None
    chain = []
    for name, kind, resource in (
        ("ping", SpanKind.INTERNAL, CLIENT),
        ("GET", SpanKind.CLIENT, CLIENT),
        ("GET /ping", SpanKind.SERVER, WEB),
        ("send work", SpanKind.PRODUCER, WEB),
        ("process work", SpanKind.CONSUMER, WORKER),
    ):
        context = set_span_in_context(parent) if parent else None
        is_run = parent is not None and kind is SpanKind.CONSUMER
        links = [SdkLink(parent.get_span_context())] if is_run and parent else []
        parent = tracer(resource).start_span(name, context, kind, links=links)
        chain.append(parent)
    for started in reversed(chain):
        started.end()
    spans = receiver.wait_for(lambda spans: len(spans) == 5)
    for provider in providers:
        provider.shutdown()
    verdict = judge(spans)
    assert verdict.reasons == ()
    assert (verdict.spans, verdict.processes) == (5, 3)
    assert list(by_trace(spans)) == [verdict.trace_id]


# The line of a ping


def test_the_line_of_a_ping(ping: dict[str, Span]) -> None:
    line = text_of(ping_line(7, list(ping.values())))
    assert line.split() == ["7", "200", "40.0", "ms", "3.0", "ms", TRACE, "6", "✓"]
    assert len(line.rstrip("\n")) <= 80
    header = ping_header().plain
    assert line.index(TRACE) == header.index("trace")


def test_the_line_of_a_broken_ping_says_why(ping: dict[str, Span]) -> None:
    del ping["run"], ping["store"]
    first, *reasons = text_of(ping_line(1, list(ping.values()))).splitlines()
    assert first.split() == ["1", "200", "40.0", "ms", "\N{EN DASH}", TRACE, "4", "✗"]
    assert [reason.strip() for reason in reasons] == [
        "the run of workers.tasks.ping did not arrive",
        "2 processes instead of 3 at least",
    ]


def test_the_line_of_nothing_at_all() -> None:
    assert "no span arrived" in text_of(ping_line(1, []))


# The tree


def test_the_tree_of_a_ping_at_80_columns(ping: dict[str, Span]) -> None:
    spans = list(ping.values())
    assert text_of(render_tree(spans), 80).splitlines() == [
        f"trace {TRACE}   6 spans, 3 processes",
        "                                                              0          40.0 ms",
        "shop-client  c1",
        "ping  INTERNAL                                       40.0 ms  ━━━━━━━━━━━━━━━━━━",
        "└─ GET  CLIENT 200                                   38.0 ms  ╺━━━━━━━━━━━━━━━━╸",
        "   │  shop  w1",
        "   └─ GET /ping  SERVER 200                          34.0 ms   ╺━━━━━━━━━━━━━━╸",
        "      └─ send workers.tasks.ping  PRODUCER → celery   3.0 ms    ━╸",
        "         │  ⧗ waited 3.0 ms in celery                            ┄┄",
        "         │  shop-worker  r1",
        "         └─ process workers.tasks.ping  CONSUMER     20.0 ms      ╺━━━━━━━━╸",
        "            │  ↗ links to send workers.tasks.ping above",
        "            └─ SET  CLIENT redis                      1.0 ms       ╺",
    ]


@pytest.mark.parametrize("width", [10, 40, 80, 120, 300])
def test_it_fits(ping: dict[str, Span], width: int) -> None:
    long = "x" * 400
    ping["store"] = replace(ping["store"], name=long, status="ERROR", status_message=long)
    lines = lines_of(ping, width)
    assert max(map(len, lines)) <= width
    assert width < 40 or any("⧗" in line for line in lines)


def test_each_wait_has_its_own_line(ping: dict[str, Span]) -> None:
    waits = {"celery.wait.scheduled": 2.5, "celery.wait.queue": 0.003, "celery.wait.prefetch": 0.12}
    ping["run"] = replace(ping["run"], attributes={**ping["run"].attributes, **waits})
    lines = [line.split("⧗ ")[1].split("  ")[0] for line in lines_of(ping) if "⧗" in line]
    assert lines == [
        "waited 2.50 s until it was due",
        "waited 3.0 ms in celery",
        "waited 120.0 ms for a free process",
    ]


@pytest.mark.parametrize(
    ("waits", "shown"),
    [
        ({}, []),
        ({"celery.wait.queue": 0.0}, ["waited 0.0 ms in celery"]),
        ({"celery.wait.queue": "long"}, []),
        (
            {"celery.wait.queue": 0.001, "celery.wait.skewed": True},
            ["waited 1.0 ms in celery, as far as clocks that disagree can tell"],
        ),
    ],
)
def test_waits_that_are_not_known_or_odd(
    ping: dict[str, Span], waits: dict[str, object], shown: list[str]
) -> None:
    queue = {"messaging.destination.name": "celery"}
    ping["run"] = replace(ping["run"], attributes={**queue, **waits})
    lines = [line for line in lines_of(ping, 120) if "⧗" in line]
    assert [line.split("⧗ ")[1].split("  ")[0] for line in lines] == shown


def test_an_error_says_its_type_and_message(ping: dict[str, Span]) -> None:
    exception = {"exception.type": "redis.ConnectionError", "exception.message": "refused"}
    ping["store"] = replace(
        ping["store"], status="ERROR", events=(Event("exception", BEGIN, exception),)
    )
    shown = text_of(render_tree(list(ping.values())), force_terminal=True, color_system="standard")
    line = next(line for line in shown.splitlines() if "✗" in line)
    assert "\x1b[31m✗ redis.ConnectionError: refused\x1b[0m" in line


def test_an_error_without_an_exception(ping: dict[str, Span]) -> None:
    ping["store"] = replace(ping["store"], status="ERROR", attributes={"error.type": "timeout"})
    assert any(line.endswith("✗ timeout") for line in lines_of(ping))


def test_links_name_what_they_link_to(ping: dict[str, Span]) -> None:
    links = [Link(TRACE, "a1", {}), Link("e" * 32, "f" * 16, {}), *[Link(TRACE, "a1", {})] * 100]
    ping["run"] = replace(ping["run"], links=(Link(TRACE, "b2", {}), *links))
    lines = [line.split("↗ ")[1].rstrip() for line in lines_of(ping, 120) if "↗" in line]
    assert lines[:3] == [
        "links to send workers.tasks.ping above",
        "links to ping",
        f"links to {'f' * 16} in trace {'e' * 32}",
    ]
    assert lines[-1] == "and to 98 more"


def test_a_parent_that_is_missing_is_said(ping: dict[str, Span]) -> None:
    del ping["send"]
    lines = lines_of(ping)
    assert "its parent b2 did not arrive" in lines
    assert any(line.startswith("process workers.tasks.ping") for line in lines)


def test_spans_in_a_circle_are_drawn_once(ping: dict[str, Span]) -> None:
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


def test_what_a_terminal_would_obey_is_not_printed(ping: dict[str, Span]) -> None:
    nasty = "a\x1b[2Jb\r\nc\x07"
    ping["store"] = replace(ping["store"], name=nasty, status="ERROR", status_message=nasty)
    ping["send"] = replace(ping["send"], name="[bold]send[/] x", kind="INTERNAL")
    shown = "\n".join(lines_of(ping))
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert "a [2Jb  c" in shown
    assert "[bold]send[/] x" in shown


def test_no_colour_where_none_is_wanted(
    ping: dict[str, Span], monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = render_tree(list(ping.values()))
    assert "\x1b" not in text_of(tree)
    assert "\x1b[1;36m" in text_of(tree, force_terminal=True, color_system="standard")
    monkeypatch.setenv("NO_COLOR", "1")
    assert "36m" not in text_of(tree, force_terminal=True, color_system="standard")


def test_nothing_is_an_empty_tree() -> None:
    assert text_of(render_tree([])) == ""
