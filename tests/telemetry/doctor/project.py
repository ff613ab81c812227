"""A Flask and a Celery app, sound; ``BREAK`` names what is broken, or only different, in it."""

import os
import time
from datetime import datetime, timedelta

import flask
from celery import Celery, signals
from celery.concurrency.thread import TaskPool
from kombu import Queue
from kombu.common import Broadcast
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import telemetry
from telemetry.celery import instrument_celery
from telemetry.export.spool import spawn
from telemetry.flask import instrument_flask

BREAK = os.environ.get("BREAK", "").split(",")
if "no-sender" in BREAK:
    spawn.interpreter = lambda: "/bin/false"


def by_first_argument(name, args, kwargs, options, task=None, **_):
    return {"queue": args[0]}


DIFFERENT = {
    "broadcast": {"task_queues": [Queue("celery"), Broadcast("all")]},
    "declared": {"task_queues": [Queue("celery"), Queue("idle")]},
    "eager": {"task_always_eager": True},
    "no-remote-control": {"worker_enable_remote_control": False},
    "no-such-serializer": {"task_serializer": "pigeon"},
    "own-router": {"task_routes": [by_first_argument]},
    "pickle": {"task_serializer": "pickle", "accept_content": ["pickle"]},
    "routed": {"task_routes": {"pack": "slow"}},
}

celery = Celery("project", broker=os.environ["CELERY_BROKER_URL"], set_as_current=False)
celery.conf.broker_connection_retry_on_startup = True
for each in BREAK:
    celery.conf.update(DIFFERENT.get(each, {}))
if "no-configuration" in BREAK:
    celery.config_from_object("no_such_settings")
if "another-app" in BREAK:
    other = instrument_celery(Celery("other", set_as_current=False))
elif not {"celery-not-instrumented", "contrib-publishes"} & {*BREAK}:
    named = "" if "service-name-default" in BREAK else "project-worker"
    instrument_celery(celery, named or None, "link" if "run-apart" in BREAK else "child")
if {"celery-doubled", "contrib-publishes"} & {*BREAK}:
    from opentelemetry.instrumentation.celery import CeleryInstrumentor

    CeleryInstrumentor().instrument()


@celery.task(name="pack")
def pack():
    pass


class OwnPool(TaskPool):
    """A pool that nobody has tried."""


@signals.before_task_publish.connect(weak=False)
def strip(headers, **_):
    if "header-stripped" in BREAK:
        headers.pop("traceparent", None)


@signals.worker_process_init.connect(weak=False)
def forget(**_):
    if "set-up-only-in-parent" in BREAK:
        trace._TRACER_PROVIDER = None
        telemetry.setup = None
    if "another-provider-in-children" in BREAK:
        trace._TRACER_PROVIDER = TracerProvider(
            resource=trace.get_tracer_provider().resource, shutdown_on_exit=False
        )


if "clocks-apart" in BREAK:
    from celery.worker import request

    class Ahead(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.now(tz) + timedelta(hours=1)

    _clock = time.time
    time.time = lambda: _clock() + 3600
    request.datetime = Ahead

if "set-up-only-in-children" in BREAK:
    signals.celeryd_init.receivers = []


def create_app() -> flask.Flask:
    if "flask-doubled-for-all" in BREAK:
        from opentelemetry.instrumentation.flask import FlaskInstrumentor

        FlaskInstrumentor().instrument()
    app = flask.Flask(__name__)
    if "prints" in BREAK:
        print("loading")
    if {"own-provider", "provider-without-exporter"} & {*BREAK}:
        trace.set_tracer_provider(TracerProvider(shutdown_on_exit=False))
    if "own-provider" in BREAK:
        processor = SimpleSpanProcessor(InMemorySpanExporter())
        trace.get_tracer_provider().add_span_processor(processor)
    if "no-provider" not in BREAK:
        telemetry.setup(None if "service-name-default" in BREAK else "project-web")
    if "flask-doubled" in BREAK:
        from opentelemetry.instrumentation.flask import FlaskInstrumentor

        FlaskInstrumentor().instrument_app(app)
    return app if "flask-not-instrumented" in BREAK else instrument_flask(app)
