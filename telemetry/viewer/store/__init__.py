"""Traces in SQLite: written as they arrive, read back, searched and counted."""
