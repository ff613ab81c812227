"""Durations have the same text in the terminal, in the sentence of a trace and on every page."""

import pytest

from telemetry.viewer.duration import duration

#: Nanoseconds, and their text. The tests of the pages use the same list.
DURATIONS = [
    (0, "0 ms"),
    (1_500, "2 µs"),
    (999_499, "999 µs"),
    (999_500, "1.0 ms"),
    (1_150_000, "1.2 ms"),
    (2_400_000, "2.4 ms"),
    (9_950_000, "10 ms"),
    (412_400_000, "412 ms"),
    (999_500_000, "1.00 s"),
    (1_295_000_000, "1.30 s"),
    (2_100_000_000, "2.10 s"),
    (9_995_000_000, "10.0 s"),
    (59_949_000_000, "59.9 s"),
    (59_950_000_000, "1 min"),
    (267_000_000_000, "4 min 27 s"),
    (3_599_400_000_000, "59 min 59 s"),
    (3_599_500_000_000, "1 h"),
    (4_320_000_000_000, "1 h 12 min"),
    (172_769_000_000_000, "47 h 59 min"),
    (172_770_000_000_000, "2 d"),
    (264_384_000_000_000, "3 d 1 h"),
]


@pytest.mark.parametrize(("ns", "shown"), DURATIONS)
def test_two_or_three_digits_and_from_a_minute_two_units(ns: int, shown: str) -> None:
    assert duration(ns) == shown
