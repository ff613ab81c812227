"""Logs on the page: at their span, as ticks, found by their text, and on a page of their own."""

import json
import time

import grpc
import pytest
from google.protobuf import json_format
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.logs.v1.logs_service_pb2_grpc import LogsServiceStub
from playwright.sync_api import Page, expect

from ..conftest import Viewer
from ..exports import export, shown
from ..logs import export_logs, log
from ..spans import TRACE
from .pages import WEB, message, now


def post(viewer: Viewer, *logs: object, **headers: str) -> None:
    body = export_logs(logs).SerializeToString()  # type: ignore[arg-type]
    answer = viewer.post(body, "/v1/logs", **headers)
    assert (answer.status_code, answer.content) == (200, b"")


@pytest.fixture
def trace(viewer: Viewer) -> None:
    """A ping whose run logs: at its beginning, and an error at its end."""
    spans = now([WEB, *message("1", 5, (40, 90))])
    run = spans[-1]
    viewer.send(export(spans))
    post(
        viewer,
        log(
            *("card declined", TRACE, "r1", run.end_ns / 1e9, 17, "ERROR"),
            exception__type="CardError",
            exception__message="insufficient funds",
            exception__stacktrace="Traceback (most recent call last):\n  CardError",
            code__line__number=12,
        ),
        log("charging order 7", TRACE, "r1", run.start_ns / 1e9 + 0.0123),
    )
    post(viewer, log("a worker starts", at=time.time()), log("lost", "ab" * 16, "x", time.time()))
    viewer.settled(len(spans))
    viewer.wait_for(lambda: viewer.get("/api/stats"), lambda stats: stats["logs"] == 4)


@pytest.mark.usefixtures("trace")
class TestThePage:
    def test_a_span_has_its_lines_and_its_ticks(self, page: Page) -> None:
        page.goto(f"/trace/{TRACE}/{shown('r1')}")
        panel = page.get_by_label("Span details")
        lines = panel.locator(".log-lines li")
        expect(lines).to_have_count(2)
        expect(lines.first).to_contain_text("+12 ms")
        expect(lines.first).to_contain_text("charging order 7")
        expect(lines.last).to_contain_text("ERROR")
        # The rest of a record is in its details.
        expect(panel.get_by_text("CardError: insufficient funds")).to_be_hidden()
        lines.last.locator("summary").click()
        expect(panel.get_by_text("CardError: insufficient funds")).to_be_visible()
        expect(panel.get_by_role("region", name="Stack trace")).to_contain_text("Traceback")
        expect(panel.get_by_role("cell", name="12", exact=True)).to_be_visible()
        ticks = page.locator(".row .log-tick")
        expect(ticks).to_have_count(2)
        expect(page.locator(".row .log-tick.error")).to_have_attribute(
            "title", "ERROR card declined"
        )
        row = page.locator(".row", has=page.locator(".log-tick").first)
        expect(row).to_contain_text("process tasks.add")
        expect(row.locator(".time")).to_have_attribute(
            "aria-label", "50\u00a0ms, from 40\u00a0ms, 2 log records"
        )

    def test_a_line_that_comes_later_is_drawn(self, page: Page, viewer: Viewer) -> None:
        page.goto(f"/trace/{TRACE}")
        expect(page.locator(".row .log-tick")).to_have_count(2)
        post(viewer, log("late", TRACE, "web", time.time()))
        # It is after the end of the trace, so its tick is out of sight.
        expect(page.locator(".row .log-tick")).to_have_count(3)

    def test_a_trace_is_found_by_what_it_logged(self, page: Page) -> None:
        page.goto("/?q=log%3A%22Card+declined%22")
        expect(page.locator(".traces tbody tr")).to_have_count(1)
        page.goto("/?q=log%3Adeclined+log%3Anothing")
        expect(page.locator(".traces tbody tr")).to_have_count(0)

    def test_those_without_a_span_have_a_page(self, page: Page) -> None:
        page.goto("/")
        page.get_by_role("navigation").get_by_role("link", name="Logs").click()
        items = page.locator(".log-list > li")
        expect(items).to_have_count(2)
        expect(items.first).to_contain_text("lost")
        expect(items.first).to_contain_text("is not stored here")
        expect(items.last).to_contain_text("a worker starts")
        page.get_by_label("Log records").select_option("All")
        expect(items).to_have_count(4)
        page.get_by_label("Level").select_option("ERROR")
        expect(items).to_have_count(1)
        page.reload()
        expect(items).to_have_count(1)
        items.get_by_role("link", name="Trace").click()
        expect(page.get_by_label("Span details").locator(".log-lines li")).to_have_count(2)
        page.goto("/logs")
        page.get_by_role("searchbox", name="Text").fill("NOWHERE")
        expect(page.get_by_role("heading", name="No log records match")).to_be_visible()


