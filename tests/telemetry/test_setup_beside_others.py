"""setup beside providers of any class, and with targets that gRPC resolves itself."""

import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
import trustme
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from telemetry.otlp.decode import ReceivedSpan, decode
from telemetry.otlp.receiver import Receiver
from telemetry.otlp.server import grpc_server

from ..processes import Process, Starter
from .doctor.conftest import WEB, Doctor, codes
from .doctor.conftest import doctor as doctor

Run = Callable[..., Process]


@pytest.fixture
def run(start: Starter, tmp_path: Path) -> Run:
    """Run a script to its end in the directory of the test."""

    def run(script: str, **env: str) -> Process:
        (tmp_path / "script.py").write_text(textwrap.dedent(script))
        process = start("script", cwd=tmp_path, **env)
        assert process.wait() == 0, process.output
        return process

    return run


SDK = """
import logging
from dataclasses import dataclass

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
memory, sdk = InMemorySpanExporter(), TracerProvider()
sdk.add_span_processor(SimpleSpanProcessor(memory))
"""

PROVIDERS = {
    # Its parameters have other names than the API's.
    "a proxy of other names": """
class Proxy(trace.TracerProvider):
    def get_tracer(self, name, version=None, schema=None, more=None):
        return sdk.get_tracer(name, version, schema, more)

provider = Proxy()
""",
    # A dataclass has no hash.
    "a proxy": """
@dataclass
class Proxy(trace.TracerProvider):
    provider: TracerProvider

    def get_tracer(self, *args, **kwargs):
        return self.provider.get_tracer(*args, **kwargs)

provider = Proxy(sdk)
""",
    "of no class of the API": """
class Proxy:
    def get_tracer(self, *args, **kwargs):
        return sdk.get_tracer(*args, **kwargs)

provider = Proxy()
""",
    "that says nothing of its flush": """
class Proxy(trace.TracerProvider):
    def get_tracer(self, *args, **kwargs):
        return sdk.get_tracer(*args, **kwargs)

    def force_flush(self, timeout_millis=30000):
        sdk.force_flush(timeout_millis)

provider = Proxy()
""",
    "whose spans go nowhere": "provider = trace.NoOpTracerProvider()\n",
}

HOPS = """
trace.set_tracer_provider(provider)

import telemetry
from flask import Flask
from telemetry.flask import instrument_flask

telemetry.setup("shop")
telemetry.setup("shop")
assert trace.get_tracer_provider() is provider
app = instrument_flask(Flask("shop"))
app.get("/items/<id>")(lambda id: "item")
app.test_client().get("/items/1").close()
assert telemetry.flush() is True
print("spans:", [span.name for span in memory.get_finished_spans()])
"""


@pytest.mark.parametrize("kind", PROVIDERS)
def test_hops_go_through_a_provider_of_any_class(run: Run, receiver: Receiver, kind: str) -> None:
    process = run(SDK + PROVIDERS[kind] + HOPS)
    there = [] if kind == "whose spans go nowhere" else ["GET /items/<id>"]
    first, second = process.lines  # one line of setup, and no other
    assert first == "telemetry: a tracer provider is set already: it exports the spans"
    assert second == f"spans: {there}"
    assert receiver.spans == []


def test_a_span_processor_of_the_application_exports_what_it_holds_at_the_exit(
    run: Run, receiver: Receiver
) -> None:
    process = run("""
        from opentelemetry import trace
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter

        import telemetry

        telemetry.setup("shop")
        exporter = ConsoleSpanExporter(formatter=lambda span: f"exported {span.name}\\n")
        processor = BatchSpanProcessor(exporter, schedule_delay_millis=100_000)
        trace.get_tracer_provider().add_span_processor(processor)
        trace.get_tracer("test").start_span("work").end()
    """)
    assert process.lines == ["exported work"]


@pytest.mark.parametrize(
    ("answer", "flushed"), [("False", False), ("None", True), ("1 / 0", False)]
)
def test_flush_says_what_the_provider_says(run: Run, answer: str, flushed: bool) -> None:
    run(f"""
        from opentelemetry import trace

        class Provider(trace.NoOpTracerProvider):
            def force_flush(self, timeout_millis):
                assert timeout_millis == 2500
                return {answer}

        trace.set_tracer_provider(Provider())
        import telemetry
        telemetry.setup("shop")
        assert telemetry.flush(2.5) is {flushed}
    """)


@pytest.mark.parametrize(
    ("kind", "has_provider"), [("a proxy", True), ("whose spans go nowhere", False)]
)
def test_the_doctor_takes_a_provider_of_any_class_for_one(
    run: Run, kind: str, has_provider: bool
) -> None:
    run(f"""
{textwrap.indent(SDK + PROVIDERS[kind], " " * 8)}
        trace.set_tracer_provider(provider)
        from telemetry.selfcheck import describe_process
        here = describe_process()
        assert here.provider is here.foreign is {has_provider}
        assert not here.mute
    """)


