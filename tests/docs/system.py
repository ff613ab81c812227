"""The system of this repository, whole or with one line of one part replaced, and its outputs."""

import base64
import json
import re
import shutil
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from celery import Celery

from telemetry.otlp.decode import ReceivedSpan
from telemetry.otlp.receiver import Receiver
from telemetry.testing import tree

from ..conftest import free_port
from ..processes import ROOT, Starter


@dataclass(frozen=True)
class Break:
    """A replaced line of one part, and the number of spans that a ping then has."""

    part: str
    file: str
    line: str
    instead: str
    spans: int


INSTRUMENT_CELERY = 'instrument_celery(app, service_name="queuehop-worker")'

BREAKS = {
    "client": Break("client", "app/client.py", "traced_session()", "requests.Session()", 10),
    "provider": Break("web", "app/__init__.py", 'telemetry.setup("queuehop-web")', "pass", 9),
    "web": Break("web", "app/__init__.py", "return instrument_flask(app)", "return app", 10),
    "publish": Break("web", "workers/celery.py", INSTRUMENT_CELERY, "pass", 10),
    "worker": Break("worker", "workers/celery.py", INSTRUMENT_CELERY, "pass", 4),
}

#: The number of spans of a complete ping.
WHOLE = 11


class System:
    """Web side, worker and client. One of them may run with a replaced line."""

    def __init__(
        self, start: Starter, receiver: Receiver, directory: Path, broken: Break | None = None
    ) -> None:
        self._start = start
        self._receiver = receiver
        self._directory = directory
        self._broken = broken
        self._start.env["OTEL_METRICS_EXPORTER"] = "none"

    def start_web(self) -> str:
        port = free_port()
        web = self._start("flask", "run", "--port", str(port), cwd=self._tree("web"))
        web.wait_for_line("Running on")
        return f"http://127.0.0.1:{port}"

    def start_worker(self) -> None:
        command = ("celery", "-A", "workers", "worker", "-c", "1")
        self._start(*command, cwd=self._tree("worker"))
        # A worker without its tracing has nothing for the fields of the log's format, and says
        # nothing that could be waited for.
        with Celery(broker=self._start.env["CELERY_BROKER_URL"]) as app:
            assert any(app.control.ping(timeout=1.0) for _ in range(30))

    def ping(self, web: str) -> None:
        command = ("app.client", "--count", "1", "--url", f"{web}/ping", "--length", "12")
        client = self._start(*command, cwd=self._tree("client"))
        assert client.wait() == 0, client.output

    def doctor(self) -> str:
        """Return the doctor's report about the web side and the running worker."""
        command = ("telemetry", "doctor", "--celery", "workers", "--flask", "app")
        doctor = self._start(*command, cwd=self._tree("web"))
        status = doctor.wait(60)
        said = doctor.output.replace(socket.gethostname(), "host")
        return f"$ python -m {' '.join(command)}; echo $?\n{said}\n{status}\n"

    def spans(self, count: int) -> list[ReceivedSpan]:
        """Wait for the *count* spans of a ping; return them by start."""

        def of_ping(spans: Sequence[ReceivedSpan]) -> list[ReceivedSpan]:
            ours = (span for span in spans if "queuehop=doctor" not in span.trace_state)
            return sorted(ours, key=lambda span: span.start_ns)

        found = of_ping(self._receiver.wait_for(lambda spans: len(of_ping(spans)) >= count, 30))
        assert len(found) == count, tree(found)
        return found

    def _tree(self, part: str) -> Path:
        """Return the folder that *part* runs in: the repository's, or a copy with the break."""
        broken = self._broken
        if broken is None or broken.part != part:
            return ROOT
        copy = self._directory / part
        if not copy.exists():
            for package in ("app", "workers"):
                shutil.copytree(ROOT / package, copy / package)
            file = copy / broken.file
            text = file.read_text()
            assert text.count(broken.line) == 1, f"{broken.file} has not {broken.line!r} once"
            file.write_text(text.replace(broken.line, broken.instead))
        return copy


@contextmanager
def listening_in(web: str) -> Iterator[tuple[str, list[str]]]:
    """Pass one request on to *web*: yield the address to send it to, and the bytes received."""
    heard: list[str] = []
    host, port = web.removeprefix("http://").split(":")
    with socket.create_server(("127.0.0.1", 0)) as server:

        def carry() -> None:
            client, _ = server.accept()
            with client, socket.create_connection((host, int(port))) as there:
                request = b""
                while not request.endswith(b"\r\n\r\n"):
                    request += client.recv(65536)
                heard.append(request.decode("latin-1").replace("\r\n", "\n").rstrip() + "\n")
                there.sendall(request.replace(b"keep-alive", b"close"))
                while answer := there.recv(65536):
                    client.sendall(answer)

        carrier = threading.Thread(target=carry)
        carrier.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}", heard
        carrier.join()


def show_message(message: bytes) -> str:
    """Return a message as stored in Redis, and its body, without this machine's name."""
    text = message.decode().replace(socket.gethostname(), "host")
    fields = json.loads(text)
    body = base64.b64decode(fields["body"]).decode()
    laid_out = json.dumps(fields, indent=2)
    # Lists of plain values on one line each.
    laid_out = re.sub(r"\[[^\[\]{}]*\]", lambda found: " ".join(found[0].split()), laid_out)
    return f"{laid_out}\n\nthe body, out of its base64:\n\n{body}\n"


def show_span(span: ReceivedSpan) -> str:
    parent = f"parent {span.parent_id}" if span.parent_id else "no parent"
    lines = [
        f"{span.name}  {span.kind}  by {span.service}",
        f"trace {span.trace_id}  span {span.span_id}  {parent}",
        *(f"link to {link.span_id}" for link in span.links),
        *(f"    {key} = {json.dumps(value)}" for key, value in sorted(span.attributes.items())),
    ]
    return "\n".join(lines) + "\n"


def show_tree(spans: Sequence[ReceivedSpan]) -> str:
    return tree(spans).replace(" UNSET", "") + "\n"


def show_break(broken: Break) -> str:
    lines = (ROOT / broken.file).read_text().splitlines()
    (line,) = [line.strip() for line in lines if broken.line in line]
    return f"- {line}\n+ {line.replace(broken.line, broken.instead)}\n"
