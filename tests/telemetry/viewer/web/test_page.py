"""The page as a person sees it: a real browser, the real viewer, spans over real OTLP."""

import json
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from playwright.sync_api import expect

from telemetry.otlp.decode import Link

from ....conftest import start_web, start_worker
from ....processes import Starter
from ..conftest import StartViewer, Viewer
from ..exports import export, shown
from ..spans import TRACE, span
from .pages import WEB, message, now, show

HOSTILE = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"


def test_a_ping_is_told_first_and_drawn_second(  # type: ignore[no-untyped-def]
    page, viewer: Viewer, start: Starter
) -> None:
    start.env["OTEL_EXPORTER_OTLP_ENDPOINT"] = viewer.grpc
    start_worker(start)
    web = start_web(start)
    page.goto("/")
    expect(page.get_by_text("No traces yet")).to_be_visible()
    assert start("app.client", "--url", f"{web}/ping", "--count", "1").wait() == 0

    page.get_by_role("link", name="ping").click()
    heading = page.get_by_role("heading", level=1)
    expect(heading).to_have_text(
        re.compile(r"^\d+\sms: \d+ client, \d+ web, (\d+ waiting in celery, )?.*\d+ worker(, .*)?$")
    )
    expect(page.get_by_role("row").filter(has_text="process workers.tasks.ping")).to_be_visible()
    waits = page.locator(".row.wait")
    expect(waits).to_have_count(1)
    expect(waits).to_contain_text(re.compile(r"waited .* in celery"))
    expect(waits.locator(".bar.wait i.queue")).to_have_count(1)
    expect(page.locator(".on-path").nth(2)).to_be_attached()


def test_three_waits_are_told_apart(page, viewer: Viewer) -> None:  # type: ignore[no-untyped-def]
    waits = {
        "celery__wait__scheduled": 0.1,
        "celery__wait__queue": 0.2,
        "celery__wait__prefetch": 0.05,
    }
    show(viewer, page, [WEB, *message("1", 5, (357, 380), **waits)])
    bar = page.locator(".bar.wait")
    parts = bar.locator("i")
    expect(parts).to_have_count(3)
    widths = [part.bounding_box()["width"] for part in parts.all()]
    assert widths[1] == pytest.approx(2 * widths[0], rel=0.1)
    assert widths[0] == pytest.approx(2 * widths[2], rel=0.1)
    label = page.locator(".row.wait .label")
    expect(label).to_have_text(
        "waited 250 ms in celery (prefetched 50 ms, scheduled 100 ms before)"
    )


def test_retries_are_attempts_under_one_send(page, viewer: Viewer) -> None:  # type: ignore[no-untyped-def]
    first = message("1", 5, (10, 15), celery__task__state="RETRY")
    second = replace(first[1], span_id="r2", start_ns=first[1].start_ns + 10**8)
    second = replace(
        second,
        end_ns=second.start_ns + 10**7,
        attributes={**second.attributes, "celery.task.state": "SUCCESS", "celery.task.retries": 1},
        links=(*second.links, Link(TRACE, "r1", {})),
    )
    show(viewer, page, [WEB, *first, second])
    runs = page.locator(".row.span").filter(has_text="process tasks.add")
    expect(runs.nth(0)).to_contain_text("attempt 1")
    expect(runs.nth(1)).to_contain_text("attempt 2")
    expect(page.get_by_text("RETRY", exact=True)).to_be_visible()


def test_a_chord_is_joined_by_arrows(page, viewer: Viewer) -> None:  # type: ignore[no-untyped-def]
    headers = [message(str(n), 5 + n, (10 + n, 15 + n)) for n in range(3)]
    body = message("b", 20, (25, 30))
    body[0] = replace(body[0], parent_id="r2")
    body[1] = replace(body[1], links=tuple(Link(TRACE, s, {}) for s in ("sb", "r0", "r1", "r2")))
    show(viewer, page, [WEB, *(span for header in headers for span in header), *body])
    expect(page.locator(".arrow.chord")).to_have_count(3)
    # Each ends where the body's bar begins.
    tips = page.locator(".tip.chord")
    bar = page.locator(".row.span").filter(has_text="process tasks.add").last.locator(".bar")
    expect(bar).to_be_visible()
    for n in range(3):
        tip = tips.nth(n).bounding_box()
        assert abs(tip["x"] + tip["width"] - bar.bounding_box()["x"]) < 2


