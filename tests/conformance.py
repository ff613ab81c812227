"""Write docs/conformance.md: how a message may end, and the pools and brokers of the tests.

``@pytest.mark.conformance(row)`` names the row that a test proves, and the worker that the test
starts determines the column. `make pages` writes the page. A run of all of these tests fails if the
page is stale.
"""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import pytest

from .page import Page

__all__ = ["ran_on"]

PAGE = Path(__file__).parent.parent / "docs" / "conformance.md"

#: The span model's second table, and what belongs to it.
ROWS = (
    "success",
    "exception",
    "exception listed in `throws`",
    "retry",
    "retry with another countdown and queue",
    "`autoretry_for`, and retries that run out",
    "`Ignore`",
    "chain",
    "chain of 50",
    "group",
    "chord",
    "chord of 200",
    "chord of chords",
    "link and link_error",
    "replace",
    "send_task of a task that the producer does not have",
    "nested delay",
    "map, starmap, chunks",
    "eager",
    "beat",
    "soft time limit",
    "hard time limit",
    "child killed",
    "child killed between its last span and its result",
    "redelivered by the task",
    "redelivered after a lost worker",
    "redelivered after the visibility timeout",
    "expired",
    "revoked before it ran",
    "revoked while running",
    "rejected",
    "unknown task",
    "undecodable body",
    "a message that names no task",
    "publish failed",
    "sampled out",
    "relation: link",
    "relation chosen by the message",
    "waits against a known schedule",
    "clock of the producer ahead",
    "thousands of tasks at once",
)

PLACES = (
    "prefork, Redis",
    "solo, Redis",
    "threads, Redis",
    "gevent, Redis",
    "prefork, RabbitMQ",
    "no worker",
)

HEAD = """\
# Conformance

Each row is a way in which a message may end. A ✓ is a test that passed: it starts a real `celery
worker` with this pool and broker, publishes the message, and checks the spans that arrive. An empty
cell was not tested. `make pages` writes this page; a test fails if it is stale.

Killed children and time limits need a pool with processes. Chords need a result backend that counts
the parts, so the tests on RabbitMQ use Redis for results.

"""


def ran_on(node: pytest.Item, pool: str, broker: str) -> None:
    """Note that the test *node* has started a worker with *pool* on *broker*."""
    node.user_properties.append(("place", f"{pool}, {broker}"))


class Conformance(Page):
    """The places where a test of each row has passed."""

    mark = "conformance"
    path = PAGE

    def __init__(self, config: pytest.Config) -> None:
        super().__init__(config)
        self._found: dict[str, set[str]] = defaultdict(set)

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        for mark in item.iter_markers("conformance"):
            assert mark.args[0] in ROWS, f"no such row: {mark.args[0]}"
            item.user_properties.append(("conformance", mark.args[0]))

    def add(self, report: pytest.TestReport, row: object) -> None:
        places = [value for name, value in report.user_properties if name == "place"]
        self._found[str(row)].update(map(str, places or ["no worker"]))

    def render(self) -> str:
        return render(self._found)


def render(found: Mapping[str, set[str]]) -> str:
    """Return the page for the places *found* for each row."""
    missing = [row for row in ROWS if not found.get(row)]
    assert not missing, f"rows that no test proves: {missing}"
    lines = [
        "| how a message ends | " + " | ".join(PLACES) + " |",
        "|---|" + ":-:|" * len(PLACES),
    ]
    for row in ROWS:
        assert found[row] <= set(PLACES), found[row]
        marks = ("✓" if place in found[row] else "" for place in PLACES)
        lines.append(f"| {row} | " + " | ".join(marks) + " |")
    return HEAD + "\n".join(lines) + "\n"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "conformance(row): proves a row of docs/conformance.md")
    config.pluginmanager.register(Conformance(config), "queuehop-conformance")
