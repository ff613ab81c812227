"""A Flask and a Celery app, sound; ``BREAK`` names the one thing that is broken in it."""

import os
import time

from celery import Celery, signals
from celery.concurrency.thread import TaskPool
from flask import Flask
from opentelemetry import trace

import telemetry
from telemetry.celery import instrument_celery
from telemetry.flask import instrument_flask

BREAK = os.environ.get("BREAK", "")

celery = Celery("project", broker=os.environ["CELERY_BROKER_URL"], set_as_current=False)
celery.conf.broker_connection_retry_on_startup = True
if BREAK != "celery-not-instrumented":
    named = "" if BREAK == "service-name-default" else "project-worker"
    instrument_celery(celery, named or None, "link" if BREAK == "run-apart" else "child")
if BREAK == "celery-doubled":
    from opentelemetry.instrumentation.celery import CeleryInstrumentor

    CeleryInstrumentor().instrument()


class OwnPool(TaskPool):
    """A pool that nobody has tried."""


@signals.before_task_publish.connect(weak=False)
def strip(headers, **_):
    if BREAK == "header-stripped":
        headers.pop("traceparent", None)


@signals.worker_process_init.connect(weak=False)
def forget(**_):
    if BREAK == "set-up-only-in-parent":
        trace._TRACER_PROVIDER = None
        telemetry.setup = None


if BREAK == "clocks-apart":
    _clock = time.time
    time.time = lambda: _clock() + 3600

if BREAK == "set-up-only-in-children":
    signals.celeryd_init.receivers = []


def create_app() -> Flask:
    app = Flask(__name__)
    if BREAK != "no-provider":
        telemetry.setup(None if BREAK == "service-name-default" else "project-web")
    if BREAK == "flask-doubled":
        app._is_instrumented_by_opentelemetry = True
    return app if BREAK == "flask-not-instrumented" else instrument_flask(app)
