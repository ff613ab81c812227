"""The stores that a ping writes to, traced by hand in two ways.

A decorator makes an INTERNAL span for a function. Inside it, a ``with`` makes a CLIENT span for
each operation. If a store is down, both spans are errors and the ping still succeeds. Each process
opens its own clients at first use, since a connection does not survive a fork.
"""

import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path

from celery.exceptions import SoftTimeLimitExceeded
from celery.signals import worker_init
from opentelemetry import trace
from opentelemetry.semconv._incubating.attributes.db_attributes import DbSystemNameValues as System
from opentelemetry.semconv.attributes.db_attributes import (
    DB_COLLECTION_NAME,
    DB_NAMESPACE,
    DB_OPERATION_NAME,
    DB_QUERY_SUMMARY,
    DB_QUERY_TEXT,
    DB_SYSTEM_NAME,
)
from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE
from opentelemetry.semconv.attributes.server_attributes import SERVER_ADDRESS, SERVER_PORT
from opentelemetry.trace import SpanKind
from opentelemetry.util.types import AttributeValue

from .celery import app

logger = logging.getLogger(__name__)
tracer = trace.get_tracer(__name__)

Attributes = Mapping[str, AttributeValue]
Touch = Callable[[int], None]

#: Seconds after which a store that does not answer counts as down.
TIMEOUT = 1

#: The collection and the table of pings, and the database where the URL names none.
PINGS = "pings"
DATABASE = "queuehop"


class Unusable(Exception):
    """A store's URL cannot be used. The text names the variable, never its value."""


def touch(length: int) -> dict[str, str]:
    """Write *length* to every store; return ok, skipped or failed for each, with the reason."""
    broker = app.conf.broker_url or ""
    redis = os.environ.get("REDIS_URL") or (broker if broker.startswith("redis") else "")
    mongo = os.environ.get("MONGO_URL", "")
    sql = os.environ.get("DATABASE_URL") or f"sqlite:///{_default_file()}"
    return {
        "redis": _touch(_Store("REDIS_URL", redis, System.REDIS, _open_redis), length),
        "mongo": _touch(_Store("MONGO_URL", mongo, System.MONGODB, _open_mongo), length),
        "sql": _touch(_Store("DATABASE_URL", sql, System.OTHER_SQL, _open_sql), length),
    }


def _default_file() -> Path:
    return Path(tempfile.gettempdir(), f"queuehop-{os.getuid()}.sqlite3")


@worker_init.connect
def _import_libraries(**_: object) -> None:
    """Import the libraries before the fork, so that the first ping of a child is not slow."""
    for library in ("redis", "pymongo", "sqlalchemy"):
        with suppress(ImportError):
            import_module(library)


@dataclass(frozen=True, slots=True)
class _Store:
    variable: str
    url: str = field(repr=False)
    system: System
    open: Callable[[str], Touch]


def _touch(store: _Store, length: int) -> str:
    if not store.url:
        return f"skipped: {store.variable} is not set"
    try:
        _opened(store, os.getpid())(length)
    except SoftTimeLimitExceeded:
        raise
    except ImportError as exc:
        return f"skipped: {exc.name} is not installed"
    except Exception as exc:
        error = _error_type(exc)
        logger.warning("the store at %s failed: %s", store.variable, error)
        return f"failed: {error}"
    return "ok"


@cache
def _opened(store: _Store, pid: int) -> Touch:
    try:
        return store.open(store.url)
    except ImportError:
        raise
    except Exception as exc:
        # The message of a URL parser may quote the password.
        reason = f"{store.variable} cannot be used: {type(exc).__name__}"

    def unusable(length: int) -> None:
        with _operation(store.system.value, {DB_SYSTEM_NAME: store.system.value}):
            raise Unusable(reason)

    return unusable


@contextmanager
def _operation(name: str, attributes: Attributes) -> Iterator[None]:
    """Run one operation on a store inside a span of its own; an exception makes it an ERROR."""
    with tracer.start_as_current_span(name, kind=SpanKind.CLIENT, attributes=attributes) as span:
        try:
            yield
        except Exception as exc:
            span.set_attribute(ERROR_TYPE, _error_type(exc))
            raise


def _error_type(exc: BaseException) -> str:
    exc = getattr(exc, "orig", None) or exc  # SQLAlchemy's errors wrap the driver's
    module, name = type(exc).__module__, type(exc).__qualname__
    return name if module == "builtins" else f"{module}.{name}"


