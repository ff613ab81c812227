"""Place the labels of edges: on their edge, clear of nodes, other edges and other labels."""

import math
from collections.abc import Iterator, Sequence
from itertools import chain, pairwise

Point = tuple[float, float]
#: Left, top, right and bottom.
Box = tuple[float, float, float, float]

#: Pixels between two candidate places, and the most candidates on an edge.
STEP, MOST_PLACES = 7.0, 40

#: Pixels between a label and its neighbors.
GAP = 1.0


def place_labels(
    paths: Sequence[Sequence[Point]], boxes: Sequence[Box], size: tuple[float, float]
) -> list[Point | None]:
    """Return the middle of a label of *size* for each of *paths*, or None if it has no room.

    A label gets the free place on its edge that is closest to the middle. Short edges choose first:
    they have the fewest places.
    """
    segments = [[_bounds(*ends) for ends in pairwise(path)] for path in paths]
    taken = list(boxes)
    labels: list[Point | None] = [None] * len(paths)
    for at in sorted(range(len(paths)), key=lambda at: _length(paths[at])):
        edges = [box for other, found in enumerate(segments) if other != at for box in found]
        for middle in _places(paths[at]):
            label = _around(middle, size)
            if not any(_overlap(label, box) for box in chain(taken, edges)):
                labels[at] = middle
                taken.append(label)
                break
    return labels


def _length(path: Sequence[Point]) -> float:
    return sum(math.dist(*ends) for ends in pairwise(path))


def _places(path: Sequence[Point]) -> Iterator[Point]:
    """Yield places on *path* from its middle to its ends."""
    length = _length(path)
    step = max(STEP, length / MOST_PLACES)
    offset = 0.0
    while offset <= length / 2:
        yield _along(path, length / 2 + offset)
        yield _along(path, length / 2 - offset)
        offset += step


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


def _bounds(start: Point, end: Point) -> Box:
    (x1, y1), (x2, y2) = start, end
    return min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] + GAP and b[0] < a[2] + GAP and a[1] < b[3] + GAP and b[1] < a[3] + GAP
