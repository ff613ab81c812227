"""The texts that the source logs, raises and reports, as docs/messages.md lists them."""

import ast
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeGuard

from ..processes import ROOT

_LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}

#: The functions that make texts, and the index of the argument that is the text.
_TEXTS = {"reject": 1, "NotFound": 0, "CannotStart": 0, "Malformed": 0, "TooLarge": 0, "Busy": 0}

_INTERNAL = "tracing could not {}; the application is unharmed"


def texts(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield each text in the Python files below *folder*, after its kind: log, fault or error."""
    for node in _nodes(folder):
        if isinstance(node, ast.Call):
            yield from _of_call(node)
        elif isinstance(node, ast.Raise) and _raises_text(node.exc):
            yield from (("error", text) for (text,) in _texts(node.exc.args[:1], 3))


def findings(folder: Path) -> Iterator[tuple[str, ...]]:
    """Yield code, problem and remedy of each finding in the files below *folder*."""
    for node in _nodes(folder):
        if isinstance(node, ast.Call) and _name(node) in ("Finding", "Broken"):
            first = 2 if _name(node) == "Finding" else 1
            yield from _texts([node.args[0], *node.args[first : first + 2]], 1)


def _nodes(folder: Path) -> Iterator[ast.AST]:
    for path in sorted(folder.rglob("*.py")):
        yield from ast.walk(ast.parse(path.read_text()))


def _raises_text(exc: ast.expr | None) -> TypeGuard[ast.Call]:
    return isinstance(exc, ast.Call) and _name(exc) not in ("Finding", "Broken", *_TEXTS)


def _of_call(node: ast.Call) -> Iterator[tuple[str, str]]:
    name = _name(node)
    if isinstance(node.func, ast.Attribute) and name in _LEVELS and "log" in ast.dump(node.func):
        yield from (("log", text) for (text,) in _texts(node.args[:1], 1))
    elif name == "log_internal_error":
        yield from (("fault", _INTERNAL.format(text)) for (text,) in _texts(node.args[:1], 1))
    elif name in _TEXTS:
        kind, first = "setting" if name == "reject" else "error", _TEXTS[name]
        yield from ((kind, text) for (text,) in _texts(node.args[first : first + 1], 3))


def _name(node: ast.Call) -> str:
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def _texts(nodes: Sequence[ast.expr], least: int) -> Iterator[tuple[str, ...]]:
    """Yield the texts of *nodes* for each outcome of their conditions.

    The first has *least* words or more. ``…`` is a value that the source does not show.
    """
    every = [each for node in nodes for each in ast.walk(node)]
    tests = dict.fromkeys(ast.dump(each.test) for each in every if isinstance(each, ast.IfExp))
    for outcome in itertools.product((True, False), repeat=len(tests)):
        found = [_text(node, dict(zip(tests, outcome, strict=True))) for node in nodes]
        if found and len(re.findall(r"[A-Za-z]{2,}", found[0])) >= least:
            yield tuple(" ".join(text.replace("|", "\\|").split()) for text in found)


def _text(node: ast.expr, outcome: Mapping[str, bool]) -> str:
    match node:
        case ast.IfExp():
            return _text(node.body if outcome[ast.dump(node.test)] else node.orelse, outcome)
        case ast.BinOp(op=ast.Add()):
            return _text(node.left, outcome) + _text(node.right, outcome)
        case ast.BoolOp():
            return _text(node.values[-1], outcome)
        case ast.Constant(value=str(text)):
            return re.sub(r"%[-+.\d]*[sdrfg]", "…", text)
        case ast.JoinedStr():
            parts = (p.value if isinstance(p, ast.Constant) else "…" for p in node.values)
            return "".join(map(str, parts))
    return "…"


SOURCE = ROOT / "telemetry"

HEAD = """\
# Messages

To find a log line, an error or a finding, search this page for a few words of its text. `…` is a
value that varies. A test takes the texts from the source, and fails if one has no row here.

"""

#: The kind of each section, its heading, its first lines, and its columns.
SECTIONS = (
    (
        "log",
        "Log lines",
        "The logger is `telemetry`. It writes the same line at most once a minute.",
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


#: A dict, a call, and a word or URL with characters that Markdown would interpret.
_CODE = re.compile(
    r"(?:\w+=)?\{.*?\}"
    r"|[\w.…]+\((?:[^()]|\(\))*\)(?:\.[\w…]+(?:\(\))?)*"
    r"|[^\s(]*(?:[*_<>\[\]=]|://)[^\s,;)]*(?<![.:])"
)


def render(page: str) -> tuple[str, list[str]]:
    """Return the page for today's source, and the texts without cause or remedy in *page*."""
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
    rows = sorted({(c, p, _plain(r) if r != "…" else _remedy(c)) for c, p, r in _findings()})
    parts += [FINDINGS, *(f"| `{c}` | {_code(p)} | {r} |\n" for c, p, r in rows)]
    return "".join(parts), missing


def _findings() -> Iterator[tuple[str, ...]]:
    """Yield the findings; one whose remedy depends on a value only if it has no other remedy."""
    found = set(findings(SOURCE / "doctor"))
    with_remedy = {(code, problem) for code, problem, remedy in found if remedy != "…"}
    return (f for f in found if f[2] != "…" or f[:2] not in with_remedy)


def _remedy(code: str) -> str:
    """Return the remedy that docs/doctor.md has for *code*."""
    page = (ROOT / "docs" / "doctor.md").read_text()
    rows = re.findall(r"^\| (`.+) \| (.+) \|$", page, re.M)
    return next(remedy for codes, remedy in rows if code.strip("…") in codes)


def _code(text: str) -> str:
    return f"`{text}`" if "`" not in text else f"`` {text} ``"


def _plain(text: str) -> str:
    """Return *text* with its code marked, so that Markdown shows it unchanged."""
    return _CODE.sub(r"`\g<0>`", text)
