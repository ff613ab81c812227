"""Each store of a ping has a span of its own, and none can fail the ping."""

import asyncio
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from telemetry.otlp.decode import ReceivedSpan
from telemetry.otlp.receiver import Receiver

from ..conftest import Broker, free_port, start_worker
from ..processes import ROOT, Starter
from ..rabbitmq import RabbitMQ
from ..system import producer

Ping = Callable[[], tuple[dict[str, str], list[ReceivedSpan]]]


@pytest.fixture
def ping(broker: Broker, receiver: Receiver) -> Iterator[Ping]:
    """Ping the running worker; return the results of the stores, and their spans."""
    with producer(broker.url) as celery:

        def ping() -> tuple[dict[str, str], list[ReceivedSpan]]:
            sent = celery.send_task("workers.tasks.ping", kwargs={"length": 7})
            stores: dict[str, str] = sent.get(timeout=60)["stores"]

            def of_run(spans: list[ReceivedSpan]) -> list[ReceivedSpan]:
                """Return the spans of the operations, and check their parents."""
                runs = [s for s in spans if s.attributes.get("messaging.message.id") == sent.id]
                functions = {
                    span.span_id: span
                    for span in spans
                    for run in runs
                    if span.parent_id == run.span_id and span.name.startswith("touch_")
                }
                assert {span.kind for span in functions.values()} <= {"INTERNAL"}
                parents = {*functions, *(run.span_id for run in runs)}
                operations = [s for s in spans if s.parent_id in parents and s.kind == "CLIENT"]
                for span in operations:
                    if span.parent_id in functions:
                        assert span.status == functions[span.parent_id].status
                return operations

            # The run's own span ends, and is sent, after those of its stores.
            spans = receiver.wait_for(
                lambda spans: [
                    s for s in spans if s.attributes.get("messaging.message.id") == sent.id
                ]
            )
            return stores, of_run(spans)

        yield ping


def test_what_is_written_and_how_it_is_told(
    start: Starter, broker: Broker, ping: Ping, tmp_path: Path
) -> None:
    start_worker(start)
    stores, spans = ping()
    assert stores == {"redis": "ok", "mongo": "skipped: MONGO_URL is not set", "sql": "ok"}
    server = {"server.address": "127.0.0.1", "server.port": broker.port}
    of_redis = {"db.system.name": "redis", "db.namespace": "0", **server}
    of_sql = {
        "db.system.name": "sqlite",
        "db.namespace": "pings.sqlite3",
        "db.collection.name": "pings",
    }
    table = "id INTEGER NOT NULL, length INTEGER NOT NULL, PRIMARY KEY (id)"
    assert {span.name: span.attributes for span in spans} == {
        "SET": {**of_redis, "db.operation.name": "SET"},
        "GET": {**of_redis, "db.operation.name": "GET"},
        "CREATE TABLE pings": {
            **of_sql,
            "db.operation.name": "CREATE TABLE",
            "db.query.summary": "CREATE TABLE pings",
            "db.query.text": f"CREATE TABLE IF NOT EXISTS pings ( {table} )",
        },
        "INSERT pings": {
            **of_sql,
            "db.operation.name": "INSERT",
            "db.query.summary": "INSERT pings",
            "db.query.text": "INSERT INTO pings (length) VALUES (?)",
        },
    }
    assert {(span.kind, span.status) for span in spans} == {("CLIENT", "UNSET")}
    with redis.Redis(port=broker.port) as client:
        assert client.get("queuehop:length") == b"7"
    with sqlite3.connect(tmp_path / "pings.sqlite3") as database:
        assert database.execute("SELECT length FROM pings").fetchall() == [(7,)]
    database.close()


def assert_failed(spans: list[ReceivedSpan], name: str, error: str) -> ReceivedSpan:
    """Assert that the store has one span, an ERROR with its exception; return it."""
    (span,) = [span for span in spans if span.name == name]
    assert (span.kind, span.status) == ("CLIENT", "ERROR")
    assert span.attributes["error.type"] == error
    assert [event.name for event in span.events] == ["exception"]
    return span


def test_stores_that_are_away_fail_nothing_but_their_spans(
    start: Starter, ping: Ping, tmp_path: Path
) -> None:
    away = free_port()
    worker = start_worker(
        start,
        REDIS_URL=f"redis://:hunter2@127.0.0.1:{away}/3",
        MONGO_URL=f"mongodb://me:hunter2@127.0.0.1:{away}/zoo?authSource=admin",
        DATABASE_URL=f"sqlite:///{tmp_path / 'no such folder' / 'pings.sqlite3'}",
    )
    for _ in range(2):
        stores, spans = ping()
        assert stores == {
            "redis": "failed: redis.exceptions.ConnectionError",
            "mongo": "failed: pymongo.errors.ServerSelectionTimeoutError",
            "sql": "failed: sqlite3.OperationalError",
        }
        of_redis = assert_failed(spans, "SET", "redis.exceptions.ConnectionError")
        of_mongo = assert_failed(
            spans, "insert pings", "pymongo.errors.ServerSelectionTimeoutError"
        )
        assert_failed(spans, "CREATE TABLE pings", "sqlite3.OperationalError")
        server = {"server.address": "127.0.0.1", "server.port": away}
        assert of_redis.attributes == {
            "db.system.name": "redis",
            "db.namespace": "3",
            "db.operation.name": "SET",
            "error.type": "redis.exceptions.ConnectionError",
            **server,
        }
        assert of_mongo.attributes == {
            "db.system.name": "mongodb",
            "db.namespace": "zoo",
            "db.collection.name": "pings",
            "db.operation.name": "insert",
            "error.type": "pymongo.errors.ServerSelectionTimeoutError",
            **server,
        }
        assert "hunter2" not in repr(spans)
    worker.wait_for_line("the store at MONGO_URL failed")
    assert "hunter2" not in worker.output


