"""The system of app/ and workers/, where each process notes on disk which spans it has ended.

A span is noted once ``end`` has handed it to the export, in one write, which outlives the process.
"""

import os

from flask import Flask
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor

import telemetry
from app import create_app as create
from workers.celery import app

__all__ = ["app", "create_app"]

app.conf.broker_transport_options = {
    **app.conf.broker_transport_options,
    "visibility_timeout": 10,
    "unacked_restore_interval": 1,
}


class Notes(SpanProcessor):
    """Appends the ids and the name of each ended span to a file."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def on_end(self, span: ReadableSpan) -> None:
        context = span.get_span_context()
        line = f"{context.trace_id:032x} {context.span_id:016x} {span.name}\n"
        os.write(self._fd, line.encode())


telemetry.setup()
trace.get_tracer_provider().add_span_processor(Notes(os.environ["SOAK_ENDED"]))  # type: ignore[attr-defined]


def create_app() -> Flask:
    """Make the web application."""
    return create()
