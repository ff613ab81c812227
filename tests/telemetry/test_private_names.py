"""No file except config/sdk.py uses a private name of OpenTelemetry, as the source shows."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import telemetry

ROOT = Path(telemetry.__file__).parent
SOURCES = [path for path in sorted(ROOT.rglob("*.py")) if path != ROOT / "config" / "sdk.py"]

#: Private names of others than OpenTelemetry, and one of named tuples that is public.
OTHERS = {
    "_replace",
    "_get_current_object",  # Celery's and Flask's proxies
    "_exit",  # os, documented
    "_is_gil_enabled",  # sys, documented
    "_success_was_stored",  # Celery's Request
    "_already_revoked",
    "_already_cancelled",
    "_get_active_apps",
    "_on_app_finalizers",  # Celery's tasks of shared_task: only the doctor looks for them
    "_broadcast",  # kombu's Mailbox
    "_chord_part_return_script",  # Celery's backend for Redis
    "_thread",  # a module of the standard library, documented
    "_is_instrumented_by_opentelemetry",  # a mark on a Flask app: only the doctor looks for it
}


def private_names(path: Path) -> Iterator[str]:
    """Yield the private names of others that *path* uses."""
    tree = ast.parse(path.read_text())
    own = set(defined(tree)) | OTHERS
    for node in ast.walk(tree):
        for name in used(node):
            if is_private(name) and name not in own:
                yield f"{path}:{getattr(node, 'lineno', 0)}: {name}"


def used(node: ast.AST) -> Iterator[str]:
    """Yield the names that may be of another package: attributes, names in a getattr, imports."""
    if isinstance(node, ast.Attribute):
        yield node.attr
    elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("getattr", "hasattr"):
        yield from (arg.value for arg in node.args[1:2] if isinstance(arg, ast.Constant))
    elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("opentelemetry"):
        yield from (part for part in node.module.split(".") if part != "_incubating")  # type: ignore[union-attr]
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.Import):
        yield from (part for alias in node.names for part in alias.name.split("."))


def defined(tree: ast.AST) -> Iterator[str]:
    """Yield the private names that the classes and functions of a module define themselves."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            if getattr(node.value, "id", "") == "self":
                yield node.attr
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__slots__":
            yield from ast.literal_eval(node.value)


def is_private(name: object) -> bool:
    return isinstance(name, str) and name.startswith("_") and not name.startswith("__")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_private_name_of_another_is_used(path: Path) -> None:
    assert not list(private_names(path))


def test_private_names_are_found(tmp_path: Path) -> None:
    source = tmp_path / "source.py"
    source.write_text("""
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk.trace import _Span
from opentelemetry.semconv._incubating.attributes.host_attributes import HOST_NAME
import opentelemetry.sdk._events

class Own:
    __slots__ = ("_slot",)

    def __init__(self):
        self._own = self._slot = 1

    def method(self, other, provider):
        provider._active_span_processor
        getattr(provider, "_span_limits", None)
        other._own, other._slot, provider._get_current_object()
""")
    found = [line.rpartition(" ")[2] for line in private_names(source)]
    assert sorted(found) == [
        "_Span", "_active_span_processor", "_events", "_logs", "_span_limits",
    ]  # fmt: skip
