"""A sound Flask app and Celery app. ``BREAK`` names a fault, or a difference, in them."""

import os
import resource
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

import flask
from celery import Celery, Task, shared_task, signals
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
    "accepts-yaml": {"accept_content": ["yaml"]},
    "compressed": {"task_compression": "gzip"},
    "compressed-by-none": {"task_compression": "pigeon"},
    "beat": {"beat_schedule": {"tick": {"task": "pack", "schedule": 60}}},
    "broadcast": {"task_queues": [Queue("celery"), Broadcast("all")]},
    "declared": {"task_queues": [Queue("celery"), Queue("idle")]},
    "eager": {"task_always_eager": True},
    "limited": {"task_annotations": {"*": {"rate_limit": "1/h"}}},
    "limited-all": {"task_default_rate_limit": "1/h"},
    "key-prefix": {"broker_transport_options": {"global_keyprefix": "shop:"}},
    "ignores-results": {"task_ignore_result": True},
    "no-remote-control": {"worker_enable_remote_control": False},
    "no-such-serializer": {"task_serializer": "pigeon"},
    "other-arguments": {
        "task_default_queue": "ordered",
        "task_queues": [Queue("ordered", queue_arguments={"x-max-priority": 5})],
    },
    "own-router": {"task_routes": [by_first_argument]},
    "pickle": {"task_serializer": "pickle", "accept_content": ["pickle"]},
    "protocol-1": {"task_protocol": 1},
    "routed": {"task_routes": {"pack": "slow"}},
}


class PastSendTask(Celery):
    """An app that publishes by itself, without the headers that it is given."""

    def send_task(self, name, args=None, kwargs=None, task_id=None, queue="celery", **_):
        message = self.amqp.as_task_v2(task_id, name, args, kwargs)
        with self.producer_pool.acquire() as producer:
            self.amqp.send_task_message(producer, name, message, queue=queue)
        return self.AsyncResult(task_id)


class NeedsArguments(Task):
    """The class of all tasks."""

    def before_start(self, task_id, args, kwargs):
        if "runs-with-arguments" in BREAK and not args:
            raise ValueError("which tenant?")


celery = (PastSendTask if "app-past-send" in BREAK else Celery)(
    "project",
    broker=os.environ["CELERY_BROKER_URL"],
    backend=os.environ.get("CELERY_RESULT_BACKEND"),
    set_as_current="current" in BREAK,
    task_cls=NeedsArguments,
)
celery.conf.broker_connection_retry_on_startup = True
if "default" in BREAK:
    celery.set_default()
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


class PastSend(Task):
    """Publishes by itself."""

    def apply_async(self, args=None, kwargs=None, **options):
        message = self.app.amqp.as_task_v2("1", self.name, args, kwargs)
        with self.app.producer_pool.acquire() as producer:
            return self.app.amqp.send_task_message(
                producer, self.name, message, queue=options.get("queue", "celery")
            )


class OwnWay(Task):
    """Publishes as Celery does, after code of its own."""

    if "delays-in-a-thread" in BREAK:

        def delay(self, *args, **kwargs):
            with ThreadPoolExecutor(1) as pool:
                return pool.submit(self.apply_async, args, kwargs).result()

    def apply_async(self, args=None, kwargs=None, **options):
        if "needs-arguments" in BREAK and not args:
            raise ValueError("which tenant?")
        return super().apply_async(args, kwargs, **{"priority": 3, **options})


@celery.task(name="pack", base=PastSend if "past-send" in BREAK else OwnWay)
def pack():
    pass


if "worker-lacks-task" not in BREAK:

    @celery.task(name="ship", queue="slow" if "routed" in BREAK else None)
    def ship():
        pass


if {"shared", "current", "default", "makes-celery"} & {*BREAK}:

    @shared_task(name="share")
    def share():
        pass


class OwnPool(TaskPool):
    """A pool that is not supported."""


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
            return datetime.now(tz) + timedelta(seconds=AHEAD)

    AHEAD = float(os.environ.get("AHEAD", 3600))
    _clock = time.time
    time.time = lambda: _clock() + AHEAD
    request.datetime = Ahead


@signals.worker_ready.connect(weak=False)
@signals.worker_process_init.connect(weak=False)
def fill(**_):
    if "disk-full" in BREAK:  # for this process: its files may not grow
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))


if "set-up-only-in-children" in BREAK:
    signals.celeryd_init.receivers = []


class Edge:
    """A WSGI middleware that changes headers."""

    def __init__(self, wsgi_app):
        self.wsgi_app = wsgi_app

    def __call__(self, environ, start_response):
        if "strips" in BREAK and environ["PATH_INFO"].startswith("/ping"):
            environ.pop("HTTP_TRACEPARENT", None)
        if "replaces" in BREAK:
            environ["HTTP_TRACEPARENT"] = f"00-{'ab' * 16}-{'cd' * 8}-01"
        if "redirects" in BREAK:
            start_response("301 Moved Permanently", [("Location", "https://shop.example/")])
            return [b""]
        return self.wsgi_app(environ, start_response)


def create_app() -> flask.Flask:
    if "flask-doubled-for-all" in BREAK:
        from opentelemetry.instrumentation.flask import FlaskInstrumentor

        FlaskInstrumentor().instrument()
    app = flask.Flask(__name__)
    if "prints" in BREAK:
        print("loading")
    if "starts-a-thread" in BREAK:
        threading.Thread(target=threading.Event().wait).start()
    if "makes-celery" in BREAK:
        again = Celery("project", broker=celery.conf.broker_url, backend=celery.conf.result_backend)
        again.conf.task_compression = celery.conf.task_compression
        if "untraced" not in BREAK:
            instrument_celery(again)
        again.set_default()
    if {"own-provider", "provider-without-exporter"} & {*BREAK}:
        trace.set_tracer_provider(TracerProvider(shutdown_on_exit=False))
    if "own-provider" in BREAK:
        processor = SimpleSpanProcessor(InMemorySpanExporter())
        trace.get_tracer_provider().add_span_processor(processor)
    if "no-provider" not in BREAK:
        telemetry.setup(None if "service-name-default" in BREAK else "project-web")
    if "named-twice" in BREAK:
        telemetry.setup("shop")
    if "flask-doubled" in BREAK:
        from opentelemetry.instrumentation.flask import FlaskInstrumentor

        FlaskInstrumentor().instrument_app(app)
    pool = ThreadPoolExecutor(1)
    if "fails" in BREAK:
        app.before_request(lambda: 1 / 0)

    @app.get("/ping")
    def ping():
        if "publishes-in-a-thread" in BREAK:
            return pool.submit(ship.apply_async, queue="nobody").result().id
        return ship.apply_async(queue="nobody").id

    if "takes-orders" in BREAK:
        app.post("/orders")(lambda: "taken")

    untraced = app.wsgi_app
    if "flask-not-instrumented" not in BREAK:
        inbound = next((each for each in ("link", "ignore") if each in BREAK), "continue")
        instrument_flask(app, inbound)
    if "replaced-wsgi-app" in BREAK:
        app.wsgi_app = untraced
    if {"strips", "replaces", "redirects"} & {*BREAK}:
        app.wsgi_app = Edge(app.wsgi_app)
    if "odd-app" in BREAK:
        app.url_map = None
    return app
