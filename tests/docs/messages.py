"""The texts that the source logs, raises and reports, as docs/messages.md lists them."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TypeGuard

from ..processes import ROOT

_LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}

#: What calls make texts, and which of their arguments is the text.
_TEXTS = {"reject": 1, "NotFound": 0, "CannotStart": 0, "Malformed": 0, "TooLarge": 0, "Busy": 0}

_INTERNAL = "tracing could not {}; the application is unharmed"


def texts(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield each text in the Python files below *folder*, after its kind: log, fault or error."""
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                yield from _of_call(node)
            elif isinstance(node, ast.Raise) and _raises_text(node.exc):
                yield from (("error", text) for text in _argument(node.exc, 0))


def findings(folder: Path) -> Iterator[tuple[str, str, str]]:
    """Yield code, problem and remedy of each finding in the files below *folder*."""
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and _name(node) in ("Finding", "Broken"):
                first = 2 if _name(node) == "Finding" else 1
                for code in _argument(node, 0, least=1):
                    for problem in _argument(node, first):
                        for remedy in _argument(node, first + 1, least=1) or [""]:
                            yield code, problem, remedy


def _raises_text(exc: ast.expr | None) -> TypeGuard[ast.Call]:
    return isinstance(exc, ast.Call) and _name(exc) not in ("Finding", "Broken", *_TEXTS)


def _of_call(node: ast.Call) -> Iterator[tuple[str, str]]:
    name = _name(node)
    if isinstance(node.func, ast.Attribute) and name in _LEVELS and "log" in ast.dump(node.func):
        yield from (("log", text) for text in _argument(node, 0))
    elif name == "log_internal_error":
        yield from (("fault", _INTERNAL.format(text)) for text in _argument(node, 0, least=1))
    elif name in _TEXTS:
        kind = "setting" if name == "reject" else "error"
        yield from ((kind, text) for text in _argument(node, _TEXTS[name]))


def _name(node: ast.Call) -> str:
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def _argument(node: ast.Call, index: int, least: int = 3) -> list[str]:
    """Return the texts that the argument may have, if they are of *least* words."""
    found = _values(node.args[index]) if index < len(node.args) else []
    return [text for text in found if len(re.findall(r"[A-Za-z]{2,}", text)) >= least]


def _values(node: ast.expr) -> list[str]:
    if isinstance(node, ast.IfExp):
        return [*_values(node.body), *_values(node.orelse)]
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        text = node.value
    elif isinstance(node, ast.JoinedStr):
        parts = (p.value if isinstance(p, ast.Constant) else "…" for p in node.values)
        text = "".join(map(str, parts))
    else:
        return []
    text = re.sub(r"%[-+.\d]*[sdrfg]", "…", text).replace("|", "\\|")
    return [" ".join(text.split())]


SOURCE = ROOT / "telemetry"

HEAD = """\
# Messages

To find a log line, an error or a finding, search this page for a few words of its text. `…` stands
for a value. A test takes the texts from the source, and fails if one has no row here.

"""

#: Kind and folders of each section, its heading, its first lines, and its columns.
SECTIONS = (
    (
        "log",
        "Log lines",
        "The logger is `telemetry`. It writes each line once a minute at most.",
        ("log line", "cause", "remedy"),
    ),
    (
        "setting",
        "Settings that cannot be used",
        "The log line begins with the name of the variable, and ends with what happens instead.",
        ("after the variable", "cause", "remedy"),
    ),
    (
        "fault",
        "Faults of tracing",
        "An exception inside the library never reaches your code. The log line has its traceback.\n"
        "Please report it, unless your own code raises it.",
        ("log line", "what is missing", "what raises it"),
    ),
    (
        "error",
        "Errors",
        "The library raises these, or its commands print them.",
        ("error", "cause", "remedy"),
    ),
)

FINDINGS = """\
## Findings of the doctor

[The doctor](doctor.md) lists the codes by the part of the system.

| code | problem | remedy |
|---|---|---|
"""


def render(page: str) -> tuple[str, list[str]]:
    """Return the page as the source has it, and the texts without cause or remedy in *page*."""
    written = {}
    for row in re.findall(r"^\| (.*) \|$", page, re.M):
        text, *cells = re.split(r"(?<!\\) \| ", row)
        if len(cells) == 2:
            written[text] = cells
    found: dict[str, set[str]] = {}
    for kind, text in texts(SOURCE):
        found.setdefault(kind, set()).add(text)
    parts, missing = [HEAD], []
    for kind, heading, first, columns in SECTIONS:
        lines = [f"| {' | '.join(columns)} |", "|---|---|---|"]
        for text in sorted(found[kind], key=str.lower):
            cells = written.get(_code(text), ["", ""])
            missing += [] if all(cells) else [text]
            lines.append(f"| {_code(text)} | {' | '.join(cells)} |")
        parts += [f"## {heading}\n\n{first}\n\n", "\n".join(lines), "\n\n"]
    rows = sorted(set(findings(SOURCE / "doctor")))
    parts += [FINDINGS, *(f"| `{c}` | {_code(p)} | {_plain(r) or '…'} |\n" for c, p, r in rows)]
    return "".join(parts), missing


def _code(text: str) -> str:
    return f"`{text}`" if "`" not in text else f"`` {text} ``"


def _plain(text: str) -> str:
    """Return *text* so that Markdown shows it as it is."""
    return re.sub(r"\S*(?:[*_<>\[\]]|://)\S*", r"`\g<0>`", text)
