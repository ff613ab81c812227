"""One event stream for all tabs of a browser, and what pages do while the viewer is down."""

import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from ..conftest import StartViewer, Viewer
from ..exports import export
from ..spans import order


@pytest.fixture
def tabs(chromium: Browser, viewer: Viewer) -> Iterator[BrowserContext]:
    context = chromium.new_context(base_url=viewer.url)
    yield context
    context.close()


def hide(page: Page, state: str) -> None:
    """Hide or show *page*, as a browser does with its tabs."""
    page.evaluate(
        "state => { Object.defineProperty(document, 'visibilityState',"
        " { value: state, configurable: true });"
        " document.dispatchEvent(new Event('visibilitychange')); }",
        state,
    )


def streams(viewer: Viewer, count: int) -> None:
    """Wait until *count* streams are open."""
    viewer.wait_for(lambda: viewer.get("/api/stats")["streams"], lambda open_: open_ == count)


def row(page: Page, trace_id: str) -> None:
    expect(page.locator(f'a[href="/trace/{trace_id}"]')).to_be_visible()


def test_all_tabs_share_one_stream(tabs: BrowserContext, viewer: Viewer) -> None:
    # More than the six connections that a browser opens to one server.
    pages = [tabs.new_page() for _ in range(8)]
    for page in pages:
        page.goto("/")
        expect(page.locator("#live.up")).to_be_visible()
    streams(viewer, 1)
    viewer.send(export(order("a" * 32)))
    for page in pages:
        row(page, "a" * 32)

    # The stream moves on when its tab is closed, and when it is hidden.
    pages.pop(0).close()
    viewer.send(export(order("b" * 32)))
    for page in pages:
        row(page, "b" * 32)
    streams(viewer, 1)

    # Hidden tabs ask for nothing at all.
    asked: list[str] = []
    for page in pages:
        hide(page, "hidden")
        page.on("request", lambda request: asked.append(request.url))
    streams(viewer, 0)
    asked.clear()
    viewer.send(export(order("c" * 32)))
    viewer.settled(12)
    assert asked == []

    # A tab that becomes visible again shows what it missed.
    hide(pages[3], "visible")
    row(pages[3], "c" * 32)
    streams(viewer, 1)


def test_data_stays_while_the_viewer_is_down(chromium: Browser, start_viewer: StartViewer) -> None:
    first = start_viewer()
    first.send(export(order("a" * 32)))
    first.settled(4)
    context = chromium.new_context(base_url=first.url)
    marks = {
        "/": ".traces tbody tr",
        "/queues": ".queues tbody tr",
        "/map": ".node",
        f"/trace/{'a' * 32}": ".row",
    }
    pages = {path: context.new_page() for path in marks}
    for path, page in pages.items():
        page.goto(path)
        expect(page.locator("#live.up")).to_be_visible()
        expect(page.locator(marks[path]).first).to_be_visible()
    shown = {path: page.locator("main").inner_text() for path, page in pages.items()}
    first.process.stop()
    for path, page in pages.items():
        expect(page.locator(".offline")).to_have_text(
            re.compile(r"No connection to the viewer since")
        )
        assert page.locator("main").inner_text() == shown[path]
    trace = pages[f"/trace/{'a' * 32}"]
    trace.locator(".row").first.click()
    details = trace.get_by_label("Span details")
    expect(details).to_contain_text("The viewer does not answer")
    second = start_viewer(http=first.url.removeprefix("http://"))
    second.send(export(order("b" * 32)))
    for page in pages.values():
        expect(page.locator(".offline")).to_be_empty()
    row(pages["/"], "b" * 32)
    expect(details.get_by_role("heading", level=2)).to_be_visible()
    context.close()


def test_a_page_shows_that_no_spans_are_stored(
    chromium: Browser, start_viewer: StartViewer, tmp_path: Path
) -> None:
    viewer = start_viewer()
    context = chromium.new_context(base_url=viewer.url)
    page = context.new_page()
    page.goto("/queues")
    expect(page.locator("#live.up")).to_be_visible()
    # If another process locks the database, the viewer cannot write, as on a full disk.
    other = sqlite3.connect(tmp_path / "traces.db")
    other.execute("BEGIN IMMEDIATE")
    viewer.send(export(order()))
    expect(page.locator(".offline")).to_have_text(
        "The viewer cannot write to the database: database is locked. It stores no new spans."
    )
    other.close()
    expect(page.locator(".offline")).to_be_empty()
    context.close()


def test_after_503_it_tries_again(tabs: BrowserContext, viewer: Viewer) -> None:
    page = tabs.new_page()
    refused = []

    def refuse(route) -> None:  # type: ignore[no-untyped-def]
        refused.append(route.request.url)
        route.fulfill(status=503, json={"error": "too many"})

    page.route("**/api/events", refuse, times=2)
    page.goto("/")
    expect(page.locator("#live.up")).to_be_visible()
    assert len(refused) == 2
    viewer.send(export(order("a" * 32)))
    row(page, "a" * 32)
