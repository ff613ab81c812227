"""The list of traces: its search field, its rows as traces arrive, and its keys."""

import json
import re
from dataclasses import replace
from urllib.parse import parse_qs, urlsplit

from playwright.sync_api import Page, Route, expect

from ..conftest import Viewer
from ..exports import as_json, export
from ..spans import order
from .pages import WEB, message, now


def ping(viewer: Viewer) -> None:
    viewer.send(export(now([WEB, *message("1", 5, (40, 50))])))
    viewer.settled(3)


def test_a_search_is_in_the_address_and_comes_back(page: Page, viewer: Viewer) -> None:
    ping(viewer)
    page.goto("/")
    field = page.get_by_role("combobox", name="Search traces")
    found = page.get_by_role("link", name="GET /ping")
    field.fill("TASKS.ADD")
    expect(page).to_have_url(re.compile(r"q=TASKS\.ADD"))
    expect(found).to_be_visible()
    field.fill("tasks.other")
    expect(page.get_by_role("heading", name="No traces match")).to_be_visible()
    page.reload()
    expect(field).to_have_value("tasks.other")
    page.get_by_role("button", name="Clear").click()
    expect(found).to_be_visible()
    page.get_by_label("Queue").select_option("celery")
    page.get_by_label("Sort by").select_option("wait")
    expect(page).to_have_url(re.compile(r"queue=celery&sort=wait"))
    page.go_back()
    expect(page).to_have_url(re.compile(r"queue=celery$"))
    expect(page.get_by_label("Sort by")).to_have_value("recent")


def test_a_time_range_with_two_ends_is_in_the_address_and_comes_back(
    page: Page, viewer: Viewer
) -> None:
    ping(viewer)
    page.goto("/")
    found = page.get_by_role("link", name="GET /ping")
    begin, end = page.get_by_label("From", exact=True), page.get_by_label("To", exact=True)
    expect(found).to_be_visible()
    expect(begin).to_be_hidden()
    page.get_by_label("Time range").select_option("custom")
    # At first, it is the last hour, and has what has just arrived.
    expect(page).to_have_url(re.compile("from=2.*&to=2"))
    expect(end).to_have_value(re.compile("^2"))
    ago = "at => (Date.now() - new Date(at)) / 60_000"
    assert -1 <= page.evaluate(ago, end.input_value()) <= 0
    assert 58 <= page.evaluate(ago, begin.input_value()) <= 60
    expect(found).to_be_visible()
    # The date and the time have room: narrower, the time is cut.
    box = end.bounding_box()
    assert box is not None
    assert box["width"] >= 200
    end.fill("2020-01-31T12:00")
    expect(page.get_by_role("alert")).to_have_text("the time range ends before it begins")
    begin.fill("2020-01-31T11:00")
    expect(page.get_by_role("heading", name="No traces match")).to_be_visible()
    instant = page.evaluate("new Date(2020, 0, 31, 12).toISOString()")
    assert parse_qs(urlsplit(page.url).query)["to"] == [instant]
    page.reload()
    expect(end).to_have_value("2020-01-31T12:00")
    expect(page.get_by_label("Time range")).to_have_value("custom")
    page.get_by_label("Time range").select_option("3600")
    expect(found).to_be_visible()
    expect(begin).to_be_hidden()
    expect(page).to_have_url(re.compile(r"\?since_s=3600$"))
    page.get_by_role("button", name="Clear").click()
    expect(page).to_have_url(re.compile("/$"))


def test_what_is_wrong_with_a_search_is_said_at_the_field(page: Page, viewer: Viewer) -> None:
    ping(viewer)
    page.goto("/")
    field = page.get_by_role("combobox", name="Search traces")
    found = page.get_by_role("link", name="GET /ping")
    expect(found).to_be_visible()
    field.fill("add wait>soon")
    expect(page.get_by_role("alert")).to_contain_text("'soon' is not a duration: for example 200ms")
    expect(field).to_have_attribute("aria-invalid", "true")
    expect(found).to_have_count(0)
    field.fill("add wait<1s")
    expect(found).to_be_visible()
    expect(page.get_by_role("alert")).to_have_count(0)
    assert field.get_attribute("aria-invalid") is None


def test_the_search_suggests_how_to_go_on(page: Page, viewer: Viewer) -> None:
    ping(viewer)
    page.goto("/")
    field = page.get_by_role("combobox", name="Search traces")
    options = page.get_by_role("listbox", name="Suggestions").get_by_role("option")
    field.fill("ping st")
    options.filter(has_text="status:").first.click()
    expect(options.filter(has_text="status:stuck")).to_be_visible()
    field.press_sequentially("su")
    expect(options).to_have_count(1)
    field.press("ArrowDown")
    field.press("Enter")
    expect(field).to_have_value("ping status:success ")
    expect(page.get_by_role("link", name="GET /ping")).to_be_visible()
    field.press_sequentially("cel")
    options.filter(has_text='queue:"celery"').click()
    expect(page).to_have_url(re.compile("queue%3A%22celery%22"))


