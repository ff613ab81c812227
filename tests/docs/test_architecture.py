"""The diagram of the architecture page is that of the tree, and its arrows point down."""

import re
from collections import Counter

from ..processes import ROOT
from .blocks import WRITE, fill
from .modules import (
    LIBRARY,
    ORDER,
    OUTSIDE,
    circle,
    diagram,
    imports,
    modules,
    part,
    parts,
    upwards,
)

PAGE = ROOT / "docs" / "architecture.md"


def test_the_diagram_is_the_trees() -> None:
    drawn = diagram()
    if WRITE:
        PAGE.write_text(fill(PAGE.read_text(), {"imports": drawn}))
    block = re.search(
        r"<!-- run: imports -->\n```mermaid\n(.*?)^```$", PAGE.read_text(), re.M | re.S
    )
    assert block is not None
    assert block[1] == drawn, "stale: run `make pages`"


def test_every_part_has_a_place_in_the_order() -> None:
    assert {part(module) for module in modules()} == {*ORDER, *OUTSIDE, LIBRARY}


def test_no_file_imports_itself_by_way_of_others() -> None:
    assert circle(imports()) == []


def test_no_part_imports_itself_by_way_of_others() -> None:
    assert circle(parts(imports())) == []


def test_no_two_modules_have_one_name() -> None:
    names = Counter(path.stem for path in modules().values() if path.stem != "__init__")
    # One has the headers of a Celery message, the other the template of its spans.
    assert {name for name, count in names.items() if count > 1} == {"message"}


def test_the_arrows_point_down() -> None:
    arrows = [
        (one, other)
        for one, others in parts(imports()).items()
        for other in others
        if one in ORDER and other != LIBRARY
    ]
    assert len(arrows) > 20
    # The library does not import the demo either.
    assert upwards(arrows, (*OUTSIDE, *ORDER)) == []


def test_the_library_itself_is_setup_and_propagation() -> None:
    assert parts(imports())[LIBRARY] == {"setup", "propagation"}


def test_the_sender_reads_what_the_spool_writes() -> None:
    """The application loads the spool, and the sender with gRPC is a process of its own."""
    spool, sender = "telemetry.export.spool", "telemetry.export.sender"
    arrows = {
        (one.rpartition(".")[0], other.rpartition(".")[0])
        for one, others in imports().items()
        for other in others
    }
    assert (sender, spool) in arrows
    assert (spool, sender) not in arrows


def test_what_leads_in_a_circle_or_upwards_is_named() -> None:
    graph = {"a": {"b"}, "b": {"c", "d"}, "c": set(), "d": {"b"}}
    assert circle(graph) == ["b", "d", "b"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []
    assert upwards([("a", "b"), ("b", "a")], ("a", "b")) == [("b", "a")]
