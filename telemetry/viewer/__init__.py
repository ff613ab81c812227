"""Spans that arrive: received, judged and shown."""
