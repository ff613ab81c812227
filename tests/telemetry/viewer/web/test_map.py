"""The map as a person sees it: in the order of the messages, and every label readable."""

import re
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations, pairwise
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from telemetry.otlp.decode import ReceivedSpan
from telemetry.viewer.map_layout import LABEL, lay_out

from ..conftest import Viewer
from ..exports import export
from ..spans import order, span

Edge = tuple[str, str]

#: The edges of README's demo, with the retry that a worker publishes.
DEMO: list[Edge] = [
    ("service:queuehop-client", "service:queuehop-web"),
    ("service:queuehop-web", "queue:celery"),
    ("queue:celery", "service:queuehop-worker"),
    ("service:queuehop-worker", "queue:celery"),
    ("service:queuehop-worker", "store:redis"),
    ("service:queuehop-worker", "store:sqlite"),
]


def thirty() -> list[Edge]:
    """Return a system of thirty services, with cycles and names of many lengths."""
    fronts = [f"service:storefront-{name}" for name in ("web", "mobile-api", "partner-gateway")]
    apis = [f"service:{name}-service" for name in (
        "accounts", "cart", "catalog", "checkout", "inventory", "payments-and-refunds",
        "pricing", "recommendations", "search", "shipping", "tax",
        "customer-notifications")]  # fmt: skip
    workers = [f"service:{name}-worker" for name in (
        "accounts", "billing", "catalogue-import", "email", "exports", "fraud-detection",
        "images", "inventory", "invoices", "payments", "reports", "search-index", "shipping",
        "webhooks")]  # fmt: skip
    queues = [f"queue:{name}" for name in (
        "celery", "billing", "email", "exports", "images.resize.high-priority", "index",
        "invoices", "payments", "reports", "webhooks")]  # fmt: skip
    stores = ["store:postgresql", "store:redis", "store:mongodb"]
    edges: list[Edge] = [("service:client", front) for front in fronts]
    for at, api in enumerate(apis):
        edges.append((fronts[at % 3], api))
        edges.append((api, queues[at % 10]))
        if at % 4 == 0:
            edges.append((api, apis[(at + 5) % 12]))
    for at, worker in enumerate(workers):
        edges.append((queues[at % 10], worker))
        edges.append((worker, stores[at % 3]))
        if at % 3 == 0:
            edges.append((worker, queues[at % 10]))  # a retry
        if at % 5 == 0:
            edges.append((worker, queues[(at + 3) % 10]))  # a chain
    return list(dict.fromkeys(edges))


def spans_of(edges: list[Edge]) -> list[ReceivedSpan]:
    """Return spans that make *edges*, of a moment ago."""
    found: list[ReceivedSpan] = []
    for at, (start, end) in enumerate(edges):
        (kind, name), (other, target) = (node.split(":") for node in (start, end))
        a, b = f"a{at}", f"b{at}"
        queued = {"messaging__system": "redis"}
        if other == "queue":
            queued |= {"messaging__destination__name": target, "celery__task__name": "t"}
            found.append(span(a, "", "PRODUCER", (0, 2), name, "send t", **queued))
        elif kind == "queue":
            # Its send is not traced, so the run adds no edge to the queue.
            queued |= {"messaging__destination__name": name, "celery__task__name": "t"}
            waited = {"celery__wait__queue": 0.25, "celery__task__state": "SUCCESS"}
            found.append(span(b, "", "CONSUMER", (9, 20), target, "process t", **queued, **waited))
        elif other == "store":
            found.append(span(b, "", "CLIENT", (9, 10), name, "GET", db__system__name=target))
        else:
            found.append(span(a, "", "CLIENT", (0, 9), name, "GET"))
            found.append(span(b, a, "SERVER", (1, 8), target, "GET /"))
    shift = time.time_ns() - 20 * 10**9 - found[0].start_ns
    return [
        replace(s, start_ns=s.start_ns + shift, end_ns=s.end_ns + shift, trace_id=f"{at + 1:032x}")
        for at, s in enumerate(found)
    ]


def one_trace_each(spans: list[ReceivedSpan]) -> list[ReceivedSpan]:
    """Put the two sides of a call into one trace."""
    by_id = {s.span_id: s for s in spans}
    return [
        replace(s, trace_id=by_id[s.parent_id].trace_id) if s.parent_id in by_id else s
        for s in spans
    ]


