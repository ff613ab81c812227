"""docs/by_hand shows its files unchanged, and the traces that they make."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from telemetry.otlp.decode import ReceivedSpan

from ..conftest import Broker
from ..receiving import PatientReceiver
from .blocks import Page
from .by_hand import (
    BY_HAND,
    CLIENT,
    CURL,
    FOLDER,
    FORK,
    RECYCLED,
    SERVER,
    WITH_QUEUEHOP,
    WORKER,
    by_case,
    run_cases,
)
from .system import show_tree

PAGE = Page(FOLDER / "README.md")

#: A text that only the trace of the library has.
ADDED = {
    "publish": "send publish PRODUCER (server) ERROR",
    "retry": "(linked to process retry)",
    "killed": "process killed CONSUMER (worker) ERROR",
    "recycled": "process ping CONSUMER (worker)",
    "chord": "process whole CONSUMER (worker) (linked to process part) (linked to process part)",
    "stream": "    read the rows INTERNAL (server)",
    "fork": "    part INTERNAL (server)",
}


@pytest.fixture(scope="module")
def seen(
    broker_server: Broker, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, dict[str, list[ReceivedSpan]]]]:
    """The spans of both systems, which run side by side."""
    folders = {"by-hand": FOLDER, "with-queuehop": FOLDER / "with_queuehop"}
    with PatientReceiver() as first, PatientReceiver() as second, ThreadPoolExecutor(2) as pool:
        running = [
            pool.submit(
                run_cases,
                folder,
                f"redis://127.0.0.1:{broker_server.port}/{number}",
                tmp_path_factory.mktemp(name),
                receiver,
            )
            for number, ((name, folder), receiver) in enumerate(
                zip(folders.items(), (first, second), strict=True), 1
            )
        ]
        for each in running:
            each.result()
        second.wait_for(lambda spans: len(spans) >= sum(WITH_QUEUEHOP.values()))
        seen = {"by-hand": by_case(first.spans), "with-queuehop": by_case(second.spans)}
    yield seen
    PAGE.write()


@pytest.mark.parametrize("case", BY_HAND)
@pytest.mark.parametrize("system", ["by-hand", "with-queuehop"])
def test_a_case(seen: dict[str, dict[str, list[ReceivedSpan]]], system: str, case: str) -> None:
    spans = seen[system][case]
    text = show_tree(spans)
    assert len(spans) == (BY_HAND if system == "by-hand" else WITH_QUEUEHOP)[case], text
    if case in ADDED:
        assert (ADDED[case] in text) == (system == "with-queuehop"), text
    PAGE.show(f"{system}-{case}", text)


def test_the_code_is_the_code_that_runs() -> None:
    PAGE.check_code()


def test_the_commands_are_those_that_run() -> None:
    text = PAGE.path.read_text()
    for command in (SERVER, WORKER, CLIENT, RECYCLED):
        assert f"\n    {command}\n" in text
    for command in (FORK, *(f"{CURL}{case}" for case in ("publish", "retry", "chord", "stream"))):
        assert f"`{command}`" in text