def test_where_somebody_reads_nothing_moves(page: Page, viewer: Viewer) -> None:
    def orders(*numbers: int) -> None:
        viewer.send(*(export(order(f"{number:032x}")) for number in numbers))

    orders(*range(1, 61))
    viewer.settled(240)
    page.goto("/?q=orders")
    rows = page.locator(".traces tbody tr")
    expect(rows).to_have_count(50)
    link = page.get_by_role("link", name="POST /orders").nth(20)
    link.focus()
    link.evaluate("link => { link.mark = 'mine'; link.scrollIntoView(); }")
    before = page.evaluate("scrollY")
    orders(61, 62)
    viewer.send(export(now([WEB])))  # which does not match
    fresh = page.get_by_role("button", name="Show 2 more traces")
    expect(fresh).to_be_in_viewport()  # ten older ones are on the next page, and not new
    expect(rows).to_have_count(50)
    assert page.evaluate("document.activeElement.mark") == "mine"
    assert page.evaluate("scrollY") == before
    fresh.click()
    expect(fresh).to_be_hidden()
    expect(rows).to_have_count(50)
    expect(rows.first).to_have_attribute("data-trace", re.compile(f"0{62:x}$|0{61:x}$"))


def test_a_row_stays_the_same_as_its_trace_goes_on_and_goes_when_it_matches_no_more(
    page: Page, viewer: Viewer
) -> None:
    spans = now([WEB, *message("1", 5, (40, 50))])
    viewer.send(export(spans[:2]))
    page.goto("/?status=waiting")
    row = page.locator(".traces tbody tr")
    expect(row).to_have_count(1)
    expect(row.locator(".badge")).to_have_text("Waiting")
    row.evaluate("row => { row.mark = 'mine'; }")
    page.get_by_role("link", name="GET /ping").focus()
    viewer.send(export(spans[:1]))  # once more: nothing changes
    viewer.settled(2)
    assert row.evaluate("row => row.mark") == "mine"
    viewer.send(export(spans[2:]))
    expect(row).to_have_count(0)
    expect(page.get_by_role("heading", name="No traces match")).to_be_visible()


def test_the_whole_row_opens_its_trace_and_u_goes_back_to_the_filter(
    page: Page, viewer: Viewer
) -> None:
    ping(viewer)
    page.goto("/?q=ping&sort=wait")
    link = page.get_by_role("link", name="GET /ping")
    page.locator(".traces tbody tr td").nth(1).click()
    expect(page.get_by_role("treegrid")).to_be_focused()
    page.keyboard.press("u")
    expect(page).to_have_url(re.compile(r"/\?q=ping&sort=wait$"))
    expect(link).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("treegrid")).to_be_focused()
    page.go_back()
    expect(link).to_be_focused()


def expect_rows(page: Page, letters: str) -> None:
    """Wait until the rows are those of the traces with ids of these letters."""
    rows = page.locator(".traces tbody tr")
    expect(rows).to_have_count(len(letters))
    for at, letter in enumerate(letters):
        expect(rows.nth(at)).to_have_attribute("data-trace", letter * 32)


def test_rows_are_where_their_start_belongs(page: Page, viewer: Viewer) -> None:
    viewer.send(export(order("a" * 32, -10_000)), export(order("b" * 32, -30_000)))
    page.goto("/")
    expect_rows(page, "ab")
    viewer.send(export(order("c" * 32, -20_000)))
    expect_rows(page, "acb")
    # A span that started before the others arrives last.
    [web, *_] = order("c" * 32, -40_000)
    viewer.send(export([replace(web, span_id="client", name="GET")]))
    expect_rows(page, "abc")
    page.get_by_label("Sort by").select_option("Last received")
    expect_rows(page, "cba")


def test_imported_traces_are_at_the_top(page: Page, viewer: Viewer) -> None:
    ping(viewer)
    page.goto("/")
    expect(page.get_by_role("link", name="GET /ping")).to_be_visible()
    hour = -3_600_000
    spans = [*order("a" * 32, hour), *order("b" * 32, hour)]
    content = json.dumps(as_json(export(spans))).encode()
    file = {"name": "orders.json", "mimeType": "application/json", "buffer": content}
    page.get_by_label("Open a file").set_input_files(file)  # type: ignore[arg-type]
    names = page.locator(".traces tbody tr th a")
    expect(names).to_have_text(["POST /orders", "POST /orders", "GET /ping"])
    expect(page.get_by_label("Sort by")).to_have_value("received")


def test_a_long_list_has_no_gap_after_a_trace_arrives(page: Page, viewer: Viewer) -> None:
    viewer.send(*(export(order(f"{number:032x}")) for number in range(1, 256)))
    viewer.settled(4 * 255)
    page.goto("/")
    rows = page.locator(".traces tbody tr")
    more = page.get_by_role("button", name="Show more")
    for count in (50, 100, 150, 200, 250):
        expect(rows).to_have_count(count)
        more.click()
    expect(rows).to_have_count(255)
    page.mouse.move(0, 0)
    page.evaluate("scrollTo(0, 0)")
    viewer.send(export(order("f" * 32)))
    expect(rows.first).to_have_attribute("data-trace", "f" * 32)
    more.click()
    expect(rows).to_have_count(250)
    more.click()
    expect(rows).to_have_count(256)
    expect(more).to_be_hidden()


