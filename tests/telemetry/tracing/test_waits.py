"""The three waits: right, adding up, never negative."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry.tracing.waits import Waits, parse_eta, parse_time, waits

T = 1_700_000_000.0


@pytest.mark.parametrize(
    ("sent", "eta", "received", "started", "expected"),
    [
        pytest.param(T, None, T + 2, T + 5, (0.0, 2.0, 3.0, False), id="a busy worker"),
        pytest.param(T, T + 1, T, T + 1, (1.0, 0.0, 0.0, False), id="a countdown, taken at once"),
        pytest.param(
            T, T + 1, T + 3, T + 4, (1.0, 2.0, 1.0, False), id="a countdown, then a queue"
        ),
        pytest.param(T, T - 9, T + 1, T + 1, (0.0, 1.0, 0.0, False), id="an eta in the past"),
        pytest.param(T, T + 9, T, T + 2, (2.0, 0.0, 0.0, False), id="run before its eta"),
        pytest.param(None, None, T, T + 1, (0.0, None, 1.0, False), id="a foreign producer"),
        pytest.param(None, T + 1, T, T + 2, (1.0, None, 1.0, False), id="a foreign countdown"),
        pytest.param(T + 9, None, T, T + 1, (0.0, 0.0, 1.0, True), id="the producer ahead"),
        pytest.param(T, None, None, T + 1, (0.0, 1.0, 0.0, False), id="a worker that never said"),
    ],
)
def test_waits(
    sent: float | None,
    eta: float | None,
    received: float | None,
    started: float,
    expected: Waits,
) -> None:
    assert waits(sent, eta, received, started) == expected


times = st.floats(min_value=0, max_value=1e10)


@given(sent=times, eta=st.none() | times, received=times, started=times)
def test_waits_are_never_negative_and_add_up(
    sent: float, eta: float | None, received: float, started: float
) -> None:
    *parts, skewed = waits(sent, eta, received, started)
    assert all(part is not None and part >= 0 for part in parts)
    if sent <= received <= started:
        assert not skewed
        assert sum(filter(None, parts)) == pytest.approx(started - sent, abs=1e-3)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2023-11-14T22:13:20+00:00", T),
        ("2023-11-14T22:13:20", T),
        ("2023-11-14T22:13:20Z", T),
        ("2023-11-15T00:13:20+02:00", T),
        ("soon", None),
        ("", None),
        (b"2023-11-14", None),
        (7, None),
        (None, None),
    ],
)
def test_parse_eta(value: object, expected: float | None) -> None:
    assert parse_eta(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("1700000000.000000", T),
        (b"1700000000", T),
        (1700000000, T),
        (1700000000.0, T),
        ("0", None),
        (0.0, None),
        ("1e999", None),
        ("nan", None),
        ("-1", None),
        ("", None),
        ("later", None),
        (True, None),
        (None, None),
        ([], None),
    ],
)
def test_parse_time(value: object, expected: float | None) -> None:
    assert parse_time(value) == expected


@given(st.text() | st.binary() | st.integers() | st.floats() | st.none() | st.lists(st.integers()))
def test_nothing_that_a_header_can_hold_raises(value: object) -> None:
    parse_time(value)
    parse_eta(value)
