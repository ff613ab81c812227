"""The viewer: receive spans, store them, analyse each trace and show it."""
