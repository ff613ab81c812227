"""The Queues page, and the pages of a queue and a task, during an incident."""

import re
from collections.abc import Iterator
from dataclasses import replace
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from telemetry.otlp.decode import ReceivedSpan

from ..conftest import Viewer
from ..exports import export
from ..spans import WORKER, order

HOUR = 3_600_000.0

#: A queue with a name that needs care in an address.
ODD = "mail/high priority&more"


@pytest.fixture
def page(chromium: Browser, viewer: Viewer) -> Iterator[Page]:
    context = chromium.new_context(base_url=viewer.url, viewport={"width": 1280, "height": 800})
    page = context.new_page()
    said: list[str] = []
    page.on("pageerror", lambda error: said.append(str(error)))
    yield page
    context.close()
    assert said == []


def incident(viewer: Viewer) -> None:
    """Send the spans of an incident: a queue without workers, and one with failures."""
    minute = -60_000.0
    sent = [order(f"{n:032x}", n * 10_000 - 600_000) for n in range(1, 31)]
    sent += [order("e" * 31 + str(n), minute, error="OSError: gone") for n in range(3)]
    odd = {"messaging.destination.name": ODD, "celery.task.name": "mailer.send"}
    for n in range(5):
        web, send, *_ = order("f" * 31 + str(n), (n + 5) * minute)
        sent.append([web, replace(send, attributes={**send.attributes, **odd})])
    for spans in sent:
        viewer.send(export(spans))
    viewer.settled(sum(map(len, sent)))


def test_what_stalls_is_first_and_every_number_leads_on(page: Page, viewer: Viewer) -> None:
    incident(viewer)
    page.goto("/queues")
    rows = page.locator(".queues tbody tr")
    expect(rows).to_have_count(2)
    first = rows.nth(0)
    expect(first.get_by_role("rowheader")).to_contain_text(ODD)
    expect(first).to_contain_text("Stalled")
    expect(page.locator(".headline")).to_have_text(
        re.compile(
            rf"^1 stalled: {re.escape(ODD)} · 3 runs failed: celery · "
            r"5 messages wait, the oldest for 9\smin\s.* · 2 queues$"
        )
    )
    expect(rows.nth(1)).to_contain_text("OSError \u00d73")

    first.get_by_role("link", name="5", exact=True).click()
    expect(page.locator(".traces tbody tr")).to_have_count(5)
    page.go_back()
    rows.nth(1).get_by_role("link", name="3", exact=True).click()
    expect(page.locator(".traces tbody tr")).to_have_count(3)
    page.go_back()

    first.get_by_role("link", name=ODD).click()
    expect(page.get_by_role("heading", level=1)).to_have_text(ODD)
    oldest = page.locator("section").filter(has=page.get_by_role("heading", name="Oldest messages"))
    expect(oldest.locator("tbody tr")).to_have_count(5)
    expect(oldest).to_contain_text("Stuck")
    page.get_by_role("link", name="mailer.send").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("mailer.send")
    page.get_by_role("link", name=ODD).click()
    expect(page).to_have_url(re.compile(re.escape(quote(ODD, safe="").replace("%20", "+"))))


def test_the_page_of_a_queue_says_who_and_why(page: Page, viewer: Viewer) -> None:
    incident(viewer)
    page.goto("/queue?queue=celery")

    def section(title: str):  # type: ignore[no-untyped-def]
        return page.locator("section").filter(has=page.get_by_role("heading", name=title))

    expect(section("Failures")).to_contain_text("OSError")
    expect(section("Failures")).to_contain_text("gone")
    expect(section("Workers")).to_contain_text(WORKER)
    expect(section("Workers")).to_contain_text("100 %")
    expect(section("Producers").get_by_role("link")).to_have_text("shop")
    for title in ("Depth", "Wait", "Run"):
        chart = page.locator("figure").filter(has_text=re.compile(f"^{title}"))
        expect(chart.locator(".tick").nth(3)).to_be_attached()
    dots = page.locator(".dot-link")
    expect(dots.nth(10)).to_be_attached()
    dots.last.click()
    expect(page).to_have_url(re.compile("/trace/"))


def test_a_percentile_leads_to_the_longest_and_an_age_to_the_oldest(
    page: Page, viewer: Viewer
) -> None:
    """A list of traces would be sorted by their longest wait, which may be in another queue."""
    incident(viewer)
    page.goto("/queues")
    rows = page.locator(".queues tbody tr")
    expect(rows).to_have_count(2)
    stalled, failing = rows.all()
    stalled.locator('[data-label="Oldest"]').get_by_role("link").click()
    expect(page.locator("#oldest-messages")).to_be_focused()
    expect(page.locator("#oldest-messages")).to_be_in_viewport()
    page.go_back()
    failing.locator('[data-label="Wait"]').get_by_role("link").last.click()
    waits = page.locator("#longest-waits")
    expect(waits).to_be_focused()
    expect(waits).to_be_in_viewport()
    expect(waits.locator("tbody tr")).to_have_count(10)
    # The page stays open, the link only scrolls.
    page.evaluate("window.scrollTo(0, 0)")
    element = waits.element_handle()
    page.locator(".tile").filter(has_text="Run p95").get_by_role("link").click()
    expect(page.locator("#longest-runs")).to_be_focused()
    assert waits.evaluate("(one, before) => one === before", element)
    page.go_back()
    expect(rows).to_have_count(2)