def test_what_waits_is_live_until_it_runs(page, viewer: Viewer) -> None:  # type: ignore[no-untyped-def]
    spans = now([WEB, *message("1", 5, (40, 50))])
    viewer.send(export(spans[:2]))
    viewer.settled(2)
    page.goto(f"/trace/{TRACE}")
    badge = page.locator(".row.wait .badge.waiting")
    expect(badge).to_have_text("Waiting")
    row = page.locator(".row.wait").element_handle()
    label = page.locator(".row.wait .label")
    expect(label).to_contain_text(re.compile(r"waiting .* in celery"))
    before = label.text_content()
    expect(label).not_to_have_text(before)
    assert row.evaluate("row => row.isConnected")  # it grows, and is not built again
    viewer.send(export(spans[2:]))
    expect(badge).to_have_count(0)
    expect(page.get_by_role("row").filter(has_text="process tasks.add")).to_be_visible()


@pytest.mark.parametrize("state", ["EXPIRED", "REVOKED"])
def test_what_never_ran_is_marked(page, viewer: Viewer, state: str) -> None:  # type: ignore[no-untyped-def]
    show(viewer, page, [WEB, *message("1", 5, (40, 40), celery__task__state=state)])
    expect(page.locator(".row").get_by_text(state, exact=True)).to_be_visible()


def test_a_parent_that_did_not_come_is_marked_with_the_reason(page, viewer: Viewer) -> None:  # type: ignore[no-untyped-def]
    show(viewer, page, message("1", 5, (40, 50)))
    expect(page.get_by_text("parent missing").first).to_be_visible()
    page.get_by_role("row").filter(has_text="send tasks.add").click()
    reason = page.get_by_label("Span details").get_by_text("Parent missing:")
    expect(reason).to_contain_text("The parent")


def test_clocks_that_disagree_are_shown(page, viewer: Viewer) -> None:  # type: ignore[no-untyped-def]
    show(viewer, page, [WEB, *message("1", 5, (1, 4), celery__wait__skewed=True)])
    expect(page.get_by_text("clocks").first).to_be_visible()


def test_nothing_in_a_span_becomes_markup(page, viewer: Viewer) -> None:  # type: ignore[no-untyped-def]
    hostile = span(
        "evil", "web", "INTERNAL", (1, 9), name=HOSTILE, error=f"X: {HOSTILE}", **{HOSTILE: HOSTILE}
    )
    show(viewer, page, [WEB, replace(hostile, resource={"service.name": HOSTILE})])
    page.get_by_role("row").filter(has_text="onerror").click()
    expect(page.get_by_label("Span details").get_by_text(HOSTILE).first).to_be_visible()
    page.goto("/")
    expect(page.get_by_role("link", name="GET /ping")).to_be_visible()
    assert "owned" not in page.title()
    assert page.locator("img").count() == 0


def test_ten_thousand_spans_are_few_elements(page, viewer: Viewer) -> None:  # type: ignore[no-untyped-def]
    many = [
        span(f"n{number}", "web", "INTERNAL", (1 + number / 1000, 2 + number / 1000))
        for number in range(9_999)
    ]
    show(viewer, page, [WEB, *many])
    grid = page.get_by_role("treegrid")
    expect(grid).to_have_attribute("aria-rowcount", "10000")
    assert page.locator(".row").count() < 100
    grid.press("End")
    expect(page.get_by_role("row").filter(has_text="n9998")).to_be_visible()
    assert page.locator(".row").count() < 100


