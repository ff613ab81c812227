"""The guide shows today's code, and the spans and outputs of a real system."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from telemetry.otlp.receiver import Receiver

from ..conftest import Broker
from ..processes import ROOT, Starter
from .blocks import Page, fill
from .system import (
    BREAKS,
    WHOLE,
    System,
    listening_in,
    show_break,
    show_message,
    show_span,
    show_tree,
)

GUIDE = Page(ROOT / "docs" / "guide.md")


@pytest.fixture(scope="module", autouse=True)
def written() -> Iterator[None]:
    yield
    GUIDE.write()


@pytest.fixture
def system(
    start: Starter, receiver: Receiver, tmp_path: Path, request: pytest.FixtureRequest
) -> System:
    return System(start, receiver, tmp_path, BREAKS.get(getattr(request, "param", "")))


def test_the_whole_way(system: System, broker: Broker) -> None:
    web = system.start_web()
    with listening_in(web) as (between, heard):
        system.ping(between)
    with redis.Redis(port=broker.port) as client:
        (message,) = client.lrange("celery", 0, -1)
    system.start_worker()
    spans = system.spans(WHOLE)
    request, server, send, run = spans[1:5]
    assert f"traceparent: 00-{request.trace_id}-{request.span_id}-03" in heard[0]
    carried = json.loads(message)["headers"]["traceparent"]
    assert carried == f"00-{send.trace_id}-{send.span_id}-03"
    shown = {
        "http": heard[0],
        "message": show_message(message),
        "tree": show_tree(spans),
        "request": show_span(request),
        "server": show_span(server),
        "send": show_span(send),
        "run": show_span(run),
        "store": show_span(spans[6]),
        "doctor": system.doctor(),
    }
    for block, text in shown.items():
        GUIDE.show(block, text)


@pytest.mark.parametrize(("name", "system"), [(n, n) for n in BREAKS], indirect=["system"])
def test_a_break(name: str, system: System) -> None:
    """Without one line, the guide shows the rest of the trace and the doctor's report."""
    web = system.start_web()
    system.start_worker()
    system.ping(web)
    spans = system.spans(BREAKS[name].spans)
    known = {span.span_id for span in spans}
    tops = [span for span in spans if span.parent_id not in known]
    complete = len(tops) == 1 and len(spans) == WHOLE
    assert not complete
    shown = {
        f"break-{name}": show_break(BREAKS[name]),
        f"broken-{name}": show_tree([span for span in spans if span.scope != "workers.stores"]),
        f"doctor-{name}": system.doctor(),
    }
    for block, text in shown.items():
        GUIDE.show(block, text)


def test_the_code_is_the_code_that_runs() -> None:
    GUIDE.check_code()


def test_a_symbol_that_is_gone_is_named() -> None:
    with pytest.raises(LookupError, match=r"telemetry/flask\.py has no nothing"):
        fill("<!-- code: telemetry/flask.py nothing -->\n```python\n```\n", {})


def test_what_is_stale_is_replaced() -> None:
    page = "<!-- run: said -->\n```\nspan 0af7651916cd43dd, 3 of 4\n```\n"
    assert fill(page, {"said": "span b7ad6b7169203331, 1 of 9\n"}) == page
    assert "others" in fill(page, {"said": "others\n"})
