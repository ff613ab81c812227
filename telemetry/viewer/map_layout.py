"""Where the nodes and edges of the map are drawn: in layers, in the direction of the messages.

The layers, their order and the routes are graphlay's. Which edges of a cycle are drawn back is
decided here, since the map has a direction that the graph alone does not: from clients over queues
to workers.
"""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

import graphlay

from .map_labels import Box, Point, place_labels

__all__ = ["lay_out"]

#: Which way messages go, in the API's words and in graphlay's.
DIRECTIONS = {"right": "leftright", "down": "topbottom"}

#: The size of a node without its further lines of name, and of such a line, in CSS pixels.
WIDTH, HEIGHT, LINE = 172, 52, 17

#: The label of an edge: two short lines.
LABEL = (70.0, 34.0)

#: Characters of a name in a line, and lines. At 13 px no common font has wider ones on average.
LONGEST_LINE, MOST_LINES = 20, 3

#: Around the whole drawing.
MARGIN = 16

ROUTING = {"style": "orthogonal"}

#: Between two layers is room for a label and some of its line.
SPACING = {
    "right": {"layer_gap": LABEL[0] + 44, "node_gap": 30.0},
    "down": {"layer_gap": LABEL[1] + 40, "node_gap": 34.0},
}

Edge = tuple[str, str]


def lay_out(found: Mapping[str, Any], direction: str = "right") -> dict[str, Any]:
    """Return *found*, which has ``nodes`` and ``edges``, with places in CSS pixels.

    A node gets ``x`` and ``y`` of its upper left corner, ``width``, ``height`` and the ``lines`` of
    its name; an edge its ``points``, whether it is drawn ``back``, and the middle of its ``label``,
    None where there is no room for one. *direction* is ``right`` or ``down``; raises ValueError if
    it is neither.
    """
    if direction not in DIRECTIONS:
        raise ValueError(f"direction is one of {', '.join(DIRECTIONS)}")
    if not found["nodes"]:
        return {**found, "width": 0, "height": 0}
    drawing = _draw(
        tuple((node["id"], node.get("label") or node["name"]) for node in found["nodes"]),
        tuple((edge["from"], edge["to"]) for edge in found["edges"]),
        direction,
    )
    return {
        **found,
        "nodes": [{**a, **b} for a, b in zip(found["nodes"], drawing["nodes"], strict=True)],
        "edges": [{**a, **b} for a, b in zip(found["edges"], drawing["edges"], strict=True)],
        "width": drawing["width"],
        "height": drawing["height"],
    }


@lru_cache(maxsize=16)
def _draw(
    nodes: tuple[tuple[str, str], ...], edges: tuple[Edge, ...], direction: str
) -> dict[str, Any]:
    """Lay out *nodes*, of which each is an id and a name, and *edges* between ids."""
    sizes = [_size(name) for _, name in nodes]
    graph = graphlay.Graph()
    for (node, _), size in zip(nodes, sizes, strict=True):
        graph.node(node, width=size["width"], height=size["height"])
    backward = _backward([node for node, _ in nodes], edges)
    for edge in edges:
        graph.edge(*(reversed(edge) if edge in backward else edge))
    options = {
        "direction": DIRECTIONS[direction],
        "routing": ROUTING,
        "spacing": SPACING[direction],
    }
    drawing = graphlay.layout(graph, options=options)
    low, high = drawing.bounds["min"], drawing.bounds["max"]

    def place(point: Mapping[str, float]) -> Point:
        return point["x"] - low["x"] + MARGIN, point["y"] - low["y"] + MARGIN

    boxes: list[Box] = []
    for size, drawn in zip(sizes, drawing.nodes, strict=True):
        x, y = place(drawn["center"])
        size["x"], size["y"] = x - size["width"] / 2, y - size["height"] / 2
        boxes.append((size["x"], size["y"], x + size["width"] / 2, y + size["height"] / 2))
    paths = []
    for edge, drawn in zip(edges, drawing.edges, strict=True):
        points = [place(point) for point in drawn["points"]]
        paths.append(points[::-1] if edge in backward else points)
    labels = place_labels(paths, boxes, LABEL)
    width, height = (high[axis] - low[axis] + 2 * MARGIN for axis in ("x", "y"))
    return {
        "nodes": sizes,
        "edges": [
            {"points": points, "label": label, "back": edge in backward}
            for edge, points, label in zip(edges, paths, labels, strict=True)
        ],
        "width": width,
        "height": height,
    }


def _size(name: str) -> dict[str, Any]:
    lines = _lines(name)
    return {"lines": lines, "width": WIDTH, "height": HEIGHT + LINE * (len(lines) - 1)}


def _lines(name: str) -> list[str]:
    """Return *name* in lines that fit into a node, broken where its words end."""
    lines = [""]
    for words in name.split(" "):
        if lines[-1] and len(lines[-1]) + 1 + len(words) > LONGEST_LINE:
            lines.append("")
        elif lines[-1]:
            lines[-1] += " "
        for word in re.findall(r"[^-._/]*[-._/]*", words):
            for start in range(0, len(word), LONGEST_LINE):
                part = word[start : start + LONGEST_LINE]
                if len(lines[-1]) + len(part) > LONGEST_LINE:
                    lines.append("")
                lines[-1] += part
    if len(lines) > MOST_LINES:
        # The end tells names apart as often as the beginning.
        last = MOST_LINES - 2
        lines = [*lines[:last], f"{lines[last][: LONGEST_LINE - 1]}…", name[-LONGEST_LINE:]]
    return lines


def _backward(nodes: Iterable[str], edges: Iterable[Edge]) -> set[Edge]:
    """Return the edges that lead back: without them there is no cycle.

    What a worker publishes to a queue that it consumes leads back. The other cycles are followed
    from the callers that nobody calls, then from services that consume no queue, from queues, and
    last from workers.
    """
    edges = set(edges)
    backward = {(a, b) for a, b in edges if b.startswith("queue:") and (b, a) in edges}
    below: dict[str, list[str]] = {node: [] for node in nodes}
    called = set()
    for start, end in sorted(edges - backward):
        below[start].append(end)
        called.add(end)
    workers = {end for start, end in edges if start.startswith("queue:")}

    def rank(node: str) -> int:
        if node not in called:
            return 0
        if node.startswith("queue:"):
            return 2
        return 3 if node in workers else 1

    done: set[str] = set()
    for root in sorted(below, key=rank):
        if root in done:
            continue
        path = {root: iter(below[root])}
        while path:
            node = next(reversed(path))
            for end in path[node]:
                if end in path:
                    backward.add((node, end))
                elif end not in done:
                    path[end] = iter(below[end])
                    break
            else:
                done.add(node)
                del path[node]
    return backward
