"""The bench computes its results from its measurements."""

import os
import sys

import pytest

from bench.cachegrind import Counts, parse, snapshot
from bench.instructions import main, table
from bench.report import Variants, print_results, print_samples, results


def turns(key: str, *rounds: tuple[float, ...]) -> list[list[dict[str, float]]]:
    return [[{key: value} for value in one] for one in rounds]


def requests(ours: list[list[dict[str, float]]]) -> Variants:
    bare = turns("rate", (100, 200, 400), (100, 100, 100))
    return {"bare": bare, "contrib": turns("rate", (50, 100, 200), (50, 50, 50)), "ours": ours}


def test_rates_are_compared_turn_by_turn() -> None:
    """A machine that slows down is slow for all variants in the same turn."""
    ours = turns("rate", (90, 180, 360), (80, 80, 80))
    to_bare, to_contrib = results({"requests a second": requests(ours)})
    assert (to_bare.value, to_bare.rounds) == (pytest.approx(0.85), pytest.approx([0.9, 0.8]))
    assert (to_contrib.value, to_contrib.rounds) == (pytest.approx(1.7), pytest.approx([1.8, 1.6]))


def test_what_is_added_is_compared_by_medians() -> None:
    """In one turn, the added cost may be 0 or less, so a ratio of turns has no meaning."""

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
    print_results({"requests a second": variants})
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "ours 85.00 80.00 … 180.00" in lines
    assert "requests a second, gunicorn, ours : bare ≥ 0.93 0.85 0.80 … 0.90" in lines


#: The output of Valgrind 3.19 for ``python -c "import json"``, and before it that of a child.
SUMMARIES = """\
==30265== Cachegrind, a cache and branch-prediction profiler
==30265== Copyright (C) 2002-2017, and GNU GPL'd, by Nicholas Nethercote et al.
==30265== Using Valgrind-3.19.0 and LibVEX; rerun with -h for copyright info
==30265== Command: bench/.venv/bin/python -c import\\ json
==30265==
--30265-- warning: L3 cache found, using its data for the LL simulation.
==30266==
==30266== I   refs:      1,000
==30266== I1  misses:       20
==30266== LLi misses:        3
==30266== I1  miss rate:  2.00%
==30266== LLi miss rate:  0.30%
==30266==
==30266== D   refs:        400  (300 rd   + 100 wr)
==30266== D1  misses:       10  (  9 rd   +   1 wr)
==30266== LLd misses:        2  (  2 rd   +   0 wr)
==30266== Mispredicts:       7  (  4 cond +   3 ind)
{"snapshot": 30266}
==30265==
==30265== I   refs:      69,539,722
==30265== I1  misses:       693,893
==30265== LLi misses:        12,798
==30265== I1  miss rate:       1.00%
==30265== LLi miss rate:       0.02%
==30265==
==30265== D   refs:      29,436,340  (19,816,286 rd   + 9,620,054 wr)
==30265== D1  misses:     1,121,234  ( 1,014,344 rd   +   106,890 wr)
==30265== LLd misses:        76,099  (    26,076 rd   +    50,023 wr)
==30265== D1  miss rate:        3.8% (       5.1%     +       1.1%  )
==30265== LLd miss rate:        0.3% (       0.1%     +       0.5%  )
==30265==
==30265== LL refs:        1,815,127  ( 1,708,237 rd   +   106,890 wr)
==30265== LL misses:         88,897  (    38,874 rd   +    50,023 wr)
==30265== LL miss rate:         0.1% (       0.0%     +       0.5%  )
==30265==
==30265== Branches:      12,191,087  (10,503,393 cond + 1,687,694 ind)
==30265== Mispredicts:    1,241,584  (   779,293 cond +   462,291 ind)
==30265== Mispred rate:        10.2% (       7.4%     +      27.4%   )
"""


def test_a_summary_is_parsed() -> None:
    counts = parse(SUMMARIES, 30265)
    assert counts == Counts(69_539_722, 693_893 + 1_121_234, 88_897, 1_241_584)
    assert counts.cycles == 69_539_722 + 10 * 1_815_127 + 100 * 88_897 + 10 * 1_241_584


def test_the_summary_is_that_of_the_process() -> None:
    counts = parse(SUMMARIES, 30266)
    assert counts == Counts(1_000, 30, 5, 7)
    assert (parse(SUMMARIES, 30265) - counts) / 2 == Counts(
        34_769_361, 907_548.5, 44_446, 620_788.5
    )


def test_a_summary_that_is_not_there_is_an_error() -> None:
    with pytest.raises(ValueError, match="no line 'I refs' of process 1"):
        parse(SUMMARIES, 1)
    with pytest.raises(ValueError, match="no line 'Mispredicts' of process 30265"):
        parse(SUMMARIES.replace("==30265== Mispredicts", "killed"), 30265)


@pytest.mark.skipif(sys.platform != "linux", reason="the C library has no _Fork")
def test_a_snapshot_is_a_child_that_has_ended() -> None:
    pid = snapshot()
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, 0)


def test_costs_are_a_table() -> None:
    """The table has the cost that each variant adds to the bare one, and its ratio to contrib's."""
    numbers = {
        "bare": {"publish": 2_000_400.0},
        "contrib": {"publish": 3_000_400.0},
        "ours": {"publish": 2_250_400.0},
    }
    assert list(table("cycles", numbers)) == [
        "| cycles | bare Celery | contrib adds | queuehop adds | queuehop : contrib |",
        "|---|---:|---:|---:|---:|",
        "| a publish | 2,000,000 | 1,000,000 | 250,000 | 0.25 |",
    ]
    del numbers["contrib"]
    assert list(table("cycles", numbers))[2] == "| a publish | 2,000,000 | 250,000 |"


@pytest.mark.parametrize("arguments", [["--variant", "ourselves"], ["--count", "0"]])
def test_options_that_cannot_be_used(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