def test_a_failure_of_the_time_range_leads_to_a_trace_that_began_before_it(
    page: Page, viewer: Viewer
) -> None:
    web, send, run, _ = order("a" * 32, -HOUR, state="FAILURE", error="OSError: gone")
    later = int(HOUR * 1e6)
    late = [replace(run, start_ns=run.start_ns + later, end_ns=run.end_ns + later)]
    other = order("b" * 32, -HOUR, state="FAILURE", error="OSError: gone")
    for spans in ([web, send, *late], other):
        viewer.send(export(spans))
    viewer.settled(7)
    page.goto("/queues?since_s=300")
    row = page.locator(".queues tbody tr")
    for label, count in (("Failed", "1"), ("Exceptions", "\u00d71")):
        row.locator(f'[data-label="{label}"]').get_by_role("link", name=count, exact=True).click()
        expect(page.locator(".traces tbody tr")).to_have_count(1)
        expect(page.locator('.traces tr[data-trace^="a"]')).to_be_visible()
        page.go_back()


def test_a_broker_that_is_down_is_seen(page: Page, viewer: Viewer) -> None:
    web, send, *_ = order("a" * 32)
    viewer.send(export([web, replace(send, status="ERROR")]), export(order("b" * 32)))
    viewer.settled(6)
    page.goto("/queues")
    expect(page.locator(".headline")).to_contain_text("1 message failed to send")
    row = page.locator(".queues tbody tr")
    row.locator('[data-label="In / out"]').get_by_role("link", name="1", exact=True).click()
    expect(page.locator(".traces tbody tr")).to_have_count(1)
    for path, region in (("/queue?queue=celery", "Producers"), ("/map", "Map as a table")):
        page.goto(path)
        page.get_by_role("region", name=region).locator("a.bad").click()
        expect(page).to_have_url(re.compile("status=unsent"))
        expect(page.locator(".traces tbody tr")).to_have_count(1)


def test_an_update_changes_numbers_and_nothing_else(page: Page, viewer: Viewer) -> None:
    incident(viewer)
    page.set_viewport_size({"width": 700, "height": 300})
    page.goto("/queues")
    table = page.get_by_role("region", name="Queues")
    link = table.get_by_role("link", name=ODD)
    link.focus()
    table.evaluate("one => one.scrollLeft = 120")
    page.evaluate("window.scrollTo(0, 80)")
    page.evaluate("getSelection().selectAllChildren(document.querySelector('.headline'))")
    element = link.element_handle()
    viewer.send(export(order("a" * 32, error="KeyError: 'x'")))
    expect(table).to_contain_text("KeyError \u00d71")
    assert link.evaluate("(one, before) => one === before", element)
    expect(link).to_be_focused()
    assert table.evaluate("one => one.scrollLeft") == 120
    assert page.evaluate("window.scrollY") == 80
    assert "1 stalled" in page.evaluate("getSelection().toString()")


def test_an_answer_that_fails_leaves_what_is_there(page: Page, viewer: Viewer) -> None:
    incident(viewer)
    page.goto("/queues")
    rows = page.locator(".queues tbody tr")
    expect(rows).to_have_count(2)
    busy = {"error": "the database is busy"}
    page.route("**/api/queues?*", lambda route: route.fulfill(status=503, json=busy))
    page.keyboard.press("r")
    expect(page.get_by_text("the database is busy")).to_be_visible()
    page.unroute("**/api/queues?*")
    expect(rows).to_have_count(2)
    viewer.send(export(order("a" * 32, error="KeyError: 'x'")))
    expect(rows.nth(1)).to_contain_text("KeyError \u00d71")


def test_an_answer_that_takes_long_is_waited_for(page: Page, viewer: Viewer) -> None:
    incident(viewer)
    held: list[Route] = []
    page.clock.install()
    page.route("**/api/queues?*", lambda route: held.append(route))
    page.goto("/map")
    expect(page.locator("#live.up")).to_be_visible()  # which has a page read once more
    page.get_by_role("link", name="Queues", exact=True).click()
    expect(page.get_by_text("Loading")).to_be_visible()
    page.clock.run_for(20_000)
    assert len(held) == 1
    # Another time range is asked for at once.
    page.get_by_label("Time range").select_option("21600")
    viewer.wait_for(lambda: page.evaluate("1") and len(held), lambda count: count == 2)
    held[1].continue_()
    expect(page.locator(".queues tbody tr")).to_have_count(2)


