"""The packages of this repository and who imports whom, out of the source."""

import ast
from collections import defaultdict
from pathlib import Path

from ..processes import ROOT

#: What is one box: a folder, or a file that is a subject of its own. The longest match wins.
BOXES = {
    "app": "app",
    "workers": "workers",
    "telemetry.flask": "flask",
    "telemetry.requests": "requests",
    "telemetry.celery": "celery",
    "telemetry.propagation": "propagation",
    "telemetry.hop": "hop",
    "telemetry.setup": "setup",
    "telemetry.otlp": "otlp",
    "telemetry.spool": "spool",
    "telemetry.memory": "memory",
    "telemetry.export": "memory",
    "telemetry.metrics": "memory",
    "telemetry.viewer": "viewer",
    "telemetry.doctor": "doctor",
    "telemetry.testing": "testing",
}


def diagram() -> str:
    """Return a Mermaid flowchart: a box for each part, an arrow from who imports to what."""
    arrows: dict[str, set[str]] = defaultdict(set)
    for path in sorted(ROOT.glob("[atw]*/**/*.py")):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        if (box := _box(module)) is None:
            continue
        arrows[box] |= {other for name in _imports(path, module) if (other := _box(name))} - {box}
    lines = ["flowchart TD", '  subgraph telemetry["telemetry: the library"]']
    lines += [f"    {box}" for box in dict.fromkeys(BOXES.values()) if box not in OUTSIDE]
    lines += ["  end"]
    lines += [f"  {box} --> {other}" for box in arrows for other in sorted(arrows[box])]
    return "\n".join(lines) + "\n"


OUTSIDE = ("app", "workers")


def _box(module: str) -> str | None:
    found = [name for name in BOXES if module == name or module.startswith(f"{name}.")]
    return BOXES[max(found, key=len)] if found else None


def _imports(path: Path, module: str) -> list[str]:
    """Return the modules, or names in them, that the file at *path* imports."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package.rsplit(".", node.level - 1)[0] if node.level > 1 else package
            origin = ".".join(filter(None, [base if node.level else "", node.module or ""]))
            found += [f"{origin}.{alias.name}" for alias in node.names]
    return found
