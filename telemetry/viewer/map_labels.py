"""Place the labels of edges: at their edge, clear of every node and of every other label."""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

__all__ = ["Box", "Point", "place_labels"]

Point = tuple[float, float]
#: Left, top, right and bottom.
Box = tuple[float, float, float, float]

#: Pixels between two candidate places, and the most candidates on an edge.
STEP, MOST_PLACES = 14.0, 40

#: Pixels between a label and its neighbors.
GAP = 4.0


def place_labels(
    paths: Sequence[Sequence[Point]], boxes: Sequence[Box], size: tuple[float, float]
) -> list[Point | None]:
    """Return the middle of a label of *size* for each of *paths*, or None if it has no room.

    A label gets the free place that covers the fewest other edges, and among those the closest to
    the middle. Short edges choose first: they have the fewest places.
    """
    segments = [list(pairwise(path)) for path in paths]
    taken = list(boxes)
    labels: list[Point | None] = [None] * len(paths)
    for at in sorted(range(len(paths)), key=lambda at: _length(paths[at])):
        others = [s for other, found in enumerate(segments) if other != at for s in found]
        best: tuple[int, int, Point] | None = None
        for rank, middle in enumerate(_places(paths[at], size)):
            box = _around(middle, size)
            if any(_overlap(box, other) for other in taken):
                continue
            found = sum(_touches(box, *segment) for segment in others), rank, middle
            if best is None or found < best:
                best = found
            if best[0] == 0:
                break
        if best is not None:
            labels[at] = best[2]
            taken.append(_around(best[2], size))
    return labels


def _length(path: Sequence[Point]) -> float:
    return sum(math.dist(*ends) for ends in pairwise(path))


def _places(path: Sequence[Point], size: tuple[float, float]) -> Iterator[Point]:
    """Yield places on *path* from its middle to its ends, and then places beside it."""
    length = _length(path)
    step = max(STEP, length / MOST_PLACES)
    offsets = [0.0]
    while offsets[-1] + step <= length / 2:
        offsets.append(offsets[-1] + step)
    on_path = [_along(path, length / 2 + sign * o) for o in offsets for sign in (1, -1)]
    yield from on_path
    aside = size[0] / 2 + GAP, size[1] / 2 + GAP
    for x, y in on_path:
        yield from ((x, y + aside[1]), (x, y - aside[1]), (x + aside[0], y), (x - aside[0], y))


def _along(path: Sequence[Point], distance: float) -> Point:
    for start, end in pairwise(path):
        length = math.dist(start, end)
        if distance <= length and length:
            share = distance / length
            return (
                start[0] + (end[0] - start[0]) * share,
                start[1] + (end[1] - start[1]) * share,
            )
        distance -= length
    return path[-1]


def _around(middle: Point, size: tuple[float, float]) -> Box:
    (x, y), (width, height) = middle, size
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] + GAP and b[0] < a[2] + GAP and a[1] < b[3] + GAP and b[1] < a[3] + GAP


def _touches(box: Box, start: Point, end: Point) -> bool:
    """Return whether the line from *start* to *end* may go through *box*."""
    return (
        min(start[0], end[0]) < box[2]
        and max(start[0], end[0]) > box[0]
        and min(start[1], end[1]) < box[3]
        and max(start[1], end[1]) > box[1]
    )
