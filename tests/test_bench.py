"""What the bench makes of what it has measured."""

import pytest

from bench.report import Variants, print_results, print_samples, results


def turns(key: str, *rounds: tuple[float, ...]) -> list[list[dict[str, float]]]:
    return [[{key: value} for value in one] for one in rounds]


def requests(ours: list[list[dict[str, float]]]) -> Variants:
    bare = turns("rate", (100, 200, 400), (100, 100, 100))
    return {"bare": bare, "contrib": turns("rate", (50, 100, 200), (50, 50, 50)), "ours": ours}


def test_rates_are_compared_turn_by_turn() -> None:
    """A machine that slows down meanwhile is slow for all of them in the same turn."""
    ours = turns("rate", (90, 180, 360), (80, 80, 80))
    to_bare, to_contrib = results({"requests a second": requests(ours)})
    assert (to_bare.value, to_bare.rounds) == (pytest.approx(0.85), pytest.approx([0.9, 0.8]))
    assert (to_contrib.value, to_contrib.rounds) == (pytest.approx(1.7), pytest.approx([1.8, 1.6]))


def test_what_is_added_is_compared_by_medians() -> None:
    """In one turn it may be nothing, or less: its ratio there says nothing."""

    def cpu(*rounds: tuple[float, ...]) -> list[list[dict[str, float]]]:
        keys = "publish", "publish, helpers", "run", "run, helpers"
        return [[dict(zip(keys, (x, 1, 2 * x, 1), strict=True)) for x in one] for one in rounds]

    variants = {
        "bare": cpu((10, 20, 10), (10, 10, 10)),
        "contrib": cpu((14, 20, 14), (14, 14, 14)),  # nothing in the second turn
        "ours": cpu((11, 30, 11), (12, 12, 12)),  # and ten there
    }
    publish, run = results({"publish and run": variants})
    assert (publish.value, publish.rounds) == (2 / 4, [1 / 4, 2 / 4])
    assert (run.value, run.rounds) == (4 / 8, [2 / 8, 4 / 8])


def test_all_of_it_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    variants = requests(turns("rate", (90, 180, 360), (80, 80, 80)))
    print_samples("requests a second", variants)
    print_results({"requests a second": variants}, {"inject": 2e-6})
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "ours 85.00 80.00 … 180.00" in lines
    assert "inject 2.00" in lines
    assert "requests a second, gunicorn, ours : bare ≥ 0.93 0.85 0.80 … 0.90" in lines
