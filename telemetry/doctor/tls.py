"""Whether a server supports TLS, for addresses where only one side uses it."""

import socket
import ssl


def speaks_tls(host: str, port: int, timeout: float = 5.0) -> bool:
    """Return whether a TLS handshake with *host* succeeds, with any certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with (
            socket.create_connection((host, port), timeout) as connection,
            context.wrap_socket(connection),
        ):
            return True
    except ssl.SSLError as exc:
        # A server that requires a client certificate refuses with an alert of TLS.
        return "ALERT" in str(exc)
    except (OSError, ValueError):
        return False
