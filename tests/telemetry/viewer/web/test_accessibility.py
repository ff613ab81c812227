"""axe-core and our own checks find no fault in any page, state and way to look at it."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from ..conftest import StartViewer, Viewer
from ..exports import export, shown
from ..logs import export_logs, log
from ..spans import order

DESKTOP, PHONE = {"width": 1440, "height": 900}, {"width": 390, "height": 844}

#: The windows, and the colors in which each page is checked there after it is drawn. At 200 % a
#: window has half as many CSS pixels each way.
LIGHT: dict[str, Any] = {"color_scheme": "light", "forced_colors": "none"}
DARK, FORCED = LIGHT | {"color_scheme": "dark"}, LIGHT | {"forced_colors": "active"}
WINDOWS: dict[str, tuple[dict[str, Any], dict[str, dict[str, Any]]]] = {
    "desktop": ({"viewport": DESKTOP}, {"light": LIGHT, "dark": DARK, "forced": FORCED}),
    "phone": ({"viewport": PHONE}, {"light": LIGHT, "dark": DARK}),
    "200 %": (
        {"viewport": {"width": 640, "height": 400}, "device_scale_factor": 2},
        {"large": LIGHT},
    ),
}

#: The smallest side of a control, in CSS pixels: WCAG 2.2, Target Size (Minimum).
TARGET = 24

FAILED, WAITING = "e" * 32, "f" * 32

#: Each page of an empty viewer, and an element that it has once it is drawn.
EMPTY = dict.fromkeys(("/", "/queues", "/map", "/logs", "/logs?all=1"), ".nothing")

#: Each page and state of a viewer with traces.
PAGES = {
    "/": ".traces tbody tr",
    "/?q=nothing-like-it": ".nothing",
    "/?from=2020-01-01T00:00:00Z&to=2100-01-01T00:00:00Z": ".end:not([hidden])",
    "/?q=wait%3Esoon": ".field-error:not(:empty)",
    f"/trace/{FAILED}": ".row",
    f"/trace/{FAILED}/{shown('run')}": ".detail h2",
    f"/trace/{WAITING}": ".row.wait",
    "/trace/00000000000000000000000000000000": ".nothing",
    "/nonsense": ".nothing",
    "/queues": ".queues tbody tr",
    "/queue?queue=celery": ".charts svg",
    "/queue?queue=celery&task=charge": ".charts svg",
    "/queue?queue=nowhere": ".nothing",
    "/map": ".node",
    "/logs": ".log-list li",
    "/logs?all=1&severity=17": ".log-list li",
    "/logs?q=nothing-like-it": ".nothing",
}


def fill(viewer: Viewer) -> None:
    """Send the spans for every state of the pages: a run, a failure, and waiting messages."""
    sent = [order("a" * 32), order(FAILED, error="OSError: gone"), order(WAITING, -600_000)[:2]]
    web, send, *_ = order("d" * 32, -900_000)
    elsewhere = {"server.address": "other", "messaging.system": "rabbitmq"}
    sent.append([web, replace(send, attributes={**send.attributes, **elsewhere})])
    logs = export_logs(
        [log("a worker starts"), log("gone", FAILED, "run", severity=17, level="ERROR", code=7)]
    )
    assert viewer.post(logs.SerializeToString(), "/v1/logs").status_code == 200
    for spans in sent:
        viewer.send(export(spans))
    viewer.settled(sum(map(len, sent)))


#: The options of axe-core. Dark pages differ from light ones in contrast alone; large pages have
#: the same contrast. Of the system's colors axe-core has no rule.
RULES: dict[str, dict[str, Any]] = {
    "light": {},
    "dark": {"runOnly": ["color-contrast"]},
    "large": {"rules": {"color-contrast": {"enabled": False}}},
}


def findings(page: Page, colors: str) -> list[str]:
    """Return what axe-core finds, a line each."""
    if colors not in RULES:
        return []
    if not page.evaluate("'axe' in window"):
        page.evaluate(Axe().axe_script)
    options = RULES[colors] | {"resultTypes": ["violations"]}
    found = page.evaluate("options => axe.run(options)", options)["violations"]
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


#: Elements that are drawn in the color of the page, and so are invisible.
UNSEEN = """
() => [...document.querySelectorAll('path.line, path.edge, .node rect, .color, .swatch')]
  .filter(one => one.checkVisibility({ visibilityProperty: true, opacityProperty: true }))
  .filter(one => {
    const page = getComputedStyle(document.body).backgroundColor;
    const { stroke, backgroundColor, backgroundImage, borderTopColor, borderTopWidth } =
      getComputedStyle(one);
    if (one instanceof SVGElement && !one.matches('.color')) return stroke === page;
    return backgroundColor === page && backgroundImage === 'none'
      && (borderTopWidth === '0px' || borderTopColor === page);
  })
  .map(one => `unseen: ${one.outerHTML.slice(0, 120)}`)
