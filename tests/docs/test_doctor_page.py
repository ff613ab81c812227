"""docs/doctor.md and docs/messages.md name every finding that the doctor can report."""

import re
import textwrap

from ..processes import ROOT

#: Words with hyphens in the doctor's source that are not codes.
NOT_CODES = {"site-packages"}


def test_the_pages_name_every_finding() -> None:
    source = "".join(path.read_text() for path in (ROOT / "telemetry" / "doctor").glob("*.py"))
    codes = set(re.findall(r'"([a-z]+(?:-[a-z\d]+)+)"', source)) - NOT_CODES
    codes |= {"flask-not-loadable", "celery-not-loadable"}
    codes |= {f"set-up-only-in-{where}" for where in ("parent", "children")}
    page = (ROOT / "docs" / "doctor.md").read_text()
    findings = page.split("## Findings")[1].split("## ")[0]
    assert set(re.findall(r"`([a-z]+(?:-[a-z\d]+)+)`", findings)) - {"queuehop-doctor"} == codes
    messages = (ROOT / "docs" / "messages.md").read_text()
    rows = re.findall(r"^\| `([a-z\d…]+(?:-[a-z\d…]+)+)` \|", messages, re.M)
    patterns = [re.compile(row.replace("…", "[a-z]+")) for row in rows]
    assert [c for c in sorted(codes) if not any(p.fullmatch(c) for p in patterns)] == []


def test_the_example_is_the_guides_run() -> None:
    page = (ROOT / "docs" / "doctor.md").read_text()
    guide = (ROOT / "docs" / "guide.md").read_text()
    (example,) = re.findall(r"^    The first problem is at: .*\n(?:    .+\n)+", page, re.M)
    assert textwrap.dedent(example) in guide
