"""The text of the pages: durations, comparable rates, and names of any length."""

from dataclasses import replace
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Page, expect

from ..conftest import Viewer
from ..exports import export
from ..spans import order
from ..test_duration import DURATIONS
from .pages import WEB, message, now, show

HOSTILE = "png\u202egpj.exe\x1b[31m" + "x" * 3000

WIDER = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


def test_durations_are_those_of_the_terminal_and_the_sentence(page: Page, viewer: Viewer) -> None:
    page.goto("/")
    shown = page.evaluate(
        "all => import('/static/format.js').then(({ duration }) => all.map(duration))",
        [ns / 1e6 for ns, _ in DURATIONS],
    )
    # The spaces do not break.
    assert shown == [words.replace(" ", "\u00a0") for _, words in DURATIONS]


@pytest.mark.parametrize(
    ("per_second", "shown"),
    [
        ([25, 0.2], ["25/s", "0.2/s"]),
        ([0.13, 0.048], ["7.8/min", "2.9/min"]),
        ([1 / 3600, 0], ["1/h", "0"]),
        ([0, 0], ["0", "0"]),
    ],
)
def test_rates_that_are_compared_have_one_unit(
    page: Page, viewer: Viewer, per_second: list[float], shown: list[str]
) -> None:
    page.goto("/")
    got = page.evaluate(
        "all => import('/static/format.js').then(({ rates }) => rates(...all))", per_second
    )
    assert got == shown


@pytest.mark.parametrize("width", [1280, 390])
def test_a_name_of_any_length_and_direction_stays_in_its_place(
    page: Page, viewer: Viewer, width: int
) -> None:
    page.set_viewport_size({"width": width, "height": 844})
    failed = {"status": "ERROR", "status_message": HOSTILE}
    odd = [
        replace(
            span,
            name=f"{span.name.split()[0]} {HOSTILE}",
            resource={"service.name": HOSTILE},
            attributes={**span.attributes, "messaging.destination.name": HOSTILE},
            **(failed if span.kind == "CONSUMER" else {}),
        )
        for span in (WEB, *message("1", 5, (40, 50)))
    ]
    show(viewer, page, odd)
    assert page.evaluate(WIDER) <= 0
    # The first screen has the sentence, the error, and some rows.
    expect(page.locator(".row").first).to_be_in_viewport()
    assert "\u202e" not in page.inner_text("main")
    assert "[31m" not in page.inner_text("main")
    assert len(page.title()) < 100
    for path in ("/", "/queues", "/map", f"/queue?{urlencode({'queue': HOSTILE[:200]})}"):
        page.goto(path)
        page.locator("main tbody tr").first.wait_for()
        assert len(page.title()) < 100
        assert "\u202e" not in page.title()
        assert page.evaluate(WIDER) <= 0
        assert "\u202e" not in page.inner_text("main")
    page.goto("/map")
    # The map's table shows all its columns beside such a name.
    table = page.get_by_role("region", name="Map as a table")
    wider = table.evaluate("one => one.scrollWidth - one.clientWidth")
    assert width < 1000 or wider <= 0


def test_the_tabs_do_not_move_when_another_is_chosen(page: Page, viewer: Viewer) -> None:
    places = []
    for name in ("Traces", "Queues", "Map", "Logs"):
        page.goto("/")
        page.get_by_role("navigation", name="Pages").get_by_role("link", name=name).click()
        links = page.locator("nav[aria-label='Pages'] a")
        places.append(links.evaluate_all("all => all.map(one => one.getBoundingClientRect().x)"))
    assert places == [places[0]] * 4


def test_a_wait_reads_the_same_in_the_list_the_sentence_and_the_row(
    page: Page, viewer: Viewer
) -> None:
    wait = {"celery__wait__queue": 255.0, "celery__wait__prefetch": 12.0}
    begin = 7.0
    run = message("1", 5, (begin + 267_000, begin + 270_000), **wait)
    show(viewer, page, [WEB, *run])
    expect(page.get_by_role("heading", level=1)).to_contain_text("4 min 27 s waiting in celery")
    expect(page.locator(".row.wait .label")).to_have_text(
        "waited 4 min 27 s in celery (prefetched 12 s)"
    )
    expect(page.locator(".trace-head .legend")).to_contain_text("waiting in celery 4 min 27 s")
    page.goto("/")
    expect(page.locator(".traces tbody tr td").nth(2)).to_have_text("4 min 27 s")
    expect(page.locator(".traces .sentence")).to_contain_text("4 min 27 s waiting in celery")


def test_a_wait_of_almost_two_minutes_reads_the_same_in_the_sentence_and_the_legend(
    page: Page, viewer: Viewer
) -> None:
    # Exactly, 119.58 s are 2 min; but the parts add up to the total of 2 min 30 s.
    begin = 7 + 119_580
    show(viewer, page, [WEB, *message("1", 5, (begin, begin + 30_700), celery__wait__queue=119.58)])
    expect(page.get_by_role("heading", level=1)).to_contain_text("1 min 59 s waiting in celery")
    expect(page.locator(".trace-head .legend")).to_contain_text("waiting in celery 1 min 59 s")


def test_a_short_wait_in_a_long_trace_is_as_exact_in_the_legend_as_in_its_row(
    page: Page, viewer: Viewer
) -> None:
    show(viewer, page, [WEB, *message("1", 5, (248, 2_500), celery__wait__queue=0.241)])
    expect(page.get_by_role("heading", level=1)).to_contain_text("0.24 waiting in celery")
    expect(page.locator(".row.wait .label")).to_have_text("waited 241 ms in celery")
    expect(page.locator(".trace-head .legend")).to_contain_text("waiting in celery 241 ms")


def test_a_failed_run_has_one_badge_in_the_list(page: Page, viewer: Viewer) -> None:
    failed = order("a" * 32, error="OSError: gone", state="FAILURE")
    viewer.send(export(now(failed)))
    viewer.settled(len(failed))
    page.goto("/")
    expect(page.locator(".traces .badge")).to_have_text(["Error"])
