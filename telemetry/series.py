"""What the hops count and time: numbers, under names and attributes that come again and again."""

from collections.abc import Mapping, Sequence
from functools import lru_cache

from opentelemetry.util.types import AttributeValue

__all__ = ["Measured", "Series", "series"]


class Series:
    """The *names* of what is measured together, and the *attributes* that it is measured under.

    Made once for each such set, and compared by identity: what others keep for it they find fast.
    """

    __slots__ = ("attributes", "names")

    def __init__(self, names: Sequence[str], attributes: Mapping[str, AttributeValue]) -> None:
        self.names = tuple(names)
        self.attributes = attributes


#: What was measured of one span: a series, and a number for each of its names.
Measured = tuple[Series, Sequence[float]]


def series(names: tuple[str, ...], attributes: Mapping[str, AttributeValue]) -> Series:
    """Return the one series of *names* and *attributes*, as long as it is among the latest."""
    return _series(names, tuple(attributes.items()))


@lru_cache(maxsize=1024)
def _series(names: tuple[str, ...], attributes: tuple[tuple[str, AttributeValue], ...]) -> Series:
    return Series(names, dict(attributes))
