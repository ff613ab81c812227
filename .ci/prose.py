"""Lint the prose of pages, docstrings, comments and messages: proselint's checks and our own.

``python .ci/prose.py`` checks the repository, ``python .ci/prose.py FILE …`` some files. It prints
each problem as ``file:line: problem`` and exits with status 1 if there is any. Our own checks are
the rules for plain English that a pattern can find.
"""

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

try:
    from proselint import registry as linter
    from proselint.checks import __register__ as theirs
    from proselint.config import DEFAULT, Config
    from proselint.tools import LintFile
except ModuleNotFoundError as exc:
    if exc.name != "proselint":
        raise
    print("The prose is not checked: proselint cannot be installed on this Python.")
    sys.exit(0)

ROOT = Path(__file__).parent.parent

#: The prose that is checked.
PATHS = (
    "*.md",
    "docs/*.md",
    "docs/**/*.py",
    "docs/by_hand/*.md",
    "app/*.py",
    "bench/*.py",
    "deploy/*.py",
    "telemetry/**/*.py",
    "tests/**/*.py",
    "workers/*.py",
)

#: What to write instead of a phrase.
INSTEAD = {
    r"(?:is|are|was|were|be|been|being) away": "write: is down",
    r"can(?:not)? be told": "write: can determine, can distinguish",
    r"can(?:not)? be had": "write: is available",
    r"what (?:comes|came) of": "write: the result of",
    r"(?:is|are|was|were) said": "write: is logged, is reported",
    r"not spoken": "write: not supported",
    r"in vain": "write: without success",
    r"at hand": "write: available",
    r"of (?:which|whom)": "split the sentence",
    r"anew": "write: again",
    r"all the same": "write: still",
    r"(?<!there )(?<!There )is no (?!longer)[a-z]+": "write: is not a",
    r"what is (?:more|worse)": "leave it out",
    r"stands? (?:in|for|beside|between|on|there)": "write: is",
    r"hand(?:s|ed|ing)? (?:it|them|these|its own headers|the context) on": "write: pass on",
    r"hand(?:s|ed|ing)? on": "write: pass on",
    r"so long as": "write: while",
    r"for as long as": "write: while",
    r"who(?:so)?ever": "name the subject",
    r"of nobody": "name the subject",
    r"those who": "name the subject",
    r"on (?:its|their) way": "write: being sent, being processed",
    r"for good(?! reason)": "write: forever",
    r"as (?:it|they) stands?": "write: unchanged",
    r"time-outs?": "write: timeout",
}

#: A sentence whose subject is a clause. A question may begin like this, and so may a heading.
CLAUSE = (
    r"(?:\A|[.!?]\s+|\n\s*\n)[\s*>|-]*"
    r"(?:What|Who|Whoever|That which) (?:[^.?!:|\n]|\n[^\n])+[.:]"
)

Check, types = linter.checks.Check, linter.checks.types

OURS = (
    Check(
        types.PreferredForms(INSTEAD),
        linter.checks.engine.Fancy(),
        path="plain.phrases",
        message='"{1}": {0}',
    ),
    Check(
        types.Existence((CLAUSE,), padding=types.Padding.RAW),
        path="plain.subject",
        message="name the subject first: {0}",
    ),
)

#: Code has straight quotes and its own names.
OFF = ("typography", "misc.waxed", "restricted", "lexical_illusions", "misc.phrasal_adjectives")

_FENCE = re.compile(r"^```.*?^```$", re.M | re.S)
_HIDDEN = re.compile(r"<!--[^>]*-->|^    [^\n]*$", re.M)
_CODE = re.compile(r"``.+?``|`[^`\n]+`")
_LINK = re.compile(r"\]\([^)]+\)")


def main(given: list[str]) -> int:
    paths = [Path(each) for each in given] or list(_all())
    linter.CheckRegistry().register_many((*theirs, *OURS))
    checks = dict.fromkeys(("plain", *(name for name in DEFAULT["checks"])), True)
    checks.update({name: False for name in checks if name.startswith(OFF)})
    checks.update(dict.fromkeys(OFF, False))
    ordered = dict(sorted(checks.items(), key=lambda item: item[0].count("."), reverse=True))
    found = 0
    for path in paths:
        text = (
            page(path.read_text()) if path.suffix == ".md" else "\n".join(source(path.read_text()))
        )
        if not text.strip():
            continue
        file = LintFile(str(path), text)
        for result, _ in file.lint(Config(max_errors=1000, checks=ordered)):
            found += 1
            begin = result.span[0]
            while file.content[begin] in " \n.!?*>|-":
                begin += 1
            line = file.content.count("\n", 0, begin)
            print(f"{path}:{line}: {' '.join(result.message.split())} [{result.check_path}]")
    return 1 if found else 0


def _all() -> Iterator[Path]:
    for pattern in PATHS:
        for path in sorted(ROOT.glob(pattern)):
            # The tests of other products have environments; one test has bad examples.
            if ".venv" not in path.parts and path.name != "test_prose.py":
                yield path.relative_to(ROOT)


def page(text: str) -> str:
    """Return the prose of a Markdown page, each line where it is."""
    for hidden in (_FENCE, _HIDDEN):
        text = hidden.sub(lambda match: "\n" * match[0].count("\n"), text)
    return _LINK.sub("]", _CODE.sub("code", text))


def source(text: str) -> list[str]:
    """Return the docstrings, comments and messages of Python source, each line where it is."""
    lines = [""] * (text.count("\n") + 2)
    for number, prose in _pieces(text):
        for offset, line in enumerate(_CODE.sub("code", prose).splitlines()):
            if number + offset < len(lines):
                lines[number + offset] += line.strip() + " "
    return lines[1:]


def _pieces(text: str) -> Iterator[tuple[int, str]]:
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string.lstrip("#:! ")
    inside: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.JoinedStr):
            inside.update(id(part) for part in node.values)
            yield (
                node.lineno,
                "".join(
                    part.value if isinstance(part, ast.Constant) else "code" for part in node.values
                ),
            )
        elif (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in inside
        ) and len(node.value.split()) > 2:
            yield node.lineno, node.value


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
