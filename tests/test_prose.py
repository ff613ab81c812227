"""The linter of prose finds forbidden phrases in pages and in source, and none in code."""

import subprocess
import sys
from pathlib import Path

import pytest

from .processes import ROOT

pytest.importorskip("proselint", reason="proselint cannot be installed on this Python")

PAGE = """\
# Who sends spans

What a process has ended is delivered. Who sends it? The broker is away.

    the broker is away

`the broker is away` and there is no broker.

```python
# the broker is away
```

It is no broker.
"""

SOURCE = '''\
"""The broker is down.

Who reads this knows more.
"""

limit = 1  # done in vain
logger.warning("%s: the store is away", name)
'''


def lint(path: Path) -> list[str]:
    command = [sys.executable, str(ROOT / ".ci" / "prose.py"), str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.stderr == ""
    assert done.returncode == bool(done.stdout)
    return [line.removeprefix(f"{path}:") for line in done.stdout.splitlines()]


def test_a_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    found = lint(page)
    assert [line.partition(":")[0] for line in found] == ["3", "3", "13"]
    assert "[plain.subject]" in found[0]
    assert '"is away": write: is down' in found[1]
    assert '"is no broker"' in found[2]


def test_source(tmp_path: Path) -> None:
    source = tmp_path / "source.py"
    source.write_text(SOURCE)
    found = lint(source)
    assert sorted(line.partition(":")[0] for line in found) == ["3", "6", "7"]


def test_plain_english_passes(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# What it costs\n\nIf a store is down, its span is an error.\n")
    assert lint(page) == []
