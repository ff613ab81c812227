"""The diagram of the architecture page is that of the tree."""

import os
import re

from ..processes import ROOT
from .blocks import fill
from .modules import OUTSIDE, diagram

PAGE = ROOT / "docs" / "architecture.md"


def test_the_diagram_is_the_trees() -> None:
    drawn = diagram()
    if not os.environ.get("CI"):
        PAGE.write_text(fill(PAGE.read_text(), {"imports": drawn}))
    block = re.search(
        r"<!-- run: imports -->\n```mermaid\n(.*?)^```$", PAGE.read_text(), re.M | re.S
    )
    assert block is not None
    assert block[1] == drawn, "stale: run `make pages`"


def test_the_library_knows_nothing_of_the_system_that_it_is_shown_in() -> None:
    arrows = re.findall(r"^  (\w+) --> (\w+)$", diagram(), re.M)
    assert arrows
    assert not [arrow for arrow in arrows if arrow[0] not in OUTSIDE and arrow[1] in OUTSIDE]