def _open_redis(url: str) -> Touch:
    from redis import Redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    client = Redis.from_url(
        url, socket_connect_timeout=TIMEOUT, socket_timeout=TIMEOUT, retry=Retry(NoBackoff(), 0)
    )
    options = client.connection_pool.connection_kwargs
    where: dict[str, AttributeValue] = {
        DB_SYSTEM_NAME: System.REDIS.value,
        DB_NAMESPACE: str(options.get("db") or 0),
        SERVER_ADDRESS: options.get("path") or options.get("host") or "localhost",
    }
    if "path" not in options:
        where[SERVER_PORT] = int(options.get("port") or 6379)
    key = "queuehop:length"

    # Named by the command alone: the database's number would only confuse a reader.
    @tracer.start_as_current_span("touch_redis")
    def touch_redis(length: int) -> None:
        with _operation("SET", {**where, DB_OPERATION_NAME: "SET"}):
            client.set(key, length, ex=3600)
        with _operation("GET", {**where, DB_OPERATION_NAME: "GET"}):
            client.get(key)

    return touch_redis


def _open_mongo(url: str) -> Touch:
    from pymongo import MongoClient

    milliseconds = TIMEOUT * 1000
    client: MongoClient[dict[str, object]] = MongoClient(
        url,
        connect=False,
        timeoutMS=milliseconds,
        serverSelectionTimeoutMS=milliseconds,
        connectTimeoutMS=milliseconds,
    )
    pings = client.get_default_database(DATABASE)[PINGS]
    where: dict[str, AttributeValue] = {
        DB_SYSTEM_NAME: System.MONGODB.value,
        DB_NAMESPACE: pings.database.name,
        DB_COLLECTION_NAME: PINGS,
        DB_OPERATION_NAME: "insert",
    }
    for host, port in list(client.topology_description.server_descriptions())[:1]:
        where[SERVER_ADDRESS] = host
        if port is not None:
            where[SERVER_PORT] = port

    @tracer.start_as_current_span("touch_mongo")
    def touch_mongo(length: int) -> None:
        with _operation(f"insert {PINGS}", where):
            pings.insert_one({"length": length})

    return touch_mongo


def _open_sql(url: str) -> Touch:
    import sqlalchemy as sa
    from sqlalchemy.schema import CreateTable

    address = sa.make_url(url)
    engine = sa.create_engine(
        address,
        connect_args=_SQL_TIMEOUTS.get(address.get_driver_name(), {}),
        hide_parameters=True,
        pool_pre_ping=True,
    )
    pings = sa.Table(
        PINGS,
        sa.MetaData(),
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("length", sa.Integer, nullable=False),
    )
    create = CreateTable(pings, if_not_exists=True)
    insert = pings.insert().values(length=sa.bindparam("length"))
    created = False
    where: dict[str, AttributeValue] = {
        DB_SYSTEM_NAME: _SQL_SYSTEMS.get(address.get_backend_name(), System.OTHER_SQL).value,
        DB_COLLECTION_NAME: PINGS,
    }
    if address.database:
        where[DB_NAMESPACE] = Path(address.database).name
    if address.host:
        where[SERVER_ADDRESS] = address.host
        if address.port:
            where[SERVER_PORT] = address.port

    def run(operation: str, statement: CreateTable | sa.Insert, *values: Mapping[str, int]) -> None:
        summary = f"{operation} {PINGS}"
        text = " ".join(str(statement.compile(dialect=engine.dialect)).split())
        attributes = {
            **where,
            DB_OPERATION_NAME: operation,
            DB_QUERY_SUMMARY: summary,
            DB_QUERY_TEXT: text,
        }
        with _operation(summary, attributes), engine.begin() as connection:
            connection.execute(statement, *values)

    @tracer.start_as_current_span("touch_sql")
    def touch_sql(length: int) -> None:
        nonlocal created
        if not created:
            run("CREATE TABLE", create)
            created = True
        run("INSERT", insert, {"length": length})

    return touch_sql


_SQL_SYSTEMS = {
    "mariadb": System.MARIADB,
    "mssql": System.MICROSOFT_SQL_SERVER,
    "mysql": System.MYSQL,
    "oracle": System.ORACLE_DB,
    "postgresql": System.POSTGRESQL,
    "sqlite": System.SQLITE,
}

# The timeout options of the drivers. For other drivers, set it in DATABASE_URL.
_SQL_TIMEOUTS: Mapping[str, Mapping[str, int]] = {
    "pysqlite": {"timeout": TIMEOUT},
    "psycopg": {"connect_timeout": TIMEOUT},
    "psycopg2": {"connect_timeout": TIMEOUT},
    "pymysql": {"connect_timeout": TIMEOUT},
    "mysqldb": {"connect_timeout": TIMEOUT},
}
