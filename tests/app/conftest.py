"""A broker, a receiver and a web side that the tests of a module share: they only ask it."""

from collections.abc import Iterator

import pytest

from telemetry.otlp.receiver import Receiver

from ..processes import Starter
from ..receiving import PatientReceiver
from ..system import Server


@pytest.fixture(scope="module")
def shared_receiver() -> Iterator[Receiver]:
    with PatientReceiver() as running:
        yield running


@pytest.fixture(scope="module")
def shared_start(
    shared_receiver: Receiver, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Starter]:
    """Start processes that use a broker of their own and report to ``shared_receiver``."""
    directory = tmp_path_factory.mktemp("shared")
    server = Server(directory, "secret")
    starter = Starter(
        CELERY_BROKER_URL=server.url,
        OTEL_EXPORTER_OTLP_ENDPOINT=shared_receiver.endpoint,
        OTEL_BSP_SCHEDULE_DELAY="100",
        QUEUEHOP_STATE_DIR=str(directory / "state"),
    )
    yield starter
    assert not list(starter.end())
    server.process.stop()
