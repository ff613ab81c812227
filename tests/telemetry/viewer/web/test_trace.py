"""One trace: search, zoom, folded rows, and links to other traces."""

import re
from dataclasses import replace

import pytest
from playwright.sync_api import Locator, Page, expect

from telemetry.otlp.decode import Event

from ..conftest import Viewer
from ..exports import export, shown
from ..spans import TRACE, order, span
from .pages import WEB, message, now, show


def test_an_open_panel_follows_the_row(page: Page, viewer: Viewer) -> None:
    show(viewer, page, [WEB, *message("1", 5, (40, 50))])
    title = page.get_by_label("Span details").get_by_role("heading", level=2)
    grid = page.get_by_role("treegrid")
    grid.press("Enter")
    expect(title).to_have_text("GET /ping")
    grid.press("ArrowDown")
    expect(title).to_have_text("send tasks.add")
    grid.press("End")
    expect(title).to_have_text("process tasks.add")
    expect(grid).to_be_focused()


def test_spans_are_found_where_they_are_folded_and_far_away(page: Page, viewer: Viewer) -> None:
    many = [span(f"n{number}", "web", "INTERNAL", (1, 2)) for number in range(300)]
    deep = span("deep", "n250", "CLIENT", (1, 2), name="SELECT needle", error="OSError: gone")
    show(viewer, page, [WEB, *many, replace(deep, status="ERROR")])
    page.keyboard.press("*")
    page.keyboard.press("/")
    field = page.get_by_role("searchbox", name="Search spans")
    expect(field).to_be_focused()
    field.fill("NEEDLE")
    active = page.locator('.row[aria-selected="true"]')
    expect(active).to_contain_text("SELECT needle")
    expect(active).to_be_in_viewport()
    expect(page.get_by_text("1 of 1", exact=True)).to_be_visible()
    field.fill("n1")
    field.press("Enter")
    expect(page.get_by_text(re.compile(r"^\d+ of 111$"))).to_be_visible()
    tally = page.locator(".tally")
    before = tally.text_content()
    page.get_by_role("button", name="Next match").click()
    expect(tally).not_to_have_text(before or "")
    page.get_by_role("button", name="Previous match").click()
    expect(tally).to_have_text(before or "")
    field.fill("nowhere")
    expect(page.get_by_text("No spans match")).to_be_visible()
    # The first error is above, and links to its span.
    page.get_by_role("link", name="SELECT needle (shop)").click()
    panel = page.get_by_label("Span details")
    expect(panel.get_by_role("heading", level=3).first).to_contain_text("OSError")


def width(bar: Locator) -> float:
    box = bar.bounding_box()
    assert box is not None
    return box["width"]


def test_a_part_of_the_trace_fills_the_page(page: Page, viewer: Viewer) -> None:
    show(viewer, page, [WEB, *message("1", 5, (200, 210))])
    bar = page.locator(".row.span .bar").first
    whole = width(bar)

    def expect_width(wanted: float) -> None:
        viewer.wait_for(lambda: width(bar), lambda found: found == pytest.approx(wanted, rel=0.1))

    def expect_saved(is_zoomed: bool) -> None:
        zoom = "Boolean(history.state?.waterfall?.zoom)"
        viewer.wait_for(lambda: page.evaluate(zoom), lambda found: found is is_zoomed)

    page.get_by_role("button", name="Zoom in").click()
    expect(page.get_by_role("button", name="Reset zoom")).to_be_enabled()
    expect_width(2 * whole)
    expect_saved(True)
    page.get_by_role("button", name="Reset zoom").click()
    expect_width(whole)
    expect_saved(False)
    strip = page.locator(".minimap").bounding_box()
    assert strip is not None
    middle = strip["y"] + strip["height"] / 2
    page.mouse.move(strip["x"] + 1, middle)
    page.mouse.down()
    page.mouse.move(strip["x"] + strip["width"] / 4, middle, steps=3)
    page.mouse.up()
    expect_width(4 * whole)
    expect_saved(True)
    page.reload()
    expect(bar).to_be_visible()
    expect_width(4 * whole)


