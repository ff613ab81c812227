"""Hops and spans: the ``with`` of a hop, its record, its context, and its log lines."""
