"""Write docs/interop.md: the products that ran beside this library, and the results.

``@pytest.mark.interop(product, situation, outcome)`` names the row that a test proves. A test whose
row depends on its parameters has the bare mark, and calls ``note``. Several tests may prove one
row. `make pages` writes the page. A run of all of these tests fails if the page is stale.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Set
from pathlib import Path

import pytest

from ..page import Page

__all__ = ["ORDERS", "note"]

TESTS = Path(__file__).parent
ROOT = TESTS.parent.parent

#: The lock files of the environments that the tests use. The first that has a product counts.
LOCKS = (
    TESTS / "requirements-tracers.lock",
    TESTS / "requirements-batches.lock",
    ROOT / "requirements-dev.lock",
)

#: The names of products by the names of their packages, in the order of the page.
PRODUCTS = {
    "sentry-sdk": "Sentry",
    "ddtrace": "Datadog",
    "logfire": "Logfire",
    "opentelemetry-instrumentation": "OpenTelemetry contrib",
    "requests-mock": "requests-mock",
    "responses": "responses",
    "structlog": "structlog",
    "loguru": "Loguru",
    "python-json-logger": "python-json-logger",
    "celery-batches": "celery-batches",
    "celery-singleton": "celery-singleton",
    "celery-redbeat": "RedBeat",
    "flask-sock": "Flask-Sock",
    "gunicorn": "Gunicorn",
    "pyuwsgi": "uWSGI",
}

HEAD = """\
# Interop

Each row is a product that a test ran beside queuehop, and the result. The tests run tracers in a
real gunicorn and a real `celery worker`, and read the spans that an OTLP receiver got. `make
pages` writes this page; a test fails if it is stale.

"The whole trace" is the client's request, the SERVER span, the send and the run, each the child of
the one before, in one trace. "Set up" is when the other tracer was set up: before queuehop or
after it, in the web process and the worker, or in the worker only.

"""

#: Written by hand, since they are no part of ``make test``.
BACKENDS = TESTS / "backends.md"

#: Where a tracer was set up, in the order of the page.
ORDERS = ("before", "after", "worker only")


def note(
    node: pytest.Item, product: str, situation: str, outcome: str, order: str | None = None
) -> None:
    """Note that the test *node* proves a row, if it passes.

    *order* is one of ``ORDERS``, for a product that is set up like this library.
    """
    assert product in PRODUCTS, f"no such product: {product}"
    assert order is None or order in ORDERS, f"no such order: {order}"
    node.user_properties.append(("interop", (product, situation, outcome, order)))


class Interop(Page):
    """The rows whose tests have passed."""

    mark = "interop"
    path = ROOT / "docs" / "interop.md"

    def __init__(self, config: pytest.Config) -> None:
        super().__init__(config)
        #: The orders of set-up in which each product, situation and outcome was seen.
        self._found: dict[tuple[str, str, str], set[str]] = defaultdict(set)

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        for mark in item.iter_markers("interop"):
            if mark.args:
                note(item, *mark.args)

    def add(self, report: pytest.TestReport, row: object) -> None:
        assert isinstance(row, tuple | list)  # pytest-xdist makes lists of tuples
        product, situation, outcome, order = row
        self._found[product, situation, outcome].update([order] if order else [])

    def render(self) -> str:
        missing = set(PRODUCTS) - {product for product, _, _ in self._found}
        assert not missing, f"products that no test has used: {missing}"
        tracers = {product for (product, _, _), orders in self._found.items() if orders}
        return (
            f"{HEAD}## Tracers\n\n"
            + self._table(tracers, "product", "version", "situation", "set up", "result")
            + "\n## Libraries, Celery's extensions, servers\n\n"
            + self._table(PRODUCTS.keys() - tracers, "product", "version", "situation", "result")
            + "\n"
            + BACKENDS.read_text()
        )

    def _table(self, products: Set[str], *columns: str) -> str:
        """Return the rows of *products* as a table with these *columns*."""
        lines = [columns, ("---",) * len(columns)]
        for product in filter(products.__contains__, PRODUCTS):
            for row in sorted(row for row in self._found if row[0] == product):
                orders = [order for order in ORDERS if order in self._found[row]]
                cells = {
                    "product": PRODUCTS[product],
                    "version": version(product),
                    "situation": row[1],
                    "set up": ", ".join(orders),
                    "result": row[2],
                }
                lines.append(tuple(cells[column] for column in columns))
        return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def version(package: str) -> str:
    """Return the version of *package* in the first lock file that has it."""
    return next(_versions(package))


def _versions(package: str) -> Iterator[str]:
    for lock in LOCKS:
        if found := re.search(rf"^{re.escape(package)}==(\S+)", lock.read_text(), re.M):
            yield found[1]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "interop(product, situation, outcome): proves a row of docs/interop.md"
    )
    config.pluginmanager.register(Interop(config), "queuehop-interop")
