"""Lay out the nodes and edges of the map: in layers, in the direction of the messages.

graphlay computes the layers, their order and the routes. This module chooses the edges of a cycle
that point backward, because only it knows the direction of the map: from clients through queues to
workers.
"""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

import graphlay

from .map_labels import Box, Point, place_labels

#: The direction of messages, by its name in the API and in graphlay.
DIRECTIONS = {"right": "leftright", "down": "topbottom"}

#: The size of a node with one line of name, and the height of each further line, in CSS pixels.
WIDTH, HEIGHT, LINE = 160, 52, 17

#: The size of an edge's label: one line.
LABEL = (98.0, 14.0)

#: The most characters in a line of a name at 13 px, and the most lines.
LONGEST_LINE, MOST_LINES = 20, 3

#: The margin around the drawing.
MARGIN = 16

ROUTING = {"style": "orthogonal"}

#: The gap between two layers has room for a label and a part of its edge. Two edges at one side of
#: a node have room for their labels.
SPACING = {
    "right": {"layer_gap": LABEL[0] + 38, "node_gap": 30.0, "port_gap": 24.0},
    "down": {"layer_gap": LABEL[1] + 60, "node_gap": 34.0, "port_gap": 80.0},
}

Edge = tuple[str, str]


def lay_out(found: Mapping[str, Any], direction: str = "right") -> dict[str, Any]:
    """Return the ``nodes`` and ``edges`` of *found* with their positions in CSS pixels.

    A node gets ``x`` and ``y`` of its upper left corner, ``width``, ``height`` and the ``lines`` of
    its label. An edge gets its ``points``, whether it points ``back``, and the middle of its
    ``label``, or None if the label has no room. *direction* is ``right`` or ``down``. Raises
    ValueError for any other.
    """
    if direction not in DIRECTIONS:
        raise ValueError(f"direction must be one of {', '.join(DIRECTIONS)}")
    if not found["nodes"]:
        return {**found, "width": 0, "height": 0}
    drawing = _draw(
        tuple((node["id"], node["label"]) for node in found["nodes"]),
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
    """Lay out *nodes*, pairs of an id and a name, and *edges* between ids."""
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
    """Return *name* in lines that fit into a node, broken between words."""
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
        # Names differ at the end as often as at the beginning.
        last = MOST_LINES - 2
        lines = [*lines[:last], f"{lines[last][: LONGEST_LINE - 1]}…", name[-LONGEST_LINE:]]
    return lines


def _backward(nodes: Iterable[str], edges: Iterable[Edge]) -> set[Edge]:
    """Return the edges to draw backward. Without them the graph has no cycle.

    If a worker publishes to a queue that it consumes, that edge points back. Other cycles are cut
    by depth-first search: from callers without a caller, then from services that consume no queue,
    from queues, and last from workers.
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
