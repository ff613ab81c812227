"""Hop 2 under gunicorn: a file, a websocket and an exception."""

import textwrap
from pathlib import Path

import pytest
import requests

from telemetry.otlp.receiver import Receiver

from ..conftest import free_port
from ..processes import ROOT, Starter

SHOP = """
    import telemetry
    from flask import Flask, Response, request, send_file
    from gunicorn.http.wsgi import Response as ServersResponse
    from telemetry.flask import instrument_flask

    telemetry.setup("shop")
    app = instrument_flask(Flask("shop"))

    send = ServersResponse.sendfile

    def sendfile(self, wrapped):
        print("sendfile:", send(self, wrapped), flush=True)
        return True

    ServersResponse.sendfile = sendfile

    class WebSocketEnds(Response):
        def __call__(self, environ, start_response):
            environ["gunicorn.socket"].sendall(b"HTTP/1.1 101 Switching Protocols\\r\\n\\r\\n")
            raise StopIteration  # as flask-sock does

    @app.get("/file")
    def file():
        return send_file(__file__)

    @app.get("/socket")
    def socket():
        return WebSocketEnds()

    @app.get("/items/<id>")
    def item(id):
        return id

    @app.teardown_request
    def leave(exc):
        if request.path == "/items/2":
            raise LookupError("the session is gone")
"""


@pytest.mark.parametrize("worker", ["sync", "gthread"])
def test_gunicorn(start: Starter, receiver: Receiver, tmp_path: Path, worker: str) -> None:
    (tmp_path / "shop.py").write_text(textwrap.dedent(SHOP))
    port = free_port()
    server = start(
        *("gunicorn", "-k", worker, "-b", f"127.0.0.1:{port}", "shop:app"),
        PYTHONPATH=f"{tmp_path}:{ROOT}",
    )
    server.wait_for_line("Booting worker")
    url = f"http://127.0.0.1:{port}"

    assert requests.get(f"{url}/file").text == (tmp_path / "shop.py").read_text()
    assert requests.get(f"{url}/socket").status_code == 101
    assert requests.get(f"{url}/items/1").text == "1"
    assert requests.get(f"{url}/items/2").status_code == 500
    spans = receiver.wait_for(lambda spans: len(spans) == 4)

    assert [(span.name, span.status) for span in spans] == [
        ("GET /file", "UNSET"),
        ("GET /socket", "UNSET"),
        ("GET /items/<id>", "UNSET"),
        ("GET /items/<id>", "ERROR"),
    ]
    statuses = [span.attributes.get("http.response.status_code") for span in spans]
    assert statuses == [200, None, 200, 500]
    assert server.lines_until("sendfile: ", 0) == ["sendfile: True"]
