"""Pages and traces that do not exist: a browser shows a page, and a program gets JSON."""

from collections.abc import Iterator

import pytest
import requests
from playwright.sync_api import Browser, Page, expect

from ..conftest import Viewer
from ..exports import export
from ..spans import order

BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}


@pytest.fixture
def page(chromium: Browser, viewer: Viewer) -> Iterator[Page]:
    context = chromium.new_context(base_url=viewer.url)
    page = context.new_page()
    said: list[str] = []
    page.on("pageerror", lambda error: said.append(str(error)))
    yield page
    context.close()
    assert said == []


@pytest.mark.parametrize("path", ["/nonsense", "/trace", "/trace/a/b/c", "/queues/"])
def test_a_browser_sees_that_a_page_does_not_exist(page: Page, viewer: Viewer, path: str) -> None:
    answer = page.goto(path)
    assert answer is not None
    assert answer.status == 404
    expect(page.get_by_role("heading", level=1)).to_have_text("Page not found")
    expect(page.locator("main")).to_contain_text(f"{path} is not a page of the viewer")
    expect(page.locator("[aria-current=page]")).to_have_count(0)
    assert page.title() == "Page not found · queuehop"
    page.get_by_role("link", name="All traces").click()
    expect(page.get_by_role("heading", name="No traces yet")).to_be_visible()
    expect(page.locator("[aria-current=page]")).to_have_text("Traces")
    assert "error" in viewer.get(path, 404)


@pytest.mark.parametrize(
    ("trace_id", "reason"),
    [
        ("a" * 32, f"trace {'a' * 32} not found: it was deleted or has not arrived"),
        ("nonsense", "'nonsense' is not a trace id: it has 32 hexadecimal digits"),
        ("aaaaaaaa", "'aaaaaaaa' is not a trace id: it has 32 hexadecimal digits"),
        ("%3Cb%3Ex", "'<b>x' is not a trace id: it has 32 hexadecimal digits"),
    ],
)
def test_a_browser_sees_that_a_trace_does_not_exist(
    page: Page, viewer: Viewer, trace_id: str, reason: str
) -> None:
    page.goto(f"/trace/{trace_id}")
    expect(page.get_by_role("heading", level=1)).to_have_text("Trace not found")
    expect(page.locator("main")).to_contain_text(reason)
    assert viewer.get(f"/api/traces/{trace_id}/hops", 404) == {"error": reason}
    page.get_by_role("link", name="All traces").click()
    expect(page.get_by_role("heading", name="No traces yet")).to_be_visible()


def test_a_trace_that_arrives_later_is_shown(page: Page, viewer: Viewer) -> None:
    page.goto(f"/trace/{'a' * 32}")
    expect(page.get_by_role("heading", level=1)).to_have_text("Trace not found")
    expect(page.locator("#live.up")).to_be_visible()
    viewer.send(export(order("a" * 32)))
    expect(page.get_by_role("treegrid")).to_be_visible()


def test_the_api_answers_a_browser_in_json_too(viewer: Viewer) -> None:
    for path in ("/api/nonsense", "/api/traces/nonsense", "/v1/traces"):
        answer = requests.get(viewer.url + path, headers=BROWSER, timeout=30)
        assert answer.json()["error"]


def test_a_browser_reads_that_a_host_is_not_allowed(viewer: Viewer) -> None:
    wrong = {"Host": "shop.example", **BROWSER}
    answer = requests.get(viewer.url, headers=wrong, timeout=30)
    assert answer.status_code == 421
    assert answer.headers["Content-Type"].startswith("text/plain")
    assert answer.text.startswith("host 'shop.example' is not allowed")
