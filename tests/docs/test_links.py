"""Each link inside the repository leads to an existing file, and to a heading in it."""

import re
from pathlib import Path

import pytest

from ..processes import ROOT

PAGES = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", ".github/**/*.md", "deploy/**/*.md")
    for path in ROOT.glob(pattern)
)

_FENCED = re.compile(r"^```.*?^```$|^    .*?$", re.M | re.S)
_CODE = re.compile(r"``.+?``|`[^`\n]+`")
_LINK = re.compile(r"\]\(([^)\s]+)\)")


def links(page: Path) -> list[str]:
    text = _CODE.sub("", _FENCED.sub("", page.read_text()))
    return [link for link in _LINK.findall(text) if not re.match(r"[a-z]+:", link)]


def anchors(page: Path) -> set[str]:
    """Return the names that GitHub gives to the headings of *page*."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.*)$", _FENCED.sub("", page.read_text()), re.M):
        words = re.sub(r"[^\w\- ]", "", heading.strip().lower())
        name = words.replace(" ", "-")
        # A heading that is there twice has a number.
        found.add(next(n for n in (name, *(f"{name}-{i}" for i in range(1, 9))) if n not in found))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_each_link_leads_somewhere(page: Path) -> None:
    for link in links(page):
        file, _, heading = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), f"{link}: there is no {target}"
        if heading:
            assert heading in anchors(target), f"{link}: {target.name} has no such heading"


def test_each_picture_is_on_a_page() -> None:
    linked = {(page.parent / link).resolve() for page in PAGES for link in links(page)}
    assert [path for path in (ROOT / "docs" / "images").iterdir() if path not in linked] == []


def test_a_link_and_a_heading_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Why a `with`, and not two\n\n[here](#why-a-with-and-not-two) `[no](x)`\n")
    assert links(page) == ["#why-a-with-and-not-two"]
    assert anchors(page) == {"why-a-with-and-not-two"}
