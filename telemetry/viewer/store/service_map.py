"""The service map. It is computed from counts, never from spans."""

import sqlite3
from collections import Counter
from typing import Any

from ..analysis.counts import DURATIONS, FAILURES, TOTAL, WAITS
from .stored_counts import Metrics, Range, percentiles, terms, totals


def service_map(db: sqlite3.Connection, since_s: float) -> dict[str, Any]:
    """Return the nodes (services, queues and stores) and the edges between them."""
    asked = Range.last(db, since_s)
    names = terms(db, "node")
    nodes: dict[str, Metrics] = {
        names[number][0]: metrics for number, metrics in totals(db, asked, names, WAITS).items()
    }
    ends = terms(db, "edge")
    edges = {
        (ends[number][0], ends[number][1]): metrics
        for number, metrics in totals(db, asked, ends).items()
    }
    for edge in edges:
        for end in edge:
            nodes.setdefault(end, Counter())
    drawn = [_node(node, metrics) for node, metrics in sorted(nodes.items())]
    names_of_queues = Counter(node["name"] for node in drawn if node["kind"] == "queue")
    for node in drawn:
        node["label"] = node["name"] or f"(no {node['kind']} name)"
        if node["broker"] and names_of_queues[node["name"]] > 1:
            # The broker distinguishes two queues of the same name.
            node["label"] += f" {node['broker'].partition('://')[2] or node['broker']}"
    return {
        "nodes": drawn,
        "edges": [
            _edge(start, end, metrics, asked.counted_s)
            for (start, end), metrics in sorted(edges.items())
        ],
    }


def _node(node: str, metrics: Metrics) -> dict[str, Any]:
    kind, _, rest = node.partition(":")
    name, _, broker = rest.partition("\n") if kind == "queue" else (rest, "", "")
    return {
        "id": node,
        "kind": kind,
        "name": name,
        "broker": broker,
        "count": metrics[TOTAL],
        "errors": metrics[FAILURES],
    }


def _edge(start: str, end: str, metrics: Metrics, counted_s: float) -> dict[str, Any]:
    # An edge from a queue shows the wait, any other the duration of the call.
    base = WAITS if start.startswith("queue:") else DURATIONS
    return {
        "from": start,
        "to": end,
        "count": metrics[TOTAL],
        "per_s": metrics[TOTAL] / counted_s,
        "errors": metrics[FAILURES],
        "p50_ms": percentiles(metrics, base, (50,))["p50"],
    }
