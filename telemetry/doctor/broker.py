"""Whether the broker accepts a connection from this process, and if not, why."""

import socket
from typing import Any

from celery import Celery

from .finding import Finding
from .tls import speaks_tls

__all__ = ["address", "check_broker", "is_login", "reason"]

#: Names, since neither redis nor amqp need be installed.
_LOGIN = {"AccessRefused", "AuthenticationError", "NotAllowed", "NoPermissionError"}

#: Seconds that a broker may take to answer.
TIMEOUT = 3.0

_MISSING = (ImportError, KeyError)


def check_broker(app: Celery) -> Finding | None:
    """Connect to the broker of *app* once, as a publisher does."""
    try:
        with _connection(app) as connection:
            if connection.transport.driver_type == "memory":
                return Finding(
                    "broker-in-memory", "queue",
                    "memory:// is a broker inside of one process: no worker can receive from it",
                    "set broker_url to a broker that both sides reach",
                )  # fmt: skip
            if _over_tls(connection) and (broken := _lacks_tls(connection)):
                return broken  # a client would wait for the handshake, several times
            try:
                connection.connect()
            except Exception as exc:
                return _refused(exc, connection)
    except _MISSING as exc:
        return Finding(
            "broker-unknown", "queue", f"no transport for broker_url is installed: {exc.args[0]}",
            "correct its scheme, or install what it needs: celery[redis], celery[sqs], …",
        )  # fmt: skip
    return None


def _connection(app: Celery) -> Any:
    connection = app.connection_for_write()
    if connection.transport.driver_type != "redis":
        return connection
    # Its client waits for ever for a server that accepts a connection and does not answer.
    bounds = {"socket_connect_timeout": TIMEOUT, "socket_timeout": TIMEOUT}
    options = {**app.conf.broker_transport_options, **bounds}
    return app.connection_for_write(transport_options=options)


def address(connection: Any) -> str:
    """Return the URL of *connection*, with its password hidden."""
    uri: str = connection.as_uri()
    user = "@" if connection.userid else ""
    return uri if connection.password else uri.replace(":**@", user, 1)


def is_login(exc: BaseException) -> bool:
    """Return whether a server has refused the user or the password."""
    text = str(exc)
    return type(exc).__name__ in _LOGIN or "NOAUTH" in text or "WRONGPASS" in text


def reason(exc: BaseException, secret: str | None) -> str:
    """Return class and message of *exc* without *secret*."""
    message = str(exc).replace(secret, "…") if secret else str(exc)
    return f"{type(exc).__name__}: {message}" if message else type(exc).__name__


def _refused(exc: Exception, connection: Any) -> Finding:
    uri, why = address(connection), reason(exc, connection.password)
    if is_login(exc):
        return Finding(
            "broker-login", "queue", f"{uri} refuses this login ({why})",
            "correct user, password or virtual host in the Celery app's broker_url",
        )  # fmt: skip
    if "CERTIFICATE_VERIFY_FAILED" in why:
        return Finding(
            "broker-tls-untrusted", "queue", f"the certificate of {uri} is not trusted ({why})",
            "name its authority: broker_use_ssl={'ssl_ca_certs': …}, or ssl_ca_certs in the URL",
        )  # fmt: skip
    if not _over_tls(connection) and speaks_tls(*_server(connection), TIMEOUT):
        return Finding(
            "broker-plain-to-tls", "queue", f"{uri} is called without TLS, and that port wants it",
            f"use {uri.partition('://')[0]}s://, or set broker_use_ssl",
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
    """Return what is wrong if the broker is there and does not speak TLS."""
    server, uri = _server(connection), address(connection)
    try:
        socket.create_connection(server, TIMEOUT).close()
    except OSError:
        return None  # the client says why
    if speaks_tls(*server, TIMEOUT):
        return None
    scheme = uri.partition("://")[0]
    plain = scheme.removesuffix("s") if scheme in _TLS else scheme
    return Finding(
        "broker-tls", "queue", f"{uri} is called with TLS, and that port does not speak it",
        f"use {plain}:// without broker_use_ssl, or the port for TLS",
    )  # fmt: skip
