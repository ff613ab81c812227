"""The result backend, read as ``delay().get()`` reads it."""

import socket
from pathlib import Path

import redis

from ...conftest import Broker, free_port
from ...system import Server
from .conftest import BOTH, Doctor, codes, first


def test_results_come_back(doctor: Doctor, worker, broker: Broker) -> None:
    process = worker(CELERY_RESULT_BACKEND=broker.url)
    assert codes(doctor(CELERY_RESULT_BACKEND=broker.url)) == []
    # A message of protocol 1 cannot ask for a result of a task that ignores it.
    assert codes(doctor(CELERY_RESULT_BACKEND=broker.url, BREAK="protocol-1")) == []
    process.stop()
    worker(CELERY_RESULT_BACKEND="rpc://")
    said = doctor(CELERY_RESULT_BACKEND=broker.url)
    assert codes(said) == ["result-missing"]
    assert "the worker stores results in rpc://" in first(said)["problem"]


def test_results_that_return_through_the_broker(doctor: Doctor, worker) -> None:
    worker(CELERY_RESULT_BACKEND="rpc://")
    assert codes(doctor(CELERY_RESULT_BACKEND="rpc://")) == []


def test_a_result_backend_that_is_down(doctor: Doctor, worker, tmp_path: Path) -> None:
    worker()
    url = f"redis://:secret@127.0.0.1:{free_port()}/0"
    said = doctor(CELERY_RESULT_BACKEND=url)
    assert codes(said) == ["result-backend-unreachable"]
    assert "Connection refused" in first(said)["problem"]

    with socket.create_server(("127.0.0.1", 0)) as quiet:
        url = f"redis://127.0.0.1:{quiet.getsockname()[1]}/0"
        said = doctor(CELERY_RESULT_BACKEND=url)
    assert codes(said) == ["result-backend-unreachable"]
    assert "no answer in 3 s" in first(said)["problem"]

    server = Server(tmp_path, "right")
    said = doctor(CELERY_RESULT_BACKEND=server.url.replace("right", "secret"))
    server.process.stop()
    assert codes(said) == ["result-backend-login"]
    assert "secret" not in str(said)

    said = doctor(CELERY_RESULT_BACKEND="pigeon://127.0.0.1")
    assert codes(said) == ["result-backend-unknown"]
    said = doctor(CELERY_RESULT_BACKEND="cache+memory://")
    assert codes(said) == ["result-backend-in-memory"]


def test_a_result_backend_that_is_read_only(doctor: Doctor, worker, tmp_path: Path) -> None:
    server = Server(tmp_path, "secret")
    with redis.Redis.from_url(server.url) as client:
        client.replicaof("127.0.0.1", "1")
    worker(CELERY_RESULT_BACKEND=server.url)
    said = doctor(CELERY_RESULT_BACKEND=server.url)
    server.process.stop()
    assert codes(said) == ["result-missing"]
    assert "ReadOnlyError" in first(said)["problem"]
    assert "name the primary" in first(said)["remedy"]


def test_a_result_backend_that_nobody_uses(doctor: Doctor, worker) -> None:
    worker()
    url = f"redis://127.0.0.1:{free_port()}/0"
    assert codes(doctor(*BOTH, CELERY_RESULT_BACKEND=url, BREAK="ignores-results")) == []