def test_of_very_many_queues_the_most_urgent_are_shown_first(page: Page, viewer: Viewer) -> None:
    many = [
        replace(
            s,
            trace_id=f"{n:032x}",
            attributes={**s.attributes, "messaging.destination.name": f"q{n}"},
        )
        for n in range(1, 251)
        for s in order("a" * 32, -600_000.0 if n == 250 else 0.0)[1:2]
    ]
    viewer.send(export(many))
    viewer.settled(250)
    page.goto("/queues")
    rows = page.locator(".queues tbody tr")
    expect(rows).to_have_count(200)
    expect(rows.first).to_contain_text("q250")
    expect(page.locator(".headline")).to_contain_text("250 messages wait")
    page.get_by_role("button", name="Show all 250 queues").click()
    expect(rows).to_have_count(250)


def test_back_is_where_one_was(page: Page, viewer: Viewer) -> None:
    incident(viewer)
    page.set_viewport_size({"width": 1280, "height": 400})
    page.goto("/queue?queue=celery")
    link = page.locator("section").filter(has_text="Longest runs").locator("tbody a").first
    link.scroll_into_view_if_needed()
    before = page.evaluate("window.scrollY")
    assert before > 500
    link.click()
    expect(page.get_by_role("treegrid")).to_be_visible()
    assert page.evaluate("window.scrollY") < before / 2
    page.go_back()
    expect(link).to_be_in_viewport()
    assert abs(page.evaluate("window.scrollY") - before) < 2


@pytest.mark.parametrize("locale", ["en-US", "ar-EG"])
def test_midnight_is_the_hour_zero(chromium: Browser, viewer: Viewer, locale: str) -> None:
    incident(viewer)
    context = chromium.new_context(base_url=viewer.url, locale=locale, timezone_id="Asia/Kolkata")
    page = context.new_page()
    page.goto("/queue?queue=celery&since_s=86400")
    times = page.locator(".chart").first.locator(".tick").filter(has_text=":")
    expect(times.filter(has_text="00:00")).to_have_count(1)
    assert all(re.fullmatch(r"[0-2]\d:00", text) for text in times.all_text_contents())
    context.close()


def test_on_a_phone_a_queue_is_readable(page: Page, viewer: Viewer) -> None:
    incident(viewer)
    page.set_viewport_size({"width": 390, "height": 844})
    for path in ("/queues", "/queue?queue=celery", "/map"):
        page.goto(path)
        expect(page.locator("main a").first).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.goto("/queues")
    row = page.locator(".queues tbody tr").first
    for label in ("State", "Depth", "Oldest", "Wait", "Failed"):
        expect(row.locator(f'[data-label="{label}"]')).to_be_in_viewport(ratio=1)
    box = row.bounding_box()
    assert box is not None
    assert box["height"] < 130


def test_on_a_tablet_everything_has_room(page: Page, viewer: Viewer) -> None:
    incident(viewer)
    page.set_viewport_size({"width": 820, "height": 1000})
    page.goto(f"/queue?queue={quote(ODD)}")
    oldest = page.locator(".tile").filter(has_text="Oldest").locator("dd")
    expect(oldest).to_have_text(re.compile("min"))
    assert oldest.evaluate("one => one.scrollWidth <= one.clientWidth")
    tops = page.locator("#theme, #help").evaluate_all("all => all.map(one => one.offsetTop)")
    assert tops[0] == tops[1]


def test_the_numbers_of_a_queue_lead_to_the_traces_of_its_broker(
    page: Page, viewer: Viewer
) -> None:
    def at(broker: str) -> dict[str, str]:
        return {"messaging.system": "redis", "server.address": broker}

    sent = [
        [replace(span, attributes=span.attributes | at(broker)) for span in order(letter * 32)[:2]]
        for letter, broker in (("a", "one"), ("b", "two"), ("c", "two"))
    ]
    for spans in sent:
        viewer.send(export(spans))
    viewer.settled(sum(map(len, sent)))
    listed = page.locator(".traces tbody tr")
    filtered = re.compile(r"broker=redis%3A%2F%2Ftwo(&|$)")

    page.goto("/queues")
    row = page.locator(".queues tbody tr").filter(has_text="two")
    row.locator('[data-label="Depth"]').get_by_role("link", name="2", exact=True).click()
    expect(page).to_have_url(filtered)
    expect(listed).to_have_count(2)
    # The filter can be removed.
    broker = page.get_by_label("Broker", exact=True)
    expect(broker).to_have_value("redis://two")
    broker.fill("")
    broker.press("Enter")
    expect(listed).to_have_count(3)

    page.goto("/queue?queue=celery&broker=redis%3A%2F%2Ftwo")
    page.get_by_role("link", name="All traces").click()
    expect(page).to_have_url(filtered)
    expect(listed).to_have_count(2)
    page.go_back()
    tasks = page.get_by_role("region", name="Tasks")
    tasks.get_by_role("link", name="2", exact=True).click()
    expect(page).to_have_url(filtered)
    expect(listed).to_have_count(2)

    page.goto("/map")
    edges = page.get_by_role("region", name="Map as a table")
    edges.get_by_role("row").filter(has_text="celery").get_by_role("link", name="2").click()
    expect(page).to_have_url(filtered)
    expect(listed).to_have_count(2)


