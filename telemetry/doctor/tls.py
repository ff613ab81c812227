"""Whether a server speaks TLS, for addresses where one side expects it and the other does not."""

import socket
import ssl

__all__ = ["speaks_tls"]


def speaks_tls(host: str, port: int, timeout: float = 5.0) -> bool:
    """Return whether a TLS handshake with *host* succeeds, whatever its certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with (
            socket.create_connection((host, port), timeout) as connection,
            context.wrap_socket(connection),
        ):
            return True
    except ssl.SSLError as exc:
        # A server that wants a certificate of the client says so in TLS.
        return "ALERT" in str(exc)
    except (OSError, ValueError):
        return False
