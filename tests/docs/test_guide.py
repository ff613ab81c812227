"""The guide shows the code that is there, and what a real system made of it."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from telemetry.otlp.receiver import Receiver

from ..conftest import Broker
from ..processes import ROOT, Starter
from .blocks import WRITE, fill, source, steady
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

GUIDE = ROOT / "docs" / "guide.md"


@pytest.fixture(scope="module")
def seen() -> Iterator[dict[str, str]]:
    """What the tests of this module saw. `make pages` writes it into the guide."""
    seen: dict[str, str] = {}
    yield seen
    page = GUIDE.read_text()
    if WRITE and set(re.findall(r"<!-- run: (\S+) -->", page)) <= set(seen):
        GUIDE.write_text(fill(page, seen))


def check(seen: dict[str, str]) -> None:
    """Assert that the guide shows what was *seen*, where it must not be written."""
    page = GUIDE.read_text()
    for name, text in seen.items():
        block = re.search(rf"<!-- run: {name} -->\n```\w*\n(.*?)^```$", page, re.M | re.S)
        if not WRITE:
            assert block is not None
            assert steady(block[1]) == steady(text), f"{name} is stale: run `make pages`"


@pytest.fixture
def system(
    start: Starter, receiver: Receiver, tmp_path: Path, request: pytest.FixtureRequest
) -> System:
    return System(start, receiver, tmp_path, BREAKS.get(getattr(request, "param", "")))


def test_the_whole_way(system: System, broker: Broker, seen: dict[str, str]) -> None:
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
    ours = {
        "http": heard[0],
        "message": show_message(message),
        "tree": show_tree(spans),
        "request": show_span(request),
        "server": show_span(server),
        "send": show_span(send),
        "run": show_span(run),
        "store": show_span(spans[5]),
        "doctor": system.doctor(),
    }
    check(ours)
    seen |= ours


@pytest.mark.parametrize(("name", "system"), [(n, n) for n in BREAKS], indirect=["system"])
def test_a_break(name: str, system: System, seen: dict[str, str]) -> None:
    """What is left of a ping without the one line, and what the doctor says."""
    web = system.start_web()
    system.start_worker()
    system.ping(web)
    spans = system.spans(BREAKS[name].spans)
    known = {span.span_id for span in spans}
    tops = [span for span in spans if span.parent_id not in known]
    complete = len(tops) == 1 and len(spans) == WHOLE
    assert not complete
    ours = {
        f"break-{name}": show_break(BREAKS[name]),
        f"broken-{name}": show_tree(spans),
        f"doctor-{name}": system.doctor(),
    }
    check(ours)
    seen |= ours


def test_the_code_is_the_code_that_runs() -> None:
    page = GUIDE.read_text()
    if WRITE:
        stand = dict(re.findall(r"<!-- run: (\S+) -->\n```\w*\n(.*?)^```$", page, re.M | re.S))
        page = fill(page, stand)
        GUIDE.write_text(page)
    blocks = re.findall(r"<!-- code: (\S+) (\S+) -->\n```\w*\n(.*?)^```$", page, re.M | re.S)
    assert blocks
    for path, symbol, code in blocks:
        assert code == source(path, symbol), f"{symbol} is stale: run `make pages`"


def test_a_symbol_that_is_gone_is_named() -> None:
    with pytest.raises(LookupError, match=r"telemetry/flask\.py has no nothing"):
        fill("<!-- code: telemetry/flask.py nothing -->\n```python\n```\n", {})


def test_what_is_stale_is_replaced() -> None:
    page = "<!-- run: said -->\n```\nspan 0af7651916cd43dd, 3 of 4\n```\n"
    assert fill(page, {"said": "span b7ad6b7169203331, 1 of 9\n"}) == page
    assert "others" in fill(page, {"said": "others\n"})
