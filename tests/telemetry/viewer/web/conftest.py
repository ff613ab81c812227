"""A real browser, whose pages must log no error."""

import os
import re
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

from ....processes import PATIENCE
from ..conftest import Viewer


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """A browser for all the tests of pages."""
    path = shutil.which("chromium")
    if path is None:
        if os.environ.get("CI"):
            pytest.fail("CI must install Chromium")
        pytest.skip("Chromium is not installed")
    expect.set_options(timeout=PATIENCE * 1000)
    with sync_playwright() as running:
        options = ["--no-sandbox", "--disable-background-networking"]
        browser = running.chromium.launch(executable_path=path, args=options)
        yield browser
        browser.close()


@pytest.fixture
def page(chromium: Browser, viewer: Viewer) -> Iterator[Page]:
    """A page of the viewer, which must log no error."""
    context = chromium.new_context(base_url=viewer.url, viewport={"width": 1280, "height": 800})
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = context.new_page()
    said: list[str] = []

    def note(line: ConsoleMessage) -> None:
        # The browser has a line of its own for each answer 400, as to a wrong search, or 503.
        if line.type == "error" and not re.search("status of (400|503)", line.text):
            said.append(line.text)

    page.on("console", note)
    page.on("pageerror", lambda error: said.append(str(error)))
    yield page
    context.close()
    assert said == []