def test_many_attempts_fold_into_one_row(page: Page, viewer: Viewer) -> None:
    send, first = message("1", 5, (10, 15), celery__task__state="RETRY")
    runs = [
        replace(
            first,
            span_id=f"r{at}",
            start_ns=first.start_ns + at * 10**7,
            end_ns=first.end_ns + at * 10**7,
        )
        for at in range(5)
    ]
    show(viewer, page, [WEB, send, *runs])
    group = page.get_by_role("row").filter(has_text="4 earlier attempts")
    expect(group).to_have_attribute("aria-expanded", "false")
    attempt = page.locator(".row.span").get_by_text("attempt 1", exact=True)
    expect(attempt).to_have_count(0)
    group.locator(".fold").click()
    expect(attempt).to_be_visible()


def test_a_send_links_to_the_run_in_another_trace_and_back(page: Page, viewer: Viewer) -> None:
    send, run = message("1", 5, (2107, 2120))
    viewer.send(export(now([WEB, send, replace(run, trace_id="e" * 32, parent_id="", flags=3)])))
    viewer.settled(3)
    page.goto(f"/trace/{TRACE}")
    linked = page.get_by_label("Linked traces")
    expect(linked).to_have_text("Picked up by → process tasks.add (shop-worker), 2.10 s later")
    expect(page.locator(".row.wait .label")).to_have_text("waited 2.10 s in celery (by the clocks)")
    linked.get_by_role("link").click()
    expect(page).to_have_url(re.compile(f"/trace/{'e' * 32}/{shown('r1')}"))
    expect(page.get_by_label("Linked traces")).to_contain_text("Sent by ← send tasks.add (shop)")
    page.get_by_role("treegrid").press("p")
    expect(page.get_by_text("Copied the traceparent")).to_be_visible()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == f"00-{'e' * 32}-{shown('r1')}-03"
    panel = page.get_by_label("Span details")
    panel.get_by_role("link", name="send tasks.add (shop)").click()
    expect(panel.get_by_role("heading", level=2)).to_have_text("send tasks.add")
    expect(panel.get_by_role("link", name="process tasks.add (shop-worker)")).to_be_visible()


def test_numbers_and_colors_are_the_same_all_over_the_page(page: Page, viewer: Viewer) -> None:
    show(viewer, page, [WEB, *message("1", 5, (391, 412))])
    expect(page.get_by_role("heading", level=1)).to_have_text(
        "412 ms: 7 web, 384 waiting in celery, 21 worker"
    )
    legend = page.locator(".legend")
    for text in ("shop (web) 7 ms", "waiting in celery 384 ms", "shop-worker (worker) 21 ms"):
        expect(legend.get_by_text(text, exact=True)).to_be_visible()
    color = "element => getComputedStyle(element).backgroundColor"
    run = page.locator(".row.span").filter(has_text="process tasks.add")
    swatch = legend.locator("li").filter(has_text="shop-worker").locator("i")
    piece = page.locator(".path .part").last
    assert run.locator(".bar").evaluate(color) == swatch.evaluate(color) == piece.evaluate(color)


def test_the_client_is_not_the_web_side(page: Page, viewer: Viewer) -> None:
    client = span("get", "", "CLIENT", (0, 30), "shop-client", "GET")
    show(viewer, page, [client, replace(WEB, parent_id="get")])
    expect(page.get_by_role("heading", level=1)).to_have_text("30 ms: 10 client, 20 web")
    legend = page.locator(".legend")
    expect(legend.get_by_text("shop-client (client) 10 ms", exact=True)).to_be_visible()
    expect(legend.get_by_text("shop (web) 20 ms", exact=True)).to_be_visible()


def test_more_services_than_colors_have_patterns(page: Page, viewer: Viewer) -> None:
    spans = [WEB] + [
        span(f"c{at}", "web", "INTERNAL", (at, at + 1), f"service-{at}", "work") for at in range(14)
    ]
    show(viewer, page, spans)
    swatches = page.locator(".legend .swatch.color")
    expect(swatches).to_have_count(15)
    looks = swatches.evaluate_all(
        "all => all.map(one => getComputedStyle(one)).map(style => style.backgroundColor"
        " + style.backgroundImage + style.borderTopWidth)"
    )
    assert len(set(looks)) == 15