"""


def in_each(page: Page, window: str) -> Iterator[str]:
    """Show the page in each of the colors of *window*; yield their names."""
    for colors, media in WINDOWS[window][1].items():
        page.emulate_media(**media)
        yield colors


def look(page: Page, pages: dict[str, str], window: str) -> dict[str, list[str]]:
    """Return the faults of each of *pages* that has any."""
    found = {}
    width = WINDOWS[window][0]["viewport"]["width"]
    for path, mark in pages.items():
        page.goto(path)
        expect(page.locator(mark).first).to_be_visible()
        expect(page.locator(".loading")).to_have_count(0)
        found[path] = []
        for colors in in_each(page, window):
            lines = findings(page, colors) + page.evaluate(UNSEEN)
            found[path] += [f"{colors}: {line}" for line in lines]
        found[path] += page.evaluate(SMALL, TARGET)
        # One heading of the first level, and no gap between two levels.
        levels = page.locator("h1, h2, h3, h4").evaluate_all(
            "all => all.filter(one => one.checkVisibility()).map(one => Number(one.tagName[1]))"
        )
        left_out = any(after > before + 1 for before, after in pairwise([0, *levels]))
        found[path] += [f"headings {levels}"] * (levels.count(1) != 1 or left_out)
        if (wide := page.evaluate("document.documentElement.scrollWidth")) > width:
            found[path].append(f"{wide} pixels wide")
    return {path: lines for path, lines in found.items() if lines}


@pytest.fixture(params=WINDOWS)
def window(request: pytest.FixtureRequest) -> str:
    """The name of each window."""
    return str(request.param)


@pytest.fixture
def tab(chromium: Browser, viewer: Viewer, window: str) -> Iterator[Page]:
    """A page in the window."""
    context = chromium.new_context(base_url=viewer.url, **WINDOWS[window][0])
    yield context.new_page()
    context.close()


def test_nothing_is_found_on_any_page_without_traces(tab: Page, window: str) -> None:
    assert look(tab, EMPTY, window) == {}


@pytest.mark.parametrize("part", [0, 1])
def test_nothing_is_found_on_any_page(tab: Page, viewer: Viewer, window: str, part: int) -> None:
    fill(viewer)
    assert look(tab, dict(list(PAGES.items())[part::2]), window) == {}


def test_nothing_is_found_in_any_state(
    chromium: Browser, start_viewer: StartViewer, window: str
) -> None:
    viewer = start_viewer(db=":memory:")
    context = chromium.new_context(base_url=viewer.url, **WINDOWS[window][0])
    page = context.new_page()

    def all_findings() -> list[str]:
        return [line for colors in in_each(page, window) for line in findings(page, colors)]

    fill(viewer)
    page.goto("/")
    page.get_by_role("combobox", name="Search traces").press_sequentially("st")
    expect(page.get_by_role("option").first).to_be_visible()
    assert all_findings() == []
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_be_visible()
    assert all_findings() == []
    page.keyboard.press("Escape")
    viewer.process.stop()
    expect(page.locator(".offline")).to_contain_text("No connection")
    assert all_findings() == []
    context.close()


def test_nothing_is_announced_without_cause(chromium: Browser, viewer: Viewer) -> None:
    """The count of spans changes every few seconds, and a screen reader must not announce it."""
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
