"""Durations as people read them: ``412 ms``, ``4 min 27 s``. ``format.js`` has the same rules."""

MICROSECOND, MILLISECOND, SECOND = 10**3, 10**6, 10**9

#: The upper limit of a duration in nanoseconds, its unit, the length of the unit, and the decimals.
_UNITS = (
    (999_500, "µs", MICROSECOND, 0),
    (9_950_000, "ms", MILLISECOND, 1),
    (999_500_000, "ms", MILLISECOND, 0),
    (9_995_000_000, "s", SECOND, 2),
    (59_950_000_000, "s", SECOND, 1),
)

#: The upper limit of a longer one, and the names and lengths of its two units.
_PAIRS: tuple[tuple[float, tuple[str, int], tuple[str, int]], ...] = (
    (3_599_500_000_000, ("min", 60 * SECOND), ("s", SECOND)),
    (172_770_000_000_000, ("h", 3_600 * SECOND), ("min", 60 * SECOND)),
    (float("inf"), ("d", 86_400 * SECOND), ("h", 3_600 * SECOND)),
)


def duration(ns: int) -> str:
    """Return *ns* nanoseconds with two or three significant digits, from a minute in two units."""
    if ns < MICROSECOND // 2:
        return "0 ms"
    if unit := unit_of(ns):
        name, length, decimals = unit
        return f"{number(ns, length, decimals)} {name}"
    (large, length), (small, step) = _pair(ns)
    whole, rest = divmod(_halves_up(ns, step) * step, length)
    return f"{whole} {large}" + (f" {rest // step} {small}" if rest else "")


def precision(ns: int) -> int:
    """Return the length in nanoseconds to which a duration of *ns* is rounded."""
    if unit := unit_of(ns):
        _, length, decimals = unit
        step: int = length // 10**decimals
        return step
    _, (_, length) = _pair(ns)
    return length


def unit_of(ns: int) -> tuple[str, int, int] | None:
    """Return name, length and decimals of the only unit of *ns*. From a minute there are two."""
    for below, name, length, decimals in _UNITS:
        if ns < below:
            return name, length, decimals
    return None


def number(ns: int, length: int, decimals: int) -> str:
    """Return *ns* in units of *length*, rounded to *decimals* digits after the point, halves up."""
    rounded = _halves_up(ns, length // 10**decimals)
    return f"{rounded / 10**decimals:.{decimals}f}"


def _pair(ns: int) -> tuple[tuple[str, int], tuple[str, int]]:
    return next((large, small) for below, large, small in _PAIRS if ns < below)


def _halves_up(ns: int, step: int) -> int:
    return (ns + step // 2) // step