def test_what_has_no_name_is_found_from_its_number(page: Page, viewer: Viewer) -> None:
    """Messages without a queue, and one without a task, beside those that have both."""

    def without(letter: str, *names: str) -> list[ReceivedSpan]:
        web, sent, *_ = order(letter * 32)
        known = {key: value for key, value in sent.attributes.items() if key not in names}
        return [web, replace(sent, attributes={**known, "messaging.system": "redis"})]

    queue, task = "messaging.destination.name", "celery.task.name"
    viewer.send(*map(export, [order("a" * 32), without("b", queue), without("c", queue, task)]))
    viewer.settled(8)
    listed = page.locator(".traces tbody tr")
    search = page.get_by_role("combobox", name="Search traces")

    page.goto("/queues")
    row = page.locator(".queues tbody tr").filter(has_text="(no queue name)")
    row.locator('[data-label="Depth"]').get_by_role("link", name="2", exact=True).click()
    expect(listed).to_have_count(2)
    expect(search).to_have_value('queue:""')
    page.go_back()
    row.get_by_role("link", name="(no queue name)").click()
    page.get_by_role("link", name="All traces").click()
    expect(listed).to_have_count(2)
    page.go_back()
    tasks = page.get_by_role("region", name="Tasks")
    nameless = tasks.get_by_role("row").filter(has_text="(no task name)")
    nameless.get_by_role("link", name="1", exact=True).click()
    expect(listed).to_have_count(1)
    expect(search).to_have_value('queue:"" task:""')
    page.go_back()
    nameless.get_by_role("link", name="(no task name)").click()
    page.get_by_role("link", name="All traces").click()
    expect(listed).to_have_count(1)

    page.goto("/map")
    expect(page.locator(".node.queue").filter(has_text="(no queue name)")).to_be_visible()
    edges = page.get_by_role("region", name="Map as a table")
    to_nameless = edges.get_by_role("row").filter(has_text="(no queue name)")
    to_nameless.get_by_role("link", name="2", exact=True).click()
    expect(listed).to_have_count(2)

    search.fill("queue:")
    option = page.get_by_role("option").first
    expect(option).to_contain_text("no queue name")
    option.click()
    expect(search).to_have_value('queue:"" ')
    expect(listed).to_have_count(2)


def test_a_queue_without_a_broker_is_not_that_of_a_broker(page: Page, viewer: Viewer) -> None:
    [web, sent, *_] = order("a" * 32)
    broker = {**sent.attributes, "messaging.system": "redis"}
    viewer.send(export([web, replace(sent, attributes=broker)]), export(order("b" * 32)[:2]))
    viewer.settled(4)
    listed = page.locator(".traces tbody tr")
    page.goto("/queues")
    row = page.locator(".queues tbody tr").filter(has_not_text="redis")
    row.locator('[data-label="Depth"]').get_by_role("link", name="1", exact=True).click()
    expect(listed).to_have_count(1)
    expect(listed).to_have_attribute("data-trace", "b" * 32)
    page.go_back()
    row.get_by_role("link", name="celery").click()
    oldest = page.locator("section").filter(has=page.get_by_role("heading", name="Oldest messages"))
    expect(oldest.locator("tbody tr")).to_have_count(1)


def test_no_queue_and_an_unknown_one(page: Page) -> None:
    page.goto("/queues")
    expect(page.get_by_text("No messages in this time range")).to_be_visible()
    page.goto("/queue?queue=nowhere")
    expect(page.get_by_role("heading", level=1)).to_have_text("nowhere")
    expect(page.get_by_text("Queue not found")).to_be_visible()
    expect(page.get_by_text("OK")).to_have_count(0)


@pytest.mark.parametrize(("kind", "shown"), [("shop.bank.Declined", "Declined"), ("odd.", "odd")])
def test_an_exception_has_its_type_without_the_module(
    page: Page, viewer: Viewer, kind: str, shown: str
) -> None:
    viewer.send(export(order(error=f"{kind}: no", state="FAILURE")))
    viewer.settled(4)
    page.goto("/queues")
    expect(page.locator(".exceptions")).to_have_text(f"{shown} \u00d71")
