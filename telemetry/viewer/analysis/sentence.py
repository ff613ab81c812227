"""The duration of a trace and its parts, as one sentence."""

from collections import Counter
from collections.abc import Sequence

__all__ = ["rounded", "sentence"]

#: The upper limit of a duration in nanoseconds, its unit, the length of the unit, and the decimals.
_UNITS = (
    (10 * 10**6, "ms", 10**6, 1),
    (10**9, "ms", 10**6, 0),
    (10 * 10**9, "s", 10**9, 2),
    (120 * 10**9, "s", 10**9, 1),
    (7200 * 10**9, "min", 60 * 10**9, 1),
    (float("inf"), "h", 3600 * 10**9, 1),
)


def sentence(total: int, parts: Sequence[tuple[str, int]], so_far: bool = False) -> str:
    """Return *total* nanoseconds and its *parts* in words: ``412 ms: 6 web, 26 worker``.

    All numbers are in the unit of the total, and still add up to it after rounding. A part that
    rounds to 0 is left out. Parts of the same name are added.
    """
    unit, length, decimals = _unit(total)
    sums: Counter[str] = Counter()
    for (name, _), ns in zip(parts, rounded(total, [ns for _, ns in parts]), strict=True):
        sums[name] += ns
    shown = [f"{ns / length:.{decimals}f} {name}" for name, ns in sums.items() if ns]
    step = length // 10**decimals
    head = f"{round(total / step) * step / length:.{decimals}f} {unit}"
    head += " so far" if so_far else ""
    return f"{head}: {', '.join(shown)}" if shown else head


def rounded(total: int, lengths: Sequence[int]) -> list[int]:
    """Round *lengths* as in the sentence. If they add up to *total*, they still do afterwards."""
    _, length, decimals = _unit(total)
    step = length // 10**decimals
    lengths = [max(0, length) for length in lengths]
    counts = [length // step for length in lengths]
    missing = round(total / step) - sum(counts)
    by_rest = sorted(range(len(lengths)), key=lambda at: lengths[at] % step, reverse=True)
    for at in by_rest[: max(0, missing)]:
        if lengths[at]:
            counts[at] += 1
    return [count * step for count in counts]


def _unit(total: int) -> tuple[str, int, int]:
    return next(unit for below, *unit in _UNITS if total < below)  # type: ignore[return-value]
