"""Connect to the broker as a publisher does, and explain a failure."""

import socket
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from celery import Celery, uuid

from .finding import Finding
from .tls import speaks_tls

#: Names, since neither redis nor amqp need be installed.
_LOGIN = {"AccessRefused", "AuthenticationError", "NotAllowed"}

_LOST = {"ConnectionError", "TimeoutError", "ConnectionForced", "RecoverableConnectionError"}

#: Seconds that a broker may take to answer.
TIMEOUT = 3.0

#: Seconds in which RabbitMQ reports that it blocks publishers.
_ALARM = 0.3

#: kombu raises AttributeError if the client of Redis is not installed.
_MISSING = (AttributeError, ImportError, KeyError)

#: Options of the clients of Redis and RabbitMQ. By default they wait without end for a server that
#: accepts a connection and does not answer, or that blocks publishers.
_BOUNDS = {
    "redis": {"socket_connect_timeout": TIMEOUT, "socket_timeout": TIMEOUT},
    "amqp": {"read_timeout": TIMEOUT, "write_timeout": TIMEOUT},
}


def check_broker(app: Celery) -> Finding | None:
    """Connect to the broker of *app* once, as a publisher does. Bound all later waits for it."""
    try:
        bounds = _BOUNDS.get(app.connection_for_write().transport.driver_type, {})
        app.conf.broker_transport_options = {**app.conf.broker_transport_options, **bounds}
        with app.connection_for_write() as connection:
            if connection.transport.driver_type == "memory":
                return Finding(
                    "broker-in-memory", "queue",
                    "memory:// is a broker inside one process: no worker can receive from it",
                    "set broker_url to a broker that both sides reach",
                )  # fmt: skip
            if _over_tls(connection) and (broken := _lacks_tls(connection)):
                return broken  # a client would wait for the handshake, several times
            try:
                connection.connect()
            except Exception as exc:
                return _no_connection(exc, connection, app.conf.broker_write_url)
            if connection.transport.driver_type == "amqp" and _is_blocked(connection):
                return Finding(
                    "broker-blocked", "queue",
                    f"{address(connection)} blocks publishers: messages do not leave this process",
                    "see the alarms in rabbitmqctl status, and free memory or disk space",
                )  # fmt: skip
    except _MISSING as exc:
        return Finding(
            "broker-unknown", "queue", f"no transport for broker_url is installed: {exc.args[0]}",
            "correct the scheme, or install the transport: celery[redis], celery[sqs], …",
        )  # fmt: skip
    except Exception as exc:  # kombu checks a URL only when it is used
        return Finding(
            "broker-unknown", "queue", f"the broker_url of this Celery app is not usable "
            f"({reason(exc)})",
            "correct it, and percent-encode the characters @ / # ? % in its password",
        )  # fmt: skip
    return None


def _is_blocked(connection: Any) -> bool:
    """Return whether RabbitMQ blocks *connection*: it does so after the first message."""
    blocked: list[str] = []
    connection.connection.on_blocked = blocked.append
    connection.Producer().publish("", exchange="", routing_key=uuid())  # to no queue
    with suppress(TimeoutError):
        connection.drain_events(timeout=_ALARM)
    return bool(blocked)


def address(connection: Any) -> str:
    """Return the URL of *connection*, with its password hidden."""
    uri: str = connection.as_uri()
    user = "@" if connection.userid else ""
    return uri if connection.password else uri.replace(":**@", user, 1)


def is_login(exc: BaseException) -> bool:
    """Return whether a server has refused the user or the password."""
    text = str(exc)
    return type(exc).__name__ in _LOGIN or "NOAUTH" in text or "WRONGPASS" in text


def reason(exc: BaseException, secret: str | None = None) -> str:
    """Return class and message of *exc* without *secret*."""
    message = str(exc).replace(secret, "…") if secret else str(exc)
    return f"{type(exc).__name__}: {message}" if message else type(exc).__name__


def is_permission(exc: BaseException) -> bool:
    """Return whether a server has refused this to a user that it knows."""
    return any(type(e).__name__ in ("AccessRefused", "NoPermissionError") for e in _chain(exc))


