"""setup, flush and shutdown, each in a process of its own that sends to a receiver."""

import textwrap
from collections import Counter
from pathlib import Path

import grpc
import pytest
import trustme

from telemetry.otlp.decode import ReceivedSpan
from telemetry.otlp.receiver import Receiver

from ..conftest import free_port
from ..processes import Process, Starter


@pytest.fixture
def run(start: Starter, tmp_path: Path):  # type: ignore[no-untyped-def]
    """Run a script to its end and return the process; the environment is ``start``'s."""

    def run(script: str, **env: str | None) -> Process:
        (tmp_path / "script.py").write_text(textwrap.dedent(script))
        process = start(
            "script", PYTHONPATH=f"{tmp_path}:{start.env.get('PYTHONPATH', '')}:.", **env
        )
        assert process.wait() == 0, process.output
        return process

    return run


ONE_SPAN = """
    import telemetry
    from opentelemetry import trace

    telemetry.setup({name})
    with trace.get_tracer("test").start_as_current_span("work"):
        pass
"""


def arrived(count: int):  # type: ignore[no-untyped-def]
    return lambda spans: len(spans) >= count


def test_a_span_arrives_though_the_interpreter_ends_right_after(run, receiver: Receiver) -> None:
    run(ONE_SPAN.format(name='"billing"'))
    (span,) = receiver.wait_for(arrived(1))
    assert (span.name, span.kind, span.service) == ("work", "INTERNAL", "billing")
    assert span.instance


def test_without_the_interpreters_lock_nothing_is_traced(run, receiver: Receiver) -> None:
    process = run("""
        import sys
        sys._is_gil_enabled = lambda: False
        import telemetry
        telemetry.setup("billing")
        telemetry.setup("billing")
        from opentelemetry import trace
        with trace.get_tracer("test").start_as_current_span("work") as span:
            assert not span.is_recording()
            carrier = {}
            telemetry.inject(carrier)
        assert telemetry.flush()
    """)
    assert process.output.count("set PYTHON_GIL=1") == 1
    assert receiver.spans == []


@pytest.mark.parametrize(
    "env",
    [
        {"OTEL_SERVICE_NAME": "from-outside"},
        {"OTEL_RESOURCE_ATTRIBUTES": "service.name=from-outside,deployment.environment.name=ci"},
    ],
)
def test_the_environment_names_the_service_over_the_code(
    run, receiver: Receiver, env: dict[str, str]
) -> None:
    run(ONE_SPAN.format(name='"billing"'), **env)
    (span,) = receiver.wait_for(arrived(1))
    assert span.service == "from-outside"


def test_without_a_service_name_the_default_is_said_once(run, receiver: Receiver) -> None:
    process = run(ONE_SPAN.format(name="") + "\n    telemetry.setup()\n    telemetry.setup()")
    (span,) = receiver.wait_for(arrived(1))
    assert span.service == "test-py-manual-otlp"
    assert process.output.count("OTEL_SERVICE_NAME") == 1


def test_a_malformed_setting_is_one_line_with_the_value_that_is_used(run) -> None:
    process = run(
        ONE_SPAN.format(name='"billing"'),
        OTEL_LOGS_EXPORTER="otlp",
        OTEL_BSP_SCHEDULE_DELAY="1s",
        QUEUEHOP_LOGS_CELERY="yes",
        QUEUEHOP_SPOOL_MAX_BYTES="1 MB",
    )
    assert sorted(process.output.splitlines()) == [
        "OTEL_BSP_SCHEDULE_DELAY is '1s', not a number of at least 1; using 1000",
        "QUEUEHOP_LOGS_CELERY is 'yes', not true or false; using false",
        "QUEUEHOP_SPOOL_MAX_BYTES is '1 MB', not a number of at least 1; using 268435456",
    ]


@pytest.mark.parametrize("env", [{"OTEL_SDK_DISABLED": "true"}, {"OTEL_TRACES_EXPORTER": "none"}])
def test_switched_off_nothing_is_sent_and_the_context_still_travels(
    run, receiver: Receiver, env: dict[str, str]
) -> None:
    process = run(
        """
        import telemetry
        from opentelemetry import context, trace

        telemetry.setup("billing")
        came = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
        context.attach(telemetry.extract(came))
        with trace.get_tracer("test").start_as_current_span("work"):
            goes = {}
            telemetry.inject(goes)
        assert goes == came, goes
        assert telemetry.flush(1)
        """,
        **env,
    )
    assert process.output == ""
    assert receiver.spans == []


