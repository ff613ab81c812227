"""The duration of a trace and its parts, as one sentence."""

from collections import Counter
from collections.abc import Sequence

from ..duration import duration, number, precision, unit_of

SECOND, MINUTE = 10**9, 60 * 10**9


def sentence(total: int, parts: Sequence[tuple[str, int]], so_far: bool = False) -> str:
    """Return *total* nanoseconds and its *parts* in words: ``412 ms: 6 web, 26 worker``.

    The parts are rounded like the total and still add up to it. Below a minute, they are in its
    unit: ``4 min 27 s: 4 min waiting, 27 s worker``, but ``4.27 s: 4.00 waiting, 0.27 worker``. A
    part that rounds to 0 is left out. If one part is everything, its length is not repeated:
    ``10 min waiting``. Parts of the same name are added.
    """
    sums: Counter[str] = Counter()
    for (name, _), ns in zip(parts, rounded(total, [ns for _, ns in parts]), strict=True):
        sums[name] += ns
    shown = {name: ns for name, ns in sums.items() if ns}
    head, end = duration(total), " so far" if so_far else ""
    if [duration(ns) for ns in shown.values()] == [head]:
        return f"{head} {next(iter(shown))}{end}"
    body = ", ".join(f"{_length(ns, total)} {name}" for name, ns in shown.items())
    return f"{head}{end}: {body}" if body else head + end


def _length(ns: int, total: int) -> str:
    if unit := unit_of(total):
        return number(ns, *unit[1:])
    return duration(ns) if ns >= MINUTE else f"{ns // SECOND} s"


def rounded(total: int, lengths: Sequence[int]) -> list[int]:
    """Round *lengths* as in the sentence. If they add up to *total*, they still do afterwards."""
    step = precision(total)
    lengths = [max(0, length) for length in lengths]
    counts = [length // step for length in lengths]
    missing = (total + step // 2) // step - sum(counts)
    by_rest = sorted(range(len(lengths)), key=lambda at: lengths[at] % step, reverse=True)
    for at in by_rest[: max(0, missing)]:
        if lengths[at]:
            counts[at] += 1
    return [count * step for count in counts]
