"""Durations in words: what a trace tells before it is drawn."""

from collections.abc import Sequence

__all__ = ["sentence"]

#: Up to which duration, in nanoseconds: in which unit, that in nanoseconds, with how many decimals.
_UNITS = (
    (10 * 10**6, "ms", 10**6, 1),
    (10**9, "ms", 10**6, 0),
    (10 * 10**9, "s", 10**9, 2),
    (120 * 10**9, "s", 10**9, 1),
    (7200 * 10**9, "min", 60 * 10**9, 1),
    (float("inf"), "h", 3600 * 10**9, 1),
)


def sentence(total: int, parts: Sequence[tuple[str, int]], so_far: bool = False) -> str:
    """Return how *total* nanoseconds are made up of *parts*: ``412 ms: 6 web, 26 worker``.

    All numbers are in the unit of the total, and rounded so that they still add up to it; a part
    that is rounded to nothing is left out.
    """
    _, unit, length, decimals = next(row for row in _UNITS if total < row[0])
    step = length // 10**decimals
    counts = _apportion(total, [max(0, ns) for _, ns in parts], step)
    shown = [
        f"{count * step / length:.{decimals}f} {name}"
        for (name, _), count in zip(parts, counts, strict=True)
        if count
    ]
    head = f"{round(total / step) * step / length:.{decimals}f} {unit}"
    head += " so far" if so_far else ""
    return f"{head}: {', '.join(shown)}" if shown else head


def _apportion(total: int, lengths: Sequence[int], step: int) -> list[int]:
    """Round *lengths* to *step*; if they are the whole of *total*, so that it stays the whole."""
    counts = [length // step for length in lengths]
    missing = round(total / step) - sum(counts)
    by_rest = sorted(range(len(lengths)), key=lambda at: lengths[at] % step, reverse=True)
    for at in by_rest[: max(0, missing)]:
        if lengths[at]:
            counts[at] += 1
    return counts
