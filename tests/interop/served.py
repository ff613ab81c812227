"""A Flask app with websockets and a file, for several WSGI servers."""

import os
from collections.abc import Callable, Iterable
from typing import Any

from flask import Flask, Response, send_file
from flask_sock import Sock

import telemetry
from telemetry.flask import instrument_flask

telemetry.setup("web")
web = instrument_flask(Flask("served"))
sock = Sock(web)


@sock.route("/echo")
def echo(ws: Any) -> None:
    """Send back one message, then close."""
    ws.send(ws.receive())


@sock.route("/fail")
def fail(ws: Any) -> None:
    ws.receive()
    raise LookupError("nothing here")


@web.get("/file")
def file() -> Response:
    return send_file(os.environ["SERVED_FILE"])


@web.get("/quick")
def quick() -> str:
    return "quick"


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Serve as ``web`` does, and print whether the server gets a body of its own class."""
    body: Iterable[bytes] = web(environ, start_response)
    wrapper = environ.get("wsgi.file_wrapper")
    if isinstance(wrapper, type) and environ["PATH_INFO"] == "/file":
        print(f"the body is the server's: {isinstance(body, wrapper)}", flush=True)
    return body
