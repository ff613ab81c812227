"""The viewer: receive spans, store them, analyze each trace and show it."""
