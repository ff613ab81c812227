"""docs/messages.md has every text that the library logs, raises or reports, with a remedy."""

from ..processes import ROOT
from .blocks import WRITE
from .messages import render

PAGE = ROOT / "docs" / "messages.md"


def test_the_page_has_every_message() -> None:
    page = PAGE.read_text() if PAGE.exists() else ""
    rendered, missing = render(page)
    if WRITE:
        PAGE.write_text(rendered)
    else:
        assert page == rendered, "docs/messages.md is stale: run `make pages`"
    assert not missing, f"write cause and remedy into docs/messages.md for: {missing}"