def test_all_of_it_by_keys(page, viewer: Viewer) -> None:  # type: ignore[no-untyped-def]
    spans = now([WEB, *message("1", 5, (40, 50))])
    viewer.send(export(spans))
    viewer.settled(3)
    page.goto("/")
    expect(page.get_by_role("link", name="GET /ping")).to_be_visible()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    grid = page.get_by_role("treegrid")
    expect(grid).to_be_focused()
    page.keyboard.press("ArrowDown")
    expect(page.locator('.row[aria-selected="true"]')).to_contain_text("send tasks.add")
    page.keyboard.press("ArrowLeft")
    expect(grid).to_have_attribute("aria-rowcount", "2")
    page.keyboard.press("ArrowRight")
    expect(grid).to_have_attribute("aria-rowcount", "4")
    page.keyboard.press("Enter")
    expect(page.get_by_label("Span details").get_by_role("heading", level=2)).to_have_text(
        "send tasks.add"
    )
    page.keyboard.press("c")
    expect(page.get_by_text("Copied the trace id")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == TRACE
    page.keyboard.press("g")
    page.keyboard.press("q")
    expect(page.get_by_role("heading", level=1)).to_have_text("Queues")
    page.keyboard.press("g")
    page.keyboard.press("m")
    expect(page.get_by_role("heading", level=1)).to_have_text("Map")
    expect(page.locator(".node.queue")).to_contain_text("celery")
    page.keyboard.press("/")
    field = page.get_by_role("combobox", name="Search traces")
    expect(field).to_be_focused()
    page.keyboard.type("gt/")
    expect(field).to_have_value("gt/")


def test_a_span_has_an_address(page, viewer: Viewer) -> None:  # type: ignore[no-untyped-def]
    viewer.send(export(now([WEB, *message("1", 5, (40, 50), user__id=7)])))
    viewer.settled(3)
    page.goto(f"/trace/{TRACE}/{shown('r1')}")
    side = page.get_by_label("Span details")
    expect(side.get_by_role("heading", level=2)).to_have_text("process tasks.add")
    expect(side.get_by_role("row", name="user.id 7")).to_be_visible()
    side.get_by_role("button", name="Copy traceparent").click()
    expect(page.get_by_text("Copied the traceparent")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == f"00-{TRACE}-{shown('r1')}-01"
    side.get_by_role("button", name="Close").click()
    assert page.url.endswith(f"/trace/{TRACE}")


def test_what_is_downloaded_can_be_opened_elsewhere(  # type: ignore[no-untyped-def]
    start_viewer: StartViewer, page, viewer: Viewer, tmp_path: Path
) -> None:
    # The page is closed before the viewer that it ends at.
    show(viewer, page, [WEB, *message("1", 5, (40, 50))])
    with page.expect_download() as download:
        page.get_by_role("link", name="Download").click()
    file = tmp_path / "trace.json"
    download.value.save_as(file)
    assert json.loads(file.read_text())["resourceSpans"]
    other = start_viewer(db=str(tmp_path / "other.db"))
    page.goto(other.url)
    page.get_by_label("Open a file").set_input_files(str(file))
    expect(page.get_by_role("row").filter(has_text="process tasks.add")).to_be_visible()
    other.settled(3)


def test_light_and_dark(page, viewer: Viewer) -> None:  # type: ignore[no-untyped-def]
    def background() -> str:
        return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))

    page.emulate_media(color_scheme="dark")
    page.goto("/")
    dark = background()
    page.get_by_role("button", name="Change to the light theme").click()
    light = background()
    assert dark != light
    page.reload()
    assert background() == light


def test_a_printed_page_is_light_and_has_its_bars(page, viewer: Viewer) -> None:  # type: ignore[no-untyped-def]
    show(viewer, page, [WEB, *message("1", 5, (40, 50))])
    page.get_by_role("button", name="Change to the dark theme").click()
    page.emulate_media(media="print")
    bar = page.locator(".row .bar").first
    style = bar.evaluate(
        "it => [getComputedStyle(it).colorScheme, getComputedStyle(it).printColorAdjust]"
    )
    assert style == ["light", "exact"]
    expect(page.get_by_role("navigation", name="Pages")).to_be_hidden()


def test_at_twice_the_size_nothing_is_cut_off(page, viewer: Viewer) -> None:  # type: ignore[no-untyped-def]
    show(viewer, page, [WEB, *message("1", 5, (40, 50))])
    page.set_viewport_size({"width": 640, "height": 400})
    for path in ("/", f"/trace/{TRACE}", "/queues", "/map"):
        page.goto(path)
        expect(page.locator("main a").first).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= 640


def test_on_a_phone_labels_keep_clear_of_each_other(page, viewer: Viewer) -> None:  # type: ignore[no-untyped-def]
    page.set_viewport_size({"width": 390, "height": 844})
    show(viewer, page, [WEB, *message("1", 5, (400, 412))])
    page.goto(f"/trace/{TRACE}")
    labels = page.locator(".axis span")
    labels.first.wait_for()
    boxes = labels.evaluate_all("all => all.map(one => one.getBoundingClientRect().toJSON())")
    assert len(boxes) > 1
    for left, right in pairwise(boxes):
        assert left["x"] + left["width"] <= right["x"]
    # The details are below the rows.
    page.locator(".row").last.click()
    expect(page.get_by_role("heading", name="process tasks.add")).to_be_in_viewport()
    page.goto("/")
    # A row has its name and status, a sentence of at most two lines, then when and how long.
    row = page.locator(".traces tbody tr").first
    name, status = row.locator("th a"), row.locator(".badge")
    first = [it.bounding_box() for it in (name, status)]
    second = [row.locator("td").nth(at).bounding_box() for at in (0, 1, 2)]
    assert all(box["x"] >= 0 and box["x"] + box["width"] <= 390 for box in first + second)
    assert max(box["y"] for box in first) < min(box["y"] for box in second)
    assert row.bounding_box()["height"] < 110
