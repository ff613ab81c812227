"""What axe-core finds on each page, light and dark, on a desktop and a phone: nothing."""

from dataclasses import replace

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from ..conftest import Viewer
from ..exports import export, shown
from ..spans import order

DESKTOP, PHONE = {"width": 1440, "height": 900}, {"width": 390, "height": 844}

#: The smallest side of what one touches, in CSS pixels: WCAG 2.2, Target Size (Minimum).
TARGET = 24

FAILED, WAITING = "e" * 32, "f" * 32

#: Each page, and what is there once it is drawn.
PAGES = {
    "/": ".traces tbody tr",
    "/?q=nothing-like-it": "main",
    f"/trace/{FAILED}": ".row",
    f"/trace/{FAILED}/{shown('run')}": ".detail h2",
    f"/trace/{WAITING}": ".row.wait",
    "/trace/00000000000000000000000000000000": ".empty",
    "/queues": ".queues tbody tr",
    "/queue?queue=celery": ".charts svg",
    "/queue?queue=celery&task=charge": ".charts svg",
    "/queue?queue=nowhere": ".tiles",
    "/map": ".node",
}


def fill(viewer: Viewer) -> None:
    """Send what every state of the pages needs: a run, a failure, and messages that wait."""
    sent = [order("a" * 32), order(FAILED, error="OSError: gone"), order(WAITING, -600_000)[:2]]
    web, send, *_ = order("d" * 32, -900_000)
    elsewhere = {"server.address": "other", "messaging.system": "rabbitmq"}
    sent.append([web, replace(send, attributes={**send.attributes, **elsewhere})])
    for spans in sent:
        viewer.send(export(spans))
    viewer.settled(sum(map(len, sent)))


def findings(page: Page) -> list[str]:
    """Return what axe-core finds, a line each."""
    found = Axe().run(page).response["violations"]
    return [
        f"{violation['id']}: {node['html'][:160]} {node['failureSummary'][:200]}"
        for violation in found
        for node in violation["nodes"]
    ]


#: Links within a sentence or a cell of a table are exempt, as the guideline has it.
SMALL = """
target => [...document.querySelectorAll('button, .button, select, input, nav a, summary')]
  .filter(one => one.checkVisibility({ visibilityProperty: true, opacityProperty: true }))
  .filter(one => !(one.type === 'file'))
  .filter(one => { const { width, height } = one.getBoundingClientRect();
                   return Math.min(width, height) < target; })
  .map(one => one.outerHTML.slice(0, 120))
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_axe_finds_nothing(
    chromium: Browser, viewer: Viewer, size: dict[str, int], scheme: str
) -> None:
    fill(viewer)
    context = chromium.new_context(
        base_url=viewer.url,
        viewport=size,  # type: ignore[arg-type]
        color_scheme=scheme,  # type: ignore[arg-type]
    )
    page = context.new_page()
    found = {}
    for path, mark in PAGES.items():
        page.goto(path)
        expect(page.locator(mark).first).to_be_visible()
        found[path] = findings(page) + page.evaluate(SMALL, TARGET)
        # One heading of the first level, and none that is left out between two.
        levels = page.locator("h1, h2, h3, h4").evaluate_all(
            "all => all.filter(one => one.checkVisibility()).map(one => Number(one.tagName[1]))"
        )
        found[path] += [f"headings {levels}"] * (levels.count(1) != 1)
        if (wide := page.evaluate("document.documentElement.scrollWidth")) > size["width"]:
            found[path].append(f"{wide} pixels wide")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_be_visible()
    found["the keys"] = findings(page)
    context.close()
    assert {path: lines for path, lines in found.items() if lines} == {}


def test_with_forced_colours_nothing_vanishes(chromium: Browser, viewer: Viewer) -> None:
    fill(viewer)
    context = chromium.new_context(base_url=viewer.url, forced_colors="active")
    page = context.new_page()
    for path in ("/queues", "/queue?queue=celery", "/map"):
        page.goto(path)
        expect(page.locator(PAGES[path]).first).to_be_visible()
        # What is drawn has a colour that is not the page's.
        hidden = page.locator("svg path.line, svg path.edge, svg .node rect").evaluate_all(
            "all => all.filter(one => getComputedStyle(one).stroke ==="
            " getComputedStyle(document.body).backgroundColor).length"
        )
        assert hidden == 0
        assert findings(page) == []
    context.close()


def test_nothing_is_announced_without_cause(chromium: Browser, viewer: Viewer) -> None:
    """The count of spans changes every few seconds, and is no news to a screen reader."""
    fill(viewer)
    context = chromium.new_context(base_url=viewer.url)
    page = context.new_page()
    page.goto("/queues")
    expect(page.locator(".queues tbody tr").first).to_be_visible()
    page.evaluate(
        "window.announced = []; new MutationObserver(all => all.forEach(({ target }) => {"
        " const live = (target.closest ? target : target.parentElement)"
        ".closest('[aria-live], [role=status], [role=alert]');"
        " if (live) announced.push(live.textContent); }))"
        ".observe(document.body, { subtree: true, childList: true, characterData: true })"
    )
    before = page.locator("#live-text").text_content()
    viewer.send(export(order("b" * 32)))
    expect(page.locator("#live-text")).not_to_have_text(str(before))
    assert page.evaluate("announced") == []
    context.close()
