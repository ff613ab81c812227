"""The blocks of a page that a test writes: code from the source, and the output of a run.

The line above a fenced block has its mark: ``<!-- code: FILE SYMBOL -->``, ``<!-- code: FILE -->``
for a whole file, or ``<!-- run: NAME -->``.
"""

import ast
import os
import re
import textwrap
from collections.abc import Mapping
from pathlib import Path

from ..processes import ROOT

#: Whether to write the pages, as ``make pages`` does. Else a test fails if one is stale.
WRITE = bool(os.environ.get("QUEUEHOP_WRITE_PAGES"))

_BLOCK = re.compile(r"(<!-- (code|run): ([^>]+) -->\n```\w*\n)(.*?)^(```)$", re.M | re.S)

#: The parts of a text that differ between runs and machines.
_CHANGING = re.compile(
    r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b|\b[0-9a-f]{8,32}(\b|…)|[\d.]+"
)


def fill(page: str, seen: Mapping[str, str]) -> str:
    """Return *page* with the code of today's source, and with the outputs in *seen*.

    An output that differs in ids and numbers alone stays unchanged. Raises LookupError for a block
    without a source or an output.
    """

    def block(found: re.Match[str]) -> str:
        mark, kind, what, now, end = found.groups()
        if kind == "code":
            return f"{mark}{source(*what.split())}{end}"
        text = seen[what]
        return f"{mark}{now if steady(now) == steady(text) else text}{end}"

    return _BLOCK.sub(block, page)


def steady(text: str) -> str:
    """Return *text* without ids and numbers."""
    return _CHANGING.sub("0", text)


def source(path: str, symbol: str = "") -> str:
    """Return the code of *symbol* (a function, a class or ``a.b``), or the file at *path*."""
    text = (ROOT / path).read_text()
    if not symbol:
        return text
    node: ast.AST = ast.parse(text)
    for name in symbol.split("."):
        body = getattr(node, "body", [])
        found = next((each for each in body if getattr(each, "name", None) == name), None)
        if found is None:
            raise LookupError(f"{path} has no {symbol}")
        node = found
    assert isinstance(node, ast.FunctionDef | ast.ClassDef)
    first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
    lines = text.splitlines()[first - 1 : node.end_lineno]
    return textwrap.dedent("\n".join(lines)) + "\n"


class Page:
    """A page with blocks that tests check, or write if ``make pages`` runs them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen: dict[str, str] = {}

    def blocks(self, kind: str) -> dict[str, str]:
        """Return the text of each block of *kind*, ``code`` or ``run``, by its name."""
        found = _BLOCK.finditer(self.path.read_text())
        return {match[3]: match[4] for match in found if match[2] == kind}

    def show(self, name: str, text: str) -> None:
        """Assert that the block *name* has *text*, or note the text for ``write``."""
        self._seen[name] = text
        if not WRITE:
            shown = self.blocks("run").get(name)
            assert shown is not None, f"{self.path.name} has no block {name}"
            assert steady(shown) == steady(text), f"{name} is stale: run `make pages`"

    def write(self) -> None:
        """Write the noted texts, if there is one for each block and pages are written."""
        shown = self.blocks("run")
        if WRITE and set(shown) <= set(self._seen):
            self.path.write_text(fill(self.path.read_text(), self._seen))

    def check_code(self) -> None:
        """Assert that each block of code equals the source, or write it."""
        if WRITE:
            self.path.write_text(fill(self.path.read_text(), self.blocks("run")))
        code = self.blocks("code")
        assert code
        for what, text in code.items():
            assert text == source(*what.split()), f"{what} is stale: run `make pages`"