def test_flush_says_whether_everything_was_delivered(run, receiver: Receiver) -> None:
    run(
        """
        import os, telemetry
        from opentelemetry import trace

        telemetry.setup("billing")
        tracer = trace.get_tracer("test")
        with tracer.start_as_current_span("work"):
            pass
        assert telemetry.flush(10) is True
        """
    )
    assert len(receiver.spans) == 1


@pytest.mark.parametrize("spool", ["disk", "memory"])
def test_the_providers_own_flush_delivers_too(run, receiver: Receiver, spool: str) -> None:
    """As code does that was written for OpenTelemetry's SDK."""
    run(
        """
        import os, telemetry
        from opentelemetry import trace

        telemetry.setup("billing")
        with trace.get_tracer("test").start_as_current_span("work"):
            pass
        assert trace.get_tracer_provider().force_flush() is True
        os._exit(0)
        """,
        QUEUEHOP_SPOOL=spool,
    )
    assert len(receiver.spans) == 1


@pytest.mark.parametrize(("spool", "kept"), [("disk", True), ("memory", False)])
def test_flush_says_when_the_collector_is_away_what_is_kept(run, spool: str, kept: bool) -> None:
    run(
        f"""
        import telemetry, time
        from opentelemetry import trace

        telemetry.setup("billing")
        with trace.get_tracer("test").start_as_current_span("work"):
            pass
        began = time.monotonic()
        assert telemetry.flush(0.5) is {kept}
        assert time.monotonic() - began < 3
        """,
        OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{free_port()}",
        OTEL_EXPORTER_OTLP_TIMEOUT="2",
        QUEUEHOP_SPOOL=spool,
    )


@pytest.mark.parametrize("spool", ["disk", "memory"])
def test_a_fork_before_or_after_the_first_export_breaks_nothing(
    run, receiver: Receiver, spool: str
) -> None:
    run(
        """
        import os, telemetry
        from opentelemetry import trace

        telemetry.setup("billing")
        tracer = trace.get_tracer("test")

        def work(name):
            with tracer.start_as_current_span(name):
                pass
            assert telemetry.flush(10)

        def fork(name, then=lambda: None):
            if pid := os.fork():
                assert os.waitpid(pid, 0)[1] == 0
                return
            code = 1
            try:
                work(name)
                then()
                code = 0
            finally:
                os._exit(code)

        fork("before")
        work("parent")
        fork("after", then=lambda: fork("grandchild"))
        work("parent again")
        """,
        QUEUEHOP_SPOOL=spool,
    )
    spans = receiver.wait_for(arrived(5))
    assert sorted(span.name for span in spans) == [
        "after",
        "before",
        "grandchild",
        "parent",
        "parent again",
    ]
    by_name = {span.name: span for span in spans}
    assert by_name["parent"].instance == by_name["parent again"].instance
    assert len({span.instance for span in spans}) == 4


def test_children_forked_right_after_a_send_go_on(run, receiver: Receiver) -> None:
    forks = 60  # a few in a hundred hung when gRPC shut down
    run(
        f"""
        import os, telemetry
        from opentelemetry import trace

        telemetry.setup("billing")

        def work(name):
            with trace.get_tracer("test").start_as_current_span(name):
                pass
            assert telemetry.flush(10)

        for _ in range({forks}):
            work("parent")
            if pid := os.fork():
                assert os.waitpid(pid, 0)[1] == 0
                continue
            code = 1
            try:
                work("child")
                code = 0
            finally:
                os._exit(code)
        """,
        QUEUEHOP_SPOOL="memory",
    )
    spans = receiver.wait_for(arrived(2 * forks))
    assert Counter(span.name for span in spans) == {"parent": forks, "child": forks}


def test_a_soft_time_limit_in_the_middle_of_tracing_is_the_tasks(run) -> None:
    """Celery raises it by a signal, at any instruction."""
    run(
        """
        import os, signal, telemetry
        from billiard.exceptions import SoftTimeLimitExceeded
        from opentelemetry import trace

        def limit(*_):
            raise SoftTimeLimitExceeded()

        signal.signal(signal.SIGUSR1, limit)
        telemetry.setup("billing")
        from telemetry.export.spool import frames

        crc32 = frames.crc32

        def interrupted(*args):
            frames.crc32 = crc32
            os.kill(os.getpid(), signal.SIGUSR1)
            return crc32(*args)

        with_span = trace.get_tracer("test").start_as_current_span("work")
        try:
            with with_span:
                frames.crc32 = interrupted  # the span is written at its end
        except SoftTimeLimitExceeded:
            pass
        else:
            raise AssertionError("the task goes on")
        """
    )


