"""No ``except`` around tracing swallows a soft time limit, as the source shows."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import telemetry

ROOT = Path(telemetry.__file__).parent
PLACES = (
    "tracing",
    "propagation",
    "celery",
    "export",
    "otlp",
    "flask.py",
    "requests.py",
    "setup.py",
)

#: Functions that run in the sender, in a worker's main process or in a thread of our own.
NOT_IN_A_TASK = {
    "celery/probe.py": {"_backend"},
    "export/memory.py": {"_interpret"},
    "export/outgoing.py": {"outgoing"},
    "export/sender/transport.py": {"export"},
    "export/spool/reader.py": {"read"},
}

#: Classes that include a soft time limit, which is an Exception.
TOO_MUCH = {"Exception", "BaseException"}


def sources() -> Iterator[Path]:
    for place in PLACES:
        path = ROOT / place
        yield from sorted(path.rglob("*.py")) if path.is_dir() else [path]


def swallowed(path: Path) -> Iterator[str]:
    """Yield the places where *path* swallows every exception."""
    exempt = NOT_IN_A_TASK.get(str(path.relative_to(ROOT)), set())
    for function in ast.walk(ast.parse(path.read_text())):
        if not isinstance(function, ast.FunctionDef) or function.name in exempt:
            continue
        for node in ast.walk(function):
            if isinstance(node, ast.ExceptHandler) and catches_all(node) and not passes_on(node):
                yield f"{path}:{node.lineno}"
            if isinstance(node, ast.Call) and name_of(node.func) == "suppress":
                yield from (
                    f"{path}:{node.lineno}" for arg in node.args if name_of(arg) in TOO_MUCH
                )


def catches_all(handler: ast.ExceptHandler) -> bool:
    if handler.type is None:
        return True
    caught = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(name_of(each) in TOO_MUCH for each in caught)


def passes_on(handler: ast.ExceptHandler) -> bool:
    return any(
        isinstance(node, ast.Raise)
        or (isinstance(node, ast.Call) and name_of(node.func) == "log_internal_error")
        for node in ast.walk(handler)
    )


def name_of(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


@pytest.mark.parametrize("path", list(sources()), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_exception_is_logged_or_raised_again(path: Path) -> None:
    assert not list(swallowed(path))


def test_the_exempt_functions_are_there() -> None:
    for name, functions in NOT_IN_A_TASK.items():
        tree = ast.parse((ROOT / name).read_text())
        assert functions <= {getattr(node, "name", "") for node in ast.walk(tree)}


def test_swallowing_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    source = tmp_path / "source.py"
    source.write_text("""
def swallows():
    try: pass
    except Exception: pass
    try: pass
    except (KeyError, BaseException): pass
    try: pass
    except: pass
    with contextlib.suppress(Exception): pass
    try: pass
    except OSError: pass
""")
    assert len(list(swallowed(source))) == 4