def test_new_ones_go_on_top_and_what_is_open_stays(page: Page, viewer: Viewer) -> None:
    post(viewer, log("first", at=time.time(), user="7"))
    viewer.wait_for(lambda: viewer.get("/api/logs")["logs"], bool)
    page.goto("/logs")
    items = page.locator(".log-list > li")
    items.get_by_text("first").click()
    expect(items.get_by_role("cell", name="7", exact=True)).to_be_visible()
    post(viewer, log("second", at=time.time()))
    expect(items).to_have_count(2)
    expect(items.first).to_contain_text("second")
    expect(items.get_by_role("cell", name="7", exact=True)).to_be_visible()


def test_log_records_are_where_their_time_belongs(page: Page, viewer: Viewer) -> None:
    begin = time.time() - 1000
    # The first page of the server has the last 100 to arrive, and they are the older half.
    post(viewer, *(log(f"{second}", at=begin + second) for second in range(101, 200)))
    post(viewer, *(log(f"{second}", at=begin + second) for second in range(100)))
    viewer.wait_for(lambda: len(viewer.get("/api/logs", limit=200)["logs"]), lambda n: n == 199)
    page.goto("/logs")
    items = page.locator(".log-list > li")
    expect(items).to_have_count(100)
    page.get_by_role("button", name="Show older").click()
    expect(items).to_have_count(199)
    post(viewer, log("100", at=begin + 100))
    expect(items).to_have_count(200)
    texts = page.locator(".log-list .log-text").all_text_contents()
    assert texts == [str(second) for second in reversed(range(200))]


@pytest.mark.parametrize("width", [1280, 390])
def test_a_long_record_is_cut_until_it_is_opened(page: Page, viewer: Viewer, width: int) -> None:
    post(viewer, log("first", at=time.time()), log("long " * 5000, at=time.time() + 1))
    viewer.wait_for(lambda: viewer.get("/api/logs")["logs"], bool)
    page.set_viewport_size({"width": width, "height": 800})
    page.goto("/logs")
    items = page.locator(".log-list > li")
    expect(items.last).to_be_in_viewport()
    items.first.locator("summary").click()
    expect(items.last).not_to_be_in_viewport()


@pytest.mark.parametrize("width", [1280, 390])
def test_a_level_of_any_length_is_beside_the_text(page: Page, viewer: Viewer, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 844})
    levels = ("INFO", "WARNING", "CRITICAL", "NOTICE" * 30)
    post(viewer, *(log("text", at=time.time(), severity=21, level=level) for level in levels))
    page.goto("/logs")
    summaries = page.locator(".log-list summary")
    expect(summaries).to_have_count(len(levels))
    for summary in summaries.all():
        badge = summary.locator(".badge").bounding_box()
        text = summary.locator(".log-text").bounding_box()
        assert badge is not None
        assert text is not None
        assert badge["x"] + badge["width"] <= (text["x"] if width > 1000 else width)


def test_logs_come_over_grpc_too(viewer: Viewer) -> None:
    with grpc.insecure_channel(viewer.grpc.removeprefix("http://")) as channel:
        request = export_logs([log("over gRPC"), log("odd", "ab")])
        answer = LogsServiceStub(channel).Export(request)
    assert isinstance(answer, ExportLogsServiceResponse)
    assert answer.partial_success.rejected_log_records == 1
    logs = viewer.wait_for(lambda: viewer.get("/api/logs")["logs"], bool)
    assert [each["text"] for each in logs] == ["over gRPC"]


def test_ids_of_zeros_are_no_trace(viewer: Viewer) -> None:
    post(viewer, log("outside a span", "0" * 32, "\0" * 8))
    (found,) = viewer.wait_for(lambda: viewer.get("/api/logs")["logs"], bool)
    assert (found["trace_id"], found["span_id"], found["is_known"]) == ("", "", False)


def test_json_over_http(viewer: Viewer) -> None:
    document = json_format.MessageToDict(export_logs([log("as JSON")]), use_integers_for_enums=True)
    headers = {"Content_Type": "application/json"}
    answer = viewer.post(json.dumps(document).encode(), "/v1/logs", **headers)
    assert (answer.status_code, answer.json()) == (200, {})
    assert viewer.wait_for(lambda: viewer.get("/api/logs")["logs"], bool)
    answer = viewer.post(b"{", "/v1/logs", **headers)
    assert answer.status_code == 400


def test_a_file_of_logs_is_imported(viewer: Viewer) -> None:
    lines = [export_logs([log("one")]), export_logs([log("two")])]
    body = b"\n".join(
        json.dumps(json_format.MessageToDict(line, use_integers_for_enums=True)).encode()
        for line in lines
    )
    answer = viewer.post(body, "/api/import", Content_Type="application/octet-stream")
    assert answer.json() == {
        "accepted": 0, "logs": 2, "traces": 0, "trace_id": None, "format": "OTLP, an export a line"
    }  # fmt: skip
    assert len(viewer.get("/api/logs")["logs"]) == 2


def test_what_is_asked_for_wrongly_is_said(viewer: Viewer) -> None:
    assert "limit" in viewer.get("/api/logs", 400, limit="x")["error"]
    assert viewer.get("/api/traces/xyz/logs") == {"logs": [], "more": False}
