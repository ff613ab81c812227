"""Run a test marked ``alone`` by itself, while the others of a parallel run wait.

The mark is for tests that measure a time, or that need the whole machine to end in time. They run
first, in one process, so that the others wait once. The tests that use RabbitMQ follow, since each
process that runs one of them starts a server.
"""

import fcntl
from collections.abc import Generator

import pytest


class Turns:
    """The lock that each test has while it runs: shared, or alone."""

    def __init__(self, config: pytest.Config) -> None:
        directory = config.cache.mkdir("alone")
        self._door = (directory / "door").open("w")
        self._room = (directory / "room").open("w")
        self._alone = False

    @pytest.hookimpl(wrapper=True, tryfirst=True)  # before the clock of pytest-timeout is started
    def pytest_runtest_protocol(
        self, item: pytest.Item, nextitem: pytest.Item | None
    ) -> Generator[None, object, object]:
        if not self._alone:
            # Closed while a test waits to be alone: else other tests might always be running.
            fcntl.flock(self._door, fcntl.LOCK_EX)
            fcntl.flock(self._room, fcntl.LOCK_EX if is_alone(item) else fcntl.LOCK_SH)
            fcntl.flock(self._door, fcntl.LOCK_UN)
        try:
            return (yield)
        finally:
            # Emptying the room takes as long as the longest test in it: once for those in a row.
            self._alone = is_alone(item) and is_alone(nextitem)
            if not self._alone:
                fcntl.flock(self._room, fcntl.LOCK_UN)


def is_alone(item: pytest.Item | None) -> bool:
    return item is not None and item.get_closest_marker("alone") is not None


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: (is_alone(item), uses_rabbitmq(item)), reverse=True)


def uses_rabbitmq(item: pytest.Item) -> bool:
    # Some get the server by the name of a parameter.
    return "rabbitmq" in item.name or "rabbitmq" in getattr(item, "fixturenames", ())


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "alone: runs while no other test does")
    if hasattr(config, "workerinput"):
        config.pluginmanager.register(Turns(config), "queuehop-turns")
