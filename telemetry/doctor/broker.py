"""Whether the broker takes this process in, and if not, why."""

from typing import Any

from celery import Celery

from .finding import Finding

__all__ = ["address", "check_broker"]

#: Names, since neither redis nor amqp need be installed.
_LOGIN = {"AccessRefused", "AuthenticationError", "NotAllowed"}

#: Seconds that a broker may take to answer.
TIMEOUT = 5.0

_MISSING = (ImportError, KeyError)


def check_broker(app: Celery) -> Finding | None:
    """Connect to the broker of *app* once, as a publisher does."""
    try:
        with _connection(app) as connection:
            if connection.transport.driver_type == "memory":
                return Finding(
                    "broker-in-memory", "queue",
                    "memory:// is a broker inside of one process: no worker can take from it",
                    "set broker_url to a broker that both sides reach",
                )  # fmt: skip
            uri, secret = address(connection), connection.password
            try:
                connection.connect()
            except Exception as exc:
                return _refused(exc, uri, secret or "")
    except _MISSING as exc:
        return Finding(
            "broker-unknown", "queue", f"no transport for the broker_url is there: {exc.args[0]}",
            "correct its scheme, or install what it needs: celery[redis], celery[sqs], …",
        )  # fmt: skip
    return None


def _connection(app: Celery) -> Any:
    connection = app.connection_for_write()
    if connection.transport.driver_type != "redis":
        return connection
    # Its client waits for ever for a server that takes a connection and says nothing.
    bounds = {"socket_connect_timeout": TIMEOUT, "socket_timeout": TIMEOUT}
    return app.connection_for_write(transport_options=bounds)


def address(connection: Any) -> str:
    """Return where *connection* goes, with its password hidden."""
    uri: str = connection.as_uri()
    user = "@" if connection.userid else ""
    return uri if connection.password else uri.replace(":**@", user, 1)


def _refused(exc: Exception, uri: str, secret: str) -> Finding:
    said = str(exc).replace(secret, "…") if secret else str(exc)
    why = f"{type(exc).__name__}: {said}" if said else type(exc).__name__
    if type(exc).__name__ in _LOGIN:
        return Finding(
            "broker-login", "queue", f"{uri} does not take this login ({why})",
            "correct user, password or virtual host in the Celery app's broker_url",
        )  # fmt: skip
    return Finding(
        "broker-unreachable", "queue", f"{uri} does not answer ({why})",
        "start the broker, or correct the Celery app's broker_url",
    )  # fmt: skip
