"""The tracing of a hop: its log lines, and the errors of tracing itself."""
