"""A worker has the name of ``instrument_celery``, even if the web side is set up first."""

import textwrap
from pathlib import Path

import pytest

from telemetry.otlp.receiver import Receiver

from ...processes import ROOT, Starter

#: A worker that imports a Flask factory: the web side is set up first.
SHOP = """
    import os

    import telemetry
    from celery import Celery
    from flask import Flask
    from telemetry.celery import instrument_celery
    from telemetry.flask import instrument_flask

    telemetry.setup("web")
    app = instrument_flask(Flask("shop"))
    celery = instrument_celery(Celery("shop", broker=os.environ["CELERY_BROKER_URL"]), "worker")
    celery.conf.broker_connection_retry_on_startup = True
    celery.conf.beat_schedule = {"tick": {"task": "shop.pack", "schedule": 0.2}}

    @celery.task(name="shop.pack")
    def pack():
        pass

    @app.get("/pack")
    def view():
        pack.delay()
        return "packed"

    if __name__ == "__main__":
        with app.test_client().get("/pack") as response:
            assert response.text == "packed"
        assert telemetry.flush()
"""


@pytest.fixture
def shop(start: Starter, tmp_path: Path) -> Starter:
    (tmp_path / "shop.py").write_text(textwrap.dedent(SHOP))
    start.env["PYTHONPATH"] = f"{tmp_path}:{ROOT}"
    return start


NAMES = pytest.mark.parametrize(
    ("env", "web", "worker"),
    [
        ({}, "web", "worker"),
        ({"OTEL_SERVICE_NAME": "outside"}, "outside", "outside"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=outside"}, "outside", "outside"),
    ],
    ids=["code", "OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES"],
)


@NAMES
@pytest.mark.parametrize(("spool", "pool"), [("disk", "prefork"), ("memory", "threads")])
def test_web_and_worker_have_names_of_their_own(
    shop: Starter,
    receiver: Receiver,
    env: dict[str, str],
    web: str,
    worker: str,
    spool: str,
    pool: str,
) -> None:
    env = {**env, "QUEUEHOP_SPOOL": spool}
    assert shop("shop", **env).wait() == 0
    running = shop(
        *("celery", "-A", "shop:celery", "worker", "-P", pool, "-c", "1"),
        *("--without-mingle", "--without-gossip"),
        **env,
    )
    spans = receiver.wait_for(lambda spans: len(spans) == 3, 30)
    assert {span.name: span.service for span in spans} == {
        "GET /pack": web,
        "send shop.pack": web,
        "process shop.pack": worker,
    }
    assert len({span.trace_id for span in spans}) == 1
    running.stop()


@NAMES
def test_beat_has_the_name_of_the_queue_side(
    shop: Starter,
    receiver: Receiver,
    tmp_path: Path,
    env: dict[str, str],
    web: str,
    worker: str,
) -> None:
    schedule = str(tmp_path / "schedule")
    beat = shop(
        *("celery", "-A", "shop:celery", "beat", "--pidfile=", "--schedule", schedule),
        **env,
    )
    spans = receiver.wait_for(len, 30)
    assert {(span.name, span.service) for span in spans} == {("send shop.pack", worker)}
    beat.stop()


def test_beat_in_the_worker(shop: Starter, receiver: Receiver, tmp_path: Path) -> None:
    worker = shop(
        *("celery", "-A", "shop:celery", "worker", "-B", "-c", "1", "--without-mingle"),
        *("--schedule", str(tmp_path / "schedule")),
    )
    spans = receiver.wait_for(lambda spans: {"PRODUCER", "CONSUMER"} <= {s.kind for s in spans}, 30)
    assert {span.service for span in spans} == {"worker"}
    worker.stop()


def test_what_the_worker_has_counted_has_its_name_too(shop: Starter, receiver: Receiver) -> None:
    env = {"OTEL_METRIC_EXPORT_INTERVAL": "100"}
    assert shop("shop", **env).wait() == 0
    worker = shop("celery", "-A", "shop:celery", "worker", "-c", "1", "--without-mingle", **env)
    receiver.wait_for(lambda spans: len(spans) == 3, 30)
    worker.stop()
    services = {
        metric.name: {
            attribute.value.string_value
            for attribute in resource.resource.attributes
            if attribute.key == "service.name"
        }
        for request in receiver.metrics
        for resource in request.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }
    assert services["messaging.process.duration"] == {"worker"}
    assert services["http.server.request.duration"] == {"web"}