def is_lost(exc: BaseException) -> bool:
    """Return whether a broken connection or a silent server has caused *exc*."""
    return any(isinstance(e, OSError) or type(e).__name__ in _LOST for e in _chain(exc))


#: Part of an exception's name or message, and what to do.
_REFUSALS = (
    ("OutOfMemory", "raise maxmemory of Redis, or remove keys that nobody needs"),
    ("ReadOnly", "the server is a replica: name the primary in the URL"),
    ("NOREPLICAS", "start the replicas of Redis, or lower min-replicas-to-write"),
    ("MISCONF", "Redis cannot save its data: free its disk, or see its log"),
    ("LOADING", "Redis is loading its data: wait until it is ready"),
    ("PreconditionFailed", "the queue exists with other arguments: declare it alike in task_queues "
     "on both sides, or delete it, so that it is declared again"),
    ("AccessRefused", "give the broker's user the right to declare, write and read the queue"),
    ("NoPermission", "give the broker's user the right to run this command on this key or channel"),
)  # fmt: skip


def refusal(exc: BaseException | None) -> str:
    """Return what to do about *exc*, with which a server refused a command; "" if unknown."""
    text = " ".join(map(reason, _chain(exc)))
    return next((remedy for part, remedy in _REFUSALS if part in text), "")


def _chain(exc: BaseException | None) -> Iterator[BaseException]:
    """Yield *exc* and its causes: kombu raises an error of its own from that of the client."""
    while exc is not None:
        yield exc
        exc = exc.__cause__


def _no_connection(exc: Exception, connection: Any, url: str | None) -> Finding:
    uri, why = address(connection), reason(exc, connection.password)
    if "master_name" in why:
        return Finding(
            "broker-unknown", "queue", f"{uri} is not usable ({why})",
            "name the master of the sentinels: broker_transport_options={'master_name': …}",
        )  # fmt: skip
    if is_login(exc):
        return Finding(
            "broker-login", "queue", f"{uri} refuses this login ({why})",
            "correct the user, password or virtual host in the Celery app's broker_url",
        )  # fmt: skip
    if "CERTIFICATE_VERIFY_FAILED" in why:
        return Finding(
            "broker-tls-untrusted", "queue", f"the certificate of {uri} is not trusted ({why})",
            "name its authority: broker_use_ssl={'ssl_ca_certs': …}, or ssl_ca_certs in the URL",
        )  # fmt: skip
    if not _over_tls(connection) and speaks_tls(*_server(connection), TIMEOUT):
        return Finding(
            "broker-plain-to-tls", "queue", f"the port of {uri} requires TLS",
            f"use {uri.partition('://')[0]}s://, or set broker_use_ssl",
        )  # fmt: skip
    if not url:
        return Finding(
            "broker-unreachable", "queue",
            f"broker_url is not set, and Celery's default {uri} does not answer ({why})",
            "set broker_url, or the environment variable from which the app reads it, in this "
            "process too",
        )  # fmt: skip
    return Finding(
        "broker-unreachable", "queue", f"{uri} does not answer ({why})",
        "start the broker, or correct the Celery app's broker_url",
    )  # fmt: skip


#: The schemes of brokers over TLS.
_TLS = ("amqps", "rediss", "sentinels")


def _over_tls(connection: Any) -> bool:
    return bool(connection.ssl) or address(connection).partition("://")[0] in _TLS


def _server(connection: Any) -> tuple[str, int]:
    port = connection.port or connection.transport.default_port or 0
    return connection.hostname or "localhost", int(port)


def _lacks_tls(connection: Any) -> Finding | None:
    """Report a broker that accepts connections and does not support TLS."""
    server, uri = _server(connection), address(connection)
    try:
        socket.create_connection(server, TIMEOUT).close()
    except OSError:
        return None  # the client reports it
    if speaks_tls(*server, TIMEOUT):
        return None
    scheme = uri.partition("://")[0]
    plain = scheme.removesuffix("s") if scheme in _TLS else scheme
    return Finding(
        "broker-tls", "queue", f"the port of {uri} does not support TLS",
        f"use {plain}:// without broker_use_ssl, or the port for TLS",
    )  # fmt: skip
