"""Errors of tracing itself are logged at a limited rate, and do not stop the application."""

import pytest
from billiard.exceptions import SoftTimeLimitExceeded

from telemetry.tracing import faults
from telemetry.tracing.faults import RateLimit, log_internal_error


def fail(what: str, exc: BaseException) -> None:
    try:
        raise exc
    except Exception:
        log_internal_error(what)


def test_an_error_is_logged_once_an_interval(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(faults, "_allow", RateLimit())
    for what in ("count", "count", "read", "count"):
        fail(what, ValueError("no"))
    assert caplog.messages == [
        "tracing could not count; the application is unharmed",
        "tracing could not read; the application is unharmed",
    ]
    record = caplog.records[0]
    assert record.name == "telemetry"
    assert record.exc_info is not None
    assert record.exc_info[0] is ValueError


def test_an_interval_later_it_is_logged_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "INTERVAL", 0.0)
    allow = RateLimit()
    assert allow("count")
    assert allow("count")


def test_a_soft_time_limit_is_the_tasks(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(SoftTimeLimitExceeded):
        fail("write", SoftTimeLimitExceeded())
    assert not caplog.messages