ONE_SPAN = """
import telemetry
from opentelemetry import trace

telemetry.setup("shop")
with trace.get_tracer("shop").start_as_current_span("work"):
    pass
assert telemetry.flush()
"""


@contextmanager
def listening(address: str) -> Iterator[list[ReceivedSpan]]:
    spans: list[ReceivedSpan] = []

    def add(request, metadata):  # type: ignore[no-untyped-def]
        spans.extend(decode(request))
        return 0, ""

    server, _ = grpc_server(address, {ExportTraceServiceRequest: add})
    server.start()
    try:
        yield spans
    finally:
        server.stop(None).wait()


@pytest.fixture
def socket_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A path that is short enough for a Unix socket."""
    return tmp_path_factory.mktemp("s") / "otlp"


@pytest.mark.parametrize("spool", ["disk", "memory"])
@pytest.mark.parametrize("form", ["unix:{}", "unix://{}"])
def test_over_a_unix_socket(run: Run, socket_path: Path, form: str, spool: str) -> None:
    endpoint = form.format(socket_path)
    with listening(endpoint) as spans:
        process = run(
            ONE_SPAN,
            OTEL_EXPORTER_OTLP_ENDPOINT=endpoint,
            OTEL_EXPORTER_OTLP_INSECURE="true",
            QUEUEHOP_SPOOL=spool,
        )
    assert [span.name for span in spans] == ["work"]
    assert process.output == ""


@pytest.mark.parametrize("spool", ["disk", "memory"])
def test_over_a_unix_socket_of_the_working_directory(
    run: Run, tmp_path: Path, socket_path: Path, spool: str
) -> None:
    """The sender works in another directory."""
    (tmp_path / "here").symlink_to(socket_path.parent)
    with listening(f"unix:{socket_path}") as spans:
        run(
            ONE_SPAN,
            OTEL_EXPORTER_OTLP_ENDPOINT="unix:here/otlp",
            OTEL_EXPORTER_OTLP_INSECURE="true",
            QUEUEHOP_SPOOL=spool,
        )
    assert [span.name for span in spans] == ["work"]


@pytest.mark.parametrize("form", ["dns:localhost:{}", "dns:///localhost:{}", "ipv4:127.0.0.1:{}"])
def test_over_a_name_that_grpc_resolves(run: Run, receiver: Receiver, form: str) -> None:
    port = receiver.endpoint.rpartition(":")[2]
    process = run(
        ONE_SPAN,
        OTEL_EXPORTER_OTLP_ENDPOINT=form.format(port),
        OTEL_EXPORTER_OTLP_INSECURE="true",
    )
    assert [span.name for span in receiver.wait_for(len)] == ["work"]
    assert process.output == ""


def test_over_tls_to_a_name_that_grpc_resolves(run: Run, tmp_path: Path) -> None:
    authority = trustme.CA()
    identity = authority.issue_cert("localhost")
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    chain = b"".join(part.bytes() for part in identity.cert_chain_pems)
    credentials = grpc.ssl_server_credentials([(identity.private_key_pem.bytes(), chain)])
    with Receiver(credentials=credentials) as receiver:
        port = receiver.endpoint.rpartition(":")[2]
        run(
            ONE_SPAN,
            OTEL_EXPORTER_OTLP_ENDPOINT=f"dns:///localhost:{port}",
            OTEL_EXPORTER_OTLP_CERTIFICATE=str(tmp_path / "ca.pem"),
        )
        assert [span.name for span in receiver.wait_for(len)] == ["work"]


@pytest.mark.parametrize("form", ["unix:{}", "unix://{}"])
def test_the_doctor_over_a_unix_socket(doctor: Doctor, socket_path: Path, form: str) -> None:
    endpoint = form.format(socket_path)
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_EXPORTER_OTLP_INSECURE": "true"}
    with listening(endpoint):
        assert codes(doctor(*WEB, **env)) == []
    assert codes(doctor(*WEB, **env)) == ["exporter-unreachable"]


@pytest.mark.parametrize("form", ["dns:localhost:{}", "dns:///localhost:{}"])
def test_the_doctor_over_a_name_that_grpc_resolves(
    doctor: Doctor, receiver: Receiver, form: str
) -> None:
    port = receiver.endpoint.rpartition(":")[2]
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": form.format(port), "OTEL_EXPORTER_OTLP_INSECURE": "true"}
    assert codes(doctor(*WEB, **env)) == []
