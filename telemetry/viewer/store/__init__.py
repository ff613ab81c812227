"""Traces in SQLite: write, read, search and count them."""