@pytest.mark.alone
def test_stores_that_hang_are_given_up(start: Starter, ping: Ping, tmp_path: Path) -> None:
    locked = sqlite3.connect(tmp_path / "pings.sqlite3", isolation_level=None)
    locked.execute("BEGIN EXCLUSIVE")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        start_worker(
            start,
            REDIS_URL=f"redis://127.0.0.1:{port}",
            MONGO_URL=f"mongodb://127.0.0.1:{port}",
        )
        begin = time.monotonic()
        stores, spans = ping()
        assert time.monotonic() - begin < 6.0
    locked.close()
    assert stores["redis"] == "failed: redis.exceptions.TimeoutError"
    assert stores["mongo"].startswith("failed: pymongo.errors.")
    assert stores["sql"] == "failed: sqlite3.OperationalError"
    assert {span.status for span in spans} == {"ERROR"}
    assert max(span.duration for span in spans) < 2.0


def test_a_url_that_cannot_be_used_is_named_and_not_shown(start: Starter, ping: Ping) -> None:
    password = "hunter2@host:x"
    worker = start_worker(
        start,
        REDIS_URL=f"redis://:{password}@host:port/0",
        MONGO_URL=f"mongodb://me:{password}@host:port",
        DATABASE_URL=f"nosuchthing://me:{password}@host/0",
    )
    stores, spans = ping()
    assert set(stores.values()) == {"failed: workers.stores.Unusable"}
    told = {span.name: span.events[0].attributes["exception.message"] for span in spans}
    assert {name: message.partition(":")[0] for name, message in told.items()} == {
        "redis": "REDIS_URL cannot be used",
        "mongodb": "MONGO_URL cannot be used",
        "other_sql": "DATABASE_URL cannot be used",
    }
    assert {span.status for span in spans} == {"ERROR"}
    assert "hunter2" not in repr(spans)
    assert "hunter2" not in worker.output


def test_a_store_whose_library_is_not_installed_is_skipped(
    start: Starter, ping: Ping, tmp_path: Path
) -> None:
    for library in ("pymongo", "sqlalchemy"):
        (tmp_path / f"{library}.py").write_text(f"raise ModuleNotFoundError(name={library!r})\n")
    start_worker(
        start, PYTHONPATH=f"{tmp_path}:{ROOT}", MONGO_URL="mongodb://127.0.0.1:1", REDIS_URL=""
    )
    stores, spans = ping()
    assert stores == {
        "redis": "ok",
        "mongo": "skipped: pymongo is not installed",
        "sql": "skipped: sqlalchemy is not installed",
    }
    assert {span.name for span in spans} == {"SET", "GET"}


def test_without_a_redis_that_store_is_skipped(rabbitmq: RabbitMQ, start: Starter) -> None:
    start_worker(start, CELERY_BROKER_URL=rabbitmq.url)
    with producer(rabbitmq.url) as celery:
        stores = celery.send_task("workers.tasks.ping").get(timeout=60)["stores"]
    assert stores["redis"] == "skipped: REDIS_URL is not set"
    assert stores["sql"] == "ok"


@pytest.fixture
def mongo() -> Iterator[str]:
    """A server with MongoDB's protocol. No package registry has the real one."""
    wire = pytest.importorskip("mongoeco.wire", reason="mongoeco is only for 3.13 and 3.14")
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    proxy = wire.AsyncMongoEcoProxyServer()
    yield asyncio.run_coroutine_threadsafe(proxy.start(), loop).result(20).uri
    asyncio.run_coroutine_threadsafe(proxy.close(), loop).result(20)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def test_mongodb_gets_the_length(start: Starter, ping: Ping, mongo: str) -> None:
    import pymongo

    start_worker(start, MONGO_URL=mongo)
    stores, spans = ping()
    assert stores["mongo"] == "ok"
    (insert,) = [span for span in spans if span.name == "insert pings"]
    assert (insert.kind, insert.status) == ("CLIENT", "UNSET")
    assert insert.attributes["db.namespace"] == "queuehop"
    with pymongo.MongoClient(mongo) as client:
        assert [ping["length"] for ping in client["queuehop"]["pings"].find()] == [7]
