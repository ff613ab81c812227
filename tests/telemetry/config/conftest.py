"""An environment without settings, and the variables that the log names."""

import logging
import os
from collections.abc import Callable

import pytest

from telemetry.config.settings import reject


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(("OTEL_", "LS_")):
            monkeypatch.delenv(name)
    reject.cache_clear()


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """Return the variables that the log names, in order."""
    caplog.set_level(logging.WARNING)
    return lambda: [message.split()[0] for message in caplog.messages]
