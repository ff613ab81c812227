"""With ``QUEUEHOP_TEST_NO_SDK_INTERNALS=1`` no private attribute of the SDK can be read.

So the tests show that the library works with an SDK whose internals are different.
"""

import os

import pytest

from telemetry.config import sdk


@pytest.fixture(autouse=True)
def _no_sdk_internals(monkeypatch: pytest.MonkeyPatch) -> None:
    if os.environ.get("QUEUEHOP_TEST_NO_SDK_INTERNALS"):
        monkeypatch.setattr(sdk, "_internal", lambda thing, name: None)