def test_a_provider_that_is_not_installed_is_said(run, receiver: Receiver) -> None:
    process = run(ONE_SPAN.format(name='"billing"'), OTEL_PYTHON_TRACER_PROVIDER="pigeon")
    assert (
        "OTEL_PYTHON_TRACER_PROVIDER names a tracer provider that is not installed"
        in process.output
    )
    receiver.wait_for(arrived(1))


def test_an_application_with_a_provider_of_its_own_keeps_it(run, receiver: Receiver) -> None:
    process = run(
        """
        import telemetry
        from opentelemetry import trace
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

        provider, memory = TracerProvider(), InMemorySpanExporter()
        provider.add_span_processor(SimpleSpanProcessor(memory))
        trace.set_tracer_provider(provider)
        telemetry.setup("billing")
        assert trace.get_tracer_provider() is provider
        with trace.get_tracer("test").start_as_current_span("work"):
            pass
        assert telemetry.flush(1)
        assert len(memory.get_finished_spans()) == 1
        """
    )
    assert process.output == ""
    assert receiver.spans == []


def test_a_setting_that_cannot_be_used_is_one_line_and_no_traceback(
    run, receiver: Receiver
) -> None:
    process = run(
        ONE_SPAN.format(name='"billing"'),
        OTEL_BSP_SCHEDULE_DELAY="soon",
        OTEL_TRACES_SAMPLER="sometimes",
        OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT="-3",
        OTEL_EXPORTER_OTLP_COMPRESSION="brotli",
    )
    receiver.wait_for(arrived(1))
    lines = process.output.splitlines()
    assert sorted(line.split()[0] for line in lines) == [
        "OTEL_BSP_SCHEDULE_DELAY",
        "OTEL_EXPORTER_OTLP_COMPRESSION",
        "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT",
        "OTEL_TRACES_SAMPLER",
    ]


def test_a_propagator_that_is_not_installed_stops_nothing(run, receiver: Receiver) -> None:
    """OpenTelemetry's API raises for such a propagator while it is imported."""
    process = run(ONE_SPAN.format(name='"billing"'), OTEL_PROPAGATORS="tracecontext,pigeon")
    receiver.wait_for(arrived(1))
    assert process.output.splitlines() == [
        "OTEL_PROPAGATORS names 'pigeon', which is not installed; ignoring it"
    ]


def test_an_endpoint_of_another_scheme_stops_nothing(run, receiver: Receiver) -> None:
    process = run(ONE_SPAN.format(name='"billing"'), OTEL_EXPORTER_OTLP_ENDPOINT="ftp://nowhere")
    assert process.output.splitlines() == [
        "OTEL_EXPORTER_OTLP_ENDPOINT is not an address for OTLP over gRPC (ftp://nowhere): "
        "use http:// or https://host:port, or a target of gRPC such as unix:/path; "
        "nothing is sent"
    ]


def test_gzip_and_headers_reach_the_collector(run, receiver: Receiver) -> None:
    run(
        ONE_SPAN.format(name='"billing"'),
        OTEL_EXPORTER_OTLP_COMPRESSION="gzip",
        OTEL_EXPORTER_OTLP_HEADERS="api-key=a%20b",
    )
    receiver.wait_for(arrived(1))
    assert receiver.metadata[0]["api-key"] == "a b"


def test_lightstep_gets_its_token_over_tls(run, tmp_path: Path) -> None:
    authority = trustme.CA()
    identity = authority.issue_cert("localhost")
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    credentials = grpc.ssl_server_credentials(
        [
            (
                identity.private_key_pem.bytes(),
                b"".join(part.bytes() for part in identity.cert_chain_pems),
            )
        ]
    )
    with Receiver(credentials=credentials) as receiver:
        port = receiver.endpoint.rpartition(":")[2]
        run(
            ONE_SPAN.format(name='"billing"'),
            LS_ACCESS_TOKEN="t0ken",
            OTEL_EXPORTER_OTLP_ENDPOINT=f"https://localhost:{port}",
            OTEL_EXPORTER_OTLP_CERTIFICATE=str(tmp_path / "ca.pem"),
        )
        spans: list[ReceivedSpan] = receiver.wait_for(arrived(1))
        assert spans[0].name == "work"
        assert receiver.metadata[0]["lightstep-access-token"] == "t0ken"


def test_nothing_is_loaded_that_was_not_asked_for(run) -> None:
    run(
        """
        import sys, telemetry

        unasked = {"flask", "celery", "requests", "rich", "grpc", "telemetry.viewer"}
        assert not unasked & set(sys.modules), unasked & set(sys.modules)
        """
    )