def test_escape_leaves_the_field_with_its_search(page: Page, viewer: Viewer) -> None:
    ping(viewer)
    page.goto("/?q=nothing-like-it")
    field = page.get_by_role("combobox", name="Search traces")
    field.focus()
    page.keyboard.press("Escape")
    expect(field).not_to_be_focused()
    expect(field).to_have_value("nothing-like-it")
    page.keyboard.press("r")
    expect(page.get_by_role("heading", name="No traces match")).to_be_visible()


def test_after_an_error_the_list_is_read_again(page: Page, viewer: Viewer) -> None:
    ping(viewer)
    found = page.get_by_role("link", name="GET /ping")
    said = page.get_by_text("the database is busy")

    def refuse(route: Route) -> None:
        route.fulfill(status=503, json={"error": "the database is busy"})

    page.goto("/queues")  # no trace arrives any more that would have the list read
    page.route("**/api/traces?*", refuse)
    page.get_by_role("link", name="Traces", exact=True).click()
    expect(said).to_be_visible()
    page.unroute("**/api/traces?*")
    expect(found).to_be_visible()

    page.route("**/api/traces?*", refuse)
    page.get_by_role("combobox", name="Search traces").fill("add")
    # The rows are those of another search.
    expect(found).to_have_count(0)
    expect(said).to_be_visible()
    page.unroute("**/api/traces?*")
    expect(found).to_be_visible()


def test_the_way_back_leads_to_the_same_row_while_traces_arrive(page: Page, viewer: Viewer) -> None:
    def orders(*numbers: int) -> None:
        viewer.send(*(export(order(f"{number:032x}")) for number in numbers))

    orders(*range(1, 61))
    viewer.settled(240)
    page.goto("/")
    rows = page.locator(".traces tbody tr")
    expect(rows).to_have_count(50)
    link = page.get_by_role("link", name="POST /orders").nth(30)
    address = str(link.get_attribute("href"))
    same = page.locator(f'.traces a[href="{address}"]')
    before = 60
    for go_back in (lambda: page.keyboard.press("u"), page.go_back):
        same.click()
        expect(page.get_by_role("treegrid")).to_be_focused()
        orders(*range(before + 1, before + 61))
        before += 60
        viewer.settled(4 * before)
        go_back()
        expect(same).to_be_focused()
        expect(same).to_be_in_viewport()
        expect(page.get_by_role("button", name="Show 50+ more traces")).to_be_in_viewport()


def test_a_row_that_is_far_down_shows_how_its_trace_went_on(page: Page, viewer: Viewer) -> None:
    """The list reads again no more than its newest 200 traces."""
    web, send, *rest = order("f" * 32, -10_000)
    viewer.send(export([web, send]))
    page.goto("/")
    row = page.locator(f'tr[data-trace="{"f" * 32}"]')
    expect(row.locator(".badge")).to_have_text("Waiting")
    row.get_by_role("link").focus()
    viewer.send(*(export(order(f"{number:032x}")[:1]) for number in range(1, 252)))
    expect(page.get_by_role("button", name="Show 50+ more traces")).to_be_visible()
    viewer.settled(253)
    viewer.send(export(rest))
    expect(row.locator(".badge")).to_have_text("OK")


def test_a_queue_that_is_new_can_be_chosen(page: Page, viewer: Viewer) -> None:
    def sent(letter: str, queue: str) -> None:
        web, send, *_ = order(letter * 32)
        named = {**send.attributes, "messaging.destination.name": queue}
        viewer.send(export([web, replace(send, attributes=named)]))

    sent("b", "mail")
    viewer.settled(2)
    page.clock.install()
    page.goto("/?queue=mail")
    queues = page.get_by_label("Queue").get_by_role("option")
    expect(queues).to_have_text(["Any", "mail"])
    sent("a", "images")
    viewer.settled(4)
    page.clock.run_for(30_000)
    expect(queues).to_have_text(["Any", "images", "mail"])
    expect(page.get_by_label("Queue")).to_have_value("mail")


def test_the_skip_link_leads_to_the_page_that_is_there(page: Page, viewer: Viewer) -> None:
    ping(viewer)
    page.goto("/?q=ping")
    row = page.locator(".traces tbody tr")
    row.evaluate("row => { row.mark = 'mine'; }")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    assert row.evaluate("row => row.mark") == "mine"
    page.keyboard.press("Tab")
    expect(page.get_by_role("combobox", name="Search traces")).to_be_focused()


def test_on_a_phone_a_row_shows_in_which_queue_its_trace_waited(page: Page, viewer: Viewer) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    viewer.send(export(order()))
    page.goto("/")
    sentence = page.locator(".traces .sentence")
    expect(sentence).to_be_in_viewport()
    expect(sentence).to_contain_text("waiting in celery")
