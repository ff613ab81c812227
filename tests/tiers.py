"""The quick tier: every test that starts no process, found by its fixtures and its module."""

import subprocess

import pytest
from hypothesis import settings

from . import processes

#: Fixtures that start a process, and pytest's own that does.
_STARTING = frozenset(
    {
        "broker_server", "chromium", "prefork_worker", "pytester", "rabbitmq", "shared_start",
        "solo_worker", "sound", "start_viewer",
    }
)  # fmt: skip

#: Names in the namespace of a module whose tests start processes.
_MODULES = (subprocess, processes)

#: The examples of a property in the quick tier.
FEW = 20

settings.register_profile("full", deadline=None)
settings.register_profile("quick", deadline=None, max_examples=FEW)


def examples(count: int) -> settings:
    """Return the settings of a property with *count* examples, in the quick tier with few."""
    # A profile does not apply to a number in a decorator.
    is_quick = settings.default is not None and settings.default.max_examples == FEW
    return settings(max_examples=FEW if is_quick else count)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "quick: needs no process of its own: make quick")
    quick = config.getoption("markexpr") == "quick"
    settings.load_profile("quick" if quick else "full")
    if quick:
        processes.Process.__init__ = _refuse  # type: ignore[method-assign]


def _refuse(_: processes.Process, argv: list[str], *__: object, **___: object) -> None:
    raise AssertionError(
        f"{argv[0]} is started in the quick tier: add its fixture to tests/tiers.py"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if isinstance(item, pytest.Function) and not starts_processes(item):
            item.add_marker(pytest.mark.quick)


def starts_processes(item: pytest.Function) -> bool:
    """Return whether *item* starts a process, by its fixtures or by the imports of its module."""
    if not _STARTING.isdisjoint(item.fixturenames):
        return True
    return any(
        value in _MODULES or getattr(value, "__module__", None) == processes.__name__
        for value in vars(item.module).values()
        if isinstance(value, type | type(subprocess)) or callable(value)
    )
