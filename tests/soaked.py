"""The system of app/ and workers/, in which each process notes on disk what has ended.

A note is written in one write, which outlives the process: of a span once ``end`` has passed it to
the export, of a log record once the logging call has returned, and of a task before it runs.
"""

import logging
import os
import secrets

from celery import signals
from flask import Flask
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor

import telemetry
from app import create_app as create
from workers.celery import app

__all__ = ["LOGGER", "app", "create_app"]

#: The logger whose lines are counted.
LOGGER = logging.getLogger("soak")
LOGGER.setLevel(logging.INFO)

app.conf.broker_transport_options = {
    **app.conf.broker_transport_options,
    "visibility_timeout": 10,
    "unacked_restore_interval": 1,
}

_ENDED, _BEGUN = (
    os.open(os.environ[name], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    for name in ("SOAK_ENDED", "SOAK_BEGUN")
)


class Notes(SpanProcessor):
    """Notes the ids and the name of each ended span."""

    def on_end(self, span: ReadableSpan) -> None:
        _note(span.get_span_context(), span.name)


def _note(context: trace.SpanContext, what: str) -> None:
    os.write(_ENDED, f"{context.trace_id:032x} {context.span_id:016x} {what}\n".encode())


def log(**_: object) -> None:
    """Log a unique line, and note it."""
    text = f"log {secrets.token_hex(8)}"
    LOGGER.info(text)
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        _note(context, text)


@signals.task_prerun.connect
def begin(task_id: str, **_: object) -> None:
    """Note the task, and log a line, which is the last one of a child killed in the task."""
    os.write(_BEGUN, f"{task_id}\n".encode())
    log()


for ending in (signals.task_success, signals.task_failure, signals.task_retry):
    ending.connect(log)

telemetry.setup()
if hasattr(provider := trace.get_tracer_provider(), "add_span_processor"):  # tracing is on
    provider.add_span_processor(Notes())


def create_app() -> Flask:
    """Make the web application."""
    web = create()
    web.before_request(log)
    return web