@pytest.fixture
def page(chromium: Browser, viewer: Viewer) -> Iterator[Page]:
    context = chromium.new_context(base_url=viewer.url, viewport={"width": 1440, "height": 900})
    page = context.new_page()
    yield page
    context.close()


def show(viewer: Viewer, page: Page, edges: list[Edge]) -> None:
    spans = one_trace_each(spans_of(edges))
    viewer.send(export(spans))
    viewer.settled(len(spans))
    page.goto("/map")
    expect(page.locator(".edge")).to_have_count(len(edges))


def boxes(page: Page, selector: str) -> list[dict[str, float]]:
    script = "all => all.map(one => one.getBoundingClientRect().toJSON())"
    found: list[dict[str, float]] = page.locator(selector).evaluate_all(script)
    return found


def overlap(a: dict[str, float], b: dict[str, float]) -> bool:
    return (
        a["left"] < b["right"] - 0.5
        and b["left"] < a["right"] - 0.5
        and a["top"] < b["bottom"] - 0.5
        and b["top"] < a["bottom"] - 0.5
    )


@pytest.mark.parametrize("width", [1440, 390])
@pytest.mark.parametrize("edges", [DEMO, thirty()], ids=["the demo", "thirty services"])
def test_no_label_overlaps_another(
    page: Page, viewer: Viewer, edges: list[Edge], width: int
) -> None:
    page.set_viewport_size({"width": width, "height": 844})
    show(viewer, page, edges)
    labels = boxes(page, ".map text")
    assert len(labels) > 2 * len({end for edge in edges for end in edge}) + 0.8 * len(edges)
    assert [(a, b) for a, b in combinations(labels, 2) if overlap(a, b)] == []
    nodes = boxes(page, ".node rect")
    assert [(a, b) for a, b in combinations(nodes, 2) if overlap(a, b)] == []
    for label in boxes(page, ".edge-label text"):
        assert not any(overlap(label, node) for node in nodes)
    # A name stays within its box, in whatever font.
    for node in page.locator(".node").all():
        outer = node.locator("rect").bounding_box()
        assert outer is not None
        for text in node.locator("text").all():
            inner = text.bounding_box()
            assert inner is not None
            assert outer["x"] <= inner["x"]
            assert inner["x"] + inner["width"] <= outer["x"] + outer["width"]
    # A phone scrolls the map, not the page.
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_demo_from_left_to_right_and_its_retry_back(page: Page, viewer: Viewer) -> None:
    show(viewer, page, DEMO)

    def left(name: str) -> float:
        box = page.locator(".node").filter(has_text=name).locator("rect").bounding_box()
        assert box is not None
        return box["x"]

    order = ["queuehop-client", "queuehop-web", "celery", "queuehop-worker", "redis"]
    assert sorted(order, key=left) == order
    assert left("redis") == left("sqlite")
    # It needs no scrolling in a window of usual width.
    page.set_viewport_size({"width": 1280, "height": 900})
    beyond = "one => one.scrollWidth - one.clientWidth"
    assert page.get_by_role("region", name="Map", exact=True).evaluate(beyond) == 0
    expect(page.locator(".edge.back")).to_have_count(1)


def test_nodes_and_edges_lead_on(page: Page, viewer: Viewer) -> None:
    show(viewer, page, DEMO)
    page.get_by_role("link", name="queuehop-worker to celery").click()
    asked = "service=queuehop-worker&queue=celery&broker=redis&since_s=3600&q="
    expect(page).to_have_url(re.compile(re.escape(f"{viewer.url}/?{asked}call")))
    expect(page.locator(".traces tbody tr")).to_have_count(1)
    page.go_back()
    node = page.get_by_role("link", name="queuehop-web, service")
    node.focus()
    page.keyboard.press("Enter")
    expect(page).to_have_url(f"{viewer.url}/?service=queuehop-web&since_s=3600")


def test_an_edge_leads_to_the_traces_that_have_it(page: Page, viewer: Viewer) -> None:
    """A service and a queue may be in a trace for other reasons."""
    web, send, run, _ = order("a" * 32)
    to_mail = {"messaging.destination.name": "mail", "messaging.message.id": "o"}
    by_worker = {"parent_id": "run", "resource": run.resource}
    mail = replace(send, span_id="mail", attributes=send.attributes | to_mail, **by_worker)
    first, second, *_ = order("b" * 32)
    direct = [first, replace(second, attributes=second.attributes | to_mail)]
    viewer.send(export([web, send, run, mail]), export(direct))
    viewer.settled(6)
    page.goto("/map")
    page.get_by_role("link", name="shop to mail").click()
    expect(page.locator(".traces tbody tr")).to_have_count(1)
    expect(page.locator('.traces tr[data-trace^="b"]')).to_be_visible()