def test_the_search_finds_attributes_and_what_is_folded(page: Page, viewer: Viewer) -> None:
    work = span("work", "web", "INTERNAL", (1, 4), name="work", order__id="order-77")
    show(viewer, page, [WEB, replace(work, events=(Event("cut", work.start_ns, {"why": "Full"}),))])
    page.get_by_role("treegrid").press("ArrowLeft")
    expect(page.locator(".row")).to_have_count(1)
    field = page.get_by_role("searchbox", name="Search spans")
    field.fill("order.id=ORDER-7")
    expect(page.locator(".tally")).to_have_text("1 of 1")
    expect(page.locator(".row.match.active .label")).to_have_text("work")
    field.fill("why=full")
    expect(page.locator(".tally")).to_have_text("1 of 1")
    field.fill("order.id=8")
    expect(page.locator(".tally")).to_have_text("No spans match")


#: Returns the seconds in the sentence and in the row of a wait, several times.
SAMPLE = r"""
async () => {
  const seconds = text => {
    const found = [...text.matchAll(/([\d.]+)\s(min|s)\b/g)];
    return found.reduce((sum, [, n, unit]) => sum + n * (unit === 'min' ? 60 : 1), 0);
  };
  const samples = [];
  for (let at = 0; at < 25; at++) {
    samples.push([seconds(document.querySelector('h1').textContent.split(':')[0]),
                  seconds(document.querySelector('.row.wait .label').textContent)]);
    await new Promise(resolve => setTimeout(resolve, 100));
  }
  return samples;
}
"""


def test_a_wait_that_goes_on_grows_in_place_and_agrees_with_the_sentence(
    page: Page, viewer: Viewer
) -> None:
    show(viewer, page, [WEB, *message("1", 5, None)])
    row = page.locator(".row.wait")
    row.evaluate("row => { row.mark = 'mine'; }")
    expect(row.locator(".label")).to_contain_text(re.compile(r"waiting [1-9]"))
    samples = page.evaluate(SAMPLE)
    assert len({there for there, _ in samples}) > 1
    assert max(abs(there - here) for there, here in samples) < 0.2
    assert row.evaluate("row => row.mark") == "mine"


#: Holds back what follows the first line of a trace's rows until the page calls ``release()``.
HOLD = """
const released = new Promise((resolve) => { window.release = resolve; });
const ask = window.fetch;
window.fetch = async (path, options) => {
  const answer = await ask(path, options);
  if (!path.endsWith("/hops")) return answer;
  const text = await answer.text();
  const end = text.indexOf("\\n") + 2;
  const body = new ReadableStream({
    async start(lines) {
      const encoder = new TextEncoder();
      lines.enqueue(encoder.encode(text.slice(0, end)));
      await released;
      lines.enqueue(encoder.encode(text.slice(end)));
      lines.close();
    },
  });
  return new Response(body);
};
"""


def test_the_first_rows_of_a_large_trace_are_there_before_the_others(
    page: Page, viewer: Viewer
) -> None:
    many = [span(f"n{number}", "web", "INTERNAL", (1, 2)) for number in range(600)]
    page.add_init_script(HOLD)
    show(viewer, page, [WEB, *many])
    grid = page.get_by_role("treegrid")
    expect(grid).to_have_attribute("aria-rowcount", "500")
    expect(page.locator(".facts")).to_contain_text("601 spans")
    grid.press("ArrowDown")
    page.evaluate("release()")
    expect(grid).to_have_attribute("aria-rowcount", "601")
    expect(page.locator('.row[aria-selected="true"]')).to_have_attribute("aria-rowindex", "2")
    grid.press("End")
    expect(page.locator('.row[aria-selected="true"]')).to_be_in_viewport()


def test_after_an_error_the_trace_is_read_again(page: Page, viewer: Viewer) -> None:
    show(viewer, page, [WEB])
    busy = {"error": "the database is busy"}
    page.route("**/hops", lambda route: route.fulfill(status=503, json=busy))
    page.reload()
    expect(page.get_by_text("the database is busy")).to_be_visible()
    page.unroute("**/hops")
    expect(page.get_by_role("treegrid")).to_be_visible()


def test_a_problem_links_to_its_queue(page: Page, viewer: Viewer) -> None:
    viewer.send(export(order(TRACE, -600_000)[:2]))
    viewer.settled(2)
    page.goto(f"/trace/{TRACE}")
    page.get_by_label("Problems").get_by_role("link", name="celery").click()
    expect(page).to_have_url(re.compile(r"/queue\?queue=celery"))
    expect(page.locator(".charts svg").first).to_be_visible()
