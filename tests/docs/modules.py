"""The modules of this repository and which of them import which, read from the source."""

import ast
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

from ..processes import ROOT

#: The packages beside the library, which use it.
OUTSIDE = ("app", "workers")

#: The parts of the library, from top to bottom: a part imports only those below it.
ORDER = (
    *("__main__", "doctor", "celery", "flask", "requests", "testing", "selfcheck", "setup"),
    *("viewer", "export", "otlp", "propagation", "tracing", "config"),
)

LIBRARY = "telemetry"

Graph = Mapping[str, set[str]]


@cache
def modules() -> dict[str, Path]:
    """Return all modules by name."""
    found = {}
    for package in (*OUTSIDE, LIBRARY):
        for path in sorted((ROOT / package).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = path
    return found


@cache
def imports() -> dict[str, set[str]]:
    """Return the modules that each module imports: anywhere in it, also for its types alone."""
    return {module: _imports(module, path) for module, path in modules().items()}


def _imports(module: str, path: Path) -> set[str]:
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.rsplit(".", node.level - 1)[0] if node.level else ""
            origin = ".".join(filter(None, [above, node.module]))
            for alias in node.names:
                # An import is of a module, or of a name in one.
                name = f"{origin}.{alias.name}"
                found.add(name if name in modules() else origin)
    return {name for name in found if name in modules()} - {module}


def part(module: str) -> str:
    """Return the part that *module* belongs to: a folder, or a file beside the folders."""
    package, _, rest = module.partition(".")
    return package if package in OUTSIDE or not rest else rest.partition(".")[0]


def parts(graph: Graph) -> dict[str, set[str]]:
    """Return the parts that each part imports."""
    found: dict[str, set[str]] = defaultdict(set)
    for module, imported in graph.items():
        found[part(module)] |= set(map(part, imported)) - {part(module)}
    return dict(found)


def circle(graph: Graph) -> list[str]:
    """Return a path in *graph* that ends where it began, empty if there is none."""
    done: set[str] = set()

    def search(node: str, path: list[str]) -> list[str]:
        if node in path:
            return [*path[path.index(node) :], node]
        if node not in done:
            for other in sorted(graph.get(node, ())):
                if found := search(other, [*path, node]):
                    return found
            done.add(node)
        return []

    return next((found for node in sorted(graph) if (found := search(node, []))), [])


def upwards(arrows: Iterable[tuple[str, str]], order: tuple[str, ...]) -> list[tuple[str, str]]:
    """Return those of *arrows* that lead from a lower part in *order* to a higher one."""
    return [(one, other) for one, other in arrows if order.index(other) < order.index(one)]


def diagram() -> str:
    """Return a Mermaid flowchart: a box for each part, an arrow to each part that it imports."""
    arrows = parts(imports())
    # Every part may use the library's own functions. They are those of setup and propagation.
    inside = [name for name in ORDER if name in arrows]
    lines = ["flowchart TD", f'  subgraph {LIBRARY}["telemetry: the library"]']
    lines += [f"    {name}" for name in inside]
    lines += ["  end"]
    lines += [
        f"  {name} --> {other}"
        for name in (*OUTSIDE, *inside)
        for other in sorted(arrows[name] - {LIBRARY})
    ]
    return "\n".join(lines) + "\n"