def test_the_failures_of_an_edge_lead_to_their_traces(page: Page, viewer: Viewer) -> None:
    for letter, state in (("a", "SUCCESS"), ("b", "FAILURE"), ("c", "FAILURE")):
        viewer.send(export(order(letter * 32, state=state)))
    viewer.settled(12)
    page.goto("/map")
    edges = page.get_by_role("region", name="Map as a table")
    edges.get_by_role("link", name="2", exact=True).click()
    expect(page).to_have_url(re.compile("queue=celery.*status=failure"))
    expect(page.locator(".traces tbody tr")).to_have_count(2)


def graph(*edges: Edge, direction: str = "right") -> dict[str, Any]:
    names = dict.fromkeys(end for edge in edges for end in edge)
    nodes = [{"id": name, "label": name.partition(":")[2]} for name in names]
    found = {"nodes": nodes, "edges": [{"from": a, "to": b} for a, b in edges]}
    return lay_out(found, direction)


def test_a_worker_that_only_feeds_itself_is_right_of_its_queue() -> None:
    drawn = graph(("service:worker", "queue:celery"), ("queue:celery", "service:worker"))
    x = {node["id"]: node["x"] for node in drawn["nodes"]}
    assert x["queue:celery"] < x["service:worker"]
    assert [edge["back"] for edge in drawn["edges"]] == [True, False]
    back = drawn["edges"][0]["points"]
    assert back[0][0] > back[-1][0]


@pytest.mark.parametrize("direction", ["right", "down"])
@pytest.mark.parametrize("edges", [DEMO, thirty()], ids=["the demo", "thirty services"])
def test_a_label_is_on_its_own_edge_and_on_no_other(edges: list[Edge], direction: str) -> None:
    drawn = graph(*edges, direction=direction)["edges"]
    width, height = LABEL
    labeled = [edge for edge in drawn if edge["label"]]
    for edge in labeled:
        x, y = edge["label"]
        box = {
            **{"left": x - width / 2, "right": x + width / 2},
            **{"top": y - height / 2, "bottom": y + height / 2},
        }
        assert [other for other in drawn if crosses(other["points"], box)] == [edge]
    assert len(labeled) >= len(drawn) - len(drawn) // 6


def crosses(points: list[tuple[float, float]], box: dict[str, float]) -> bool:
    """Return whether a path of horizontal and vertical lines goes through *box*."""
    return any(
        overlap(
            box,
            {
                **{"left": min(x1, x2) - 1, "right": max(x1, x2) + 1},
                **{"top": min(y1, y2) - 1, "bottom": max(y1, y2) + 1},
            },
        )
        for (x1, y1), (x2, y2) in pairwise(points)
    )


def test_nothing_is_an_empty_map() -> None:
    assert lay_out({"nodes": [], "edges": []})["nodes"] == []


def test_a_name_that_is_too_long_keeps_both_ends() -> None:
    drawn = graph(("service:" + "a" * 80 + "-west-2", "queue:q"))
    lines = drawn["nodes"][0]["lines"]
    assert lines[0] == "a" * 20
    assert lines[1].endswith("…")
    assert lines[2].endswith("-west-2")


def test_names_break_where_their_words_end() -> None:
    drawn = graph(("service:customer-notifications-service", "queue:celery 127.0.0.1:17480"))
    assert [node["lines"] for node in drawn["nodes"]] == [
        ["customer-", "notifications-", "service"],
        ["celery", "127.0.0.1:17480"],
    ]


def test_a_worker_that_publishes_to_its_other_queues_is_right_of_them_all() -> None:
    shop = [("service:shop", "queue:orders"), ("queue:orders", "service:worker")]
    for queue in ("queue:mail", "queue:payments"):
        shop += [("service:worker", queue), (queue, "service:worker")]
    drawn = graph(*shop)
    x = {node["id"]: node["x"] for node in drawn["nodes"]}
    assert x["service:shop"] < x["queue:orders"]
    assert max(x.values()) == x["service:worker"]
    assert x["queue:orders"] == x["queue:mail"] == x["queue:payments"]
    assert [edge["from"] for edge in drawn["edges"] if edge["back"]] == 2 * ["service:worker"]
