"""A server in the place of Sentry and of Datadog's agent."""

import gzip
import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import Any

import msgspec

from ..processes import PATIENCE
from .background import BackgroundServer

__all__ = ["Intake"]


class Intake(BackgroundServer):
    """An HTTP server that takes Sentry's envelopes and the traces for Datadog's agent."""

    def __init__(self) -> None:
        #: Sentry's transactions, and the spans of Datadog, as each describes them.
        self.transactions: list[dict[str, Any]] = []
        self.datadog: list[dict[str, Any]] = []
        self._changed = threading.Condition()
        taken = self._taken

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self._body()
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                taken(self.path, body)
                self._answer()

            do_PUT = do_POST

            def do_GET(self) -> None:
                self._answer()

            def _body(self) -> bytes:
                if self.headers.get("Transfer-Encoding") != "chunked":
                    return self.rfile.read(int(self.headers.get("Content-Length") or 0))
                parts = []
                while size := int(self.rfile.readline(), 16):
                    parts.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                return b"".join(parts)

            def _answer(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *args: object) -> None:
                pass

        super().__init__(Handler)

    def _taken(self, path: str, body: bytes) -> None:
        with self._changed:
            if path.endswith("/envelope/"):
                self.transactions += transactions_in(body)
            elif path.endswith("/traces"):
                self.datadog += [span for trace in msgspec.msgpack.decode(body) for span in trace]
            self._changed.notify_all()

    def wait_for(self, predicate: Callable[["Intake"], object], timeout: float = PATIENCE) -> None:
        """Wait until *predicate* of this is true. Raises TimeoutError."""
        with self._changed:
            if not self._changed.wait_for(lambda: predicate(self), timeout):
                sentry = [transaction["transaction"] for transaction in self.transactions]
                datadog = [span["name"] for span in self.datadog]
                raise TimeoutError(f"after {timeout:g} s there were {sentry} and {datadog}")


def transactions_in(envelope: bytes) -> list[dict[str, Any]]:
    """Return the transactions of a Sentry envelope: lines of JSON, a header before each item."""
    lines = envelope.splitlines()[1:]
    items = zip(lines[::2], lines[1::2], strict=False)
    return [json.loads(item) for head, item in items if json.loads(head)["type"] == "transaction"]
