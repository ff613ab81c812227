"""Traces for a page, and the page that shows one."""

import time
from dataclasses import replace
from typing import Any

from playwright.sync_api import Page, expect

from telemetry.otlp.decode import ReceivedSpan

from ..conftest import Viewer
from ..exports import export
from ..spans import TRACE, WORKER, span


def now(spans: list[ReceivedSpan]) -> list[ReceivedSpan]:
    """Return *spans* as if their trace had just ended."""
    later = time.time_ns() - max(span.end_ns for span in spans) - 5 * 10**6
    return [
        replace(span, start_ns=span.start_ns + later, end_ns=span.end_ns + later) for span in spans
    ]


def message(
    name: str, at: float, run: tuple[float, float] | None, **attributes: object
) -> list[ReceivedSpan]:
    """Return the send of a message, which begins at *at*, and its run."""
    queued: dict[str, Any] = {
        "messaging__destination__name": "celery",
        "messaging__system": "redis",
        "celery__task__name": "tasks.add",
    }
    send = span(f"s{name}", "web", "PRODUCER", (at, at + 2), name="send tasks.add", **queued)
    if run is None:
        return [send]
    said: dict[str, Any] = {"celery__task__state": "SUCCESS", **attributes}
    process = span(
        f"r{name}",
        f"s{name}",
        "CONSUMER",
        run,
        WORKER,
        "process tasks.add",
        (f"s{name}",),
        **queued,
        **said,
    )
    return [send, process]


WEB = span("web", "", "SERVER", (0, 20), name="GET /ping", http__route="/ping")


def show(viewer: Viewer, page: Page, spans: list[ReceivedSpan]) -> None:
    """Send *spans* and open their trace."""
    viewer.send(export(now(spans)))
    viewer.settled(len(spans))
    page.goto(f"/trace/{TRACE}")
    expect(page.get_by_role("treegrid")).to_be_visible()
