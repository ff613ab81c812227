"""The pytest plugin and spans that have not ended, or that other processes send."""

import pytest

from ..processes import ROOT

pytest_plugins = ["pytester"]

APP = """
    from flask import Flask
    from telemetry.flask import instrument_flask

    app = instrument_flask(Flask("shop"))
    app.get("/items/<id>")(lambda id: f"item {id}")
"""

#: The fixture makes a provider, the application has one of the SDK, or one of ``setup``.
PROVIDERS = {
    "none": "",
    "sdk": """
        from opentelemetry import trace
        from opentelemetry.sdk.trace import TracerProvider
        trace.set_tracer_provider(TracerProvider())
    """,
    "setup": """
        import telemetry
        telemetry.setup("shop")
    """,
}


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{pytester.path}")
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # loading them takes most of the time
    monkeypatch.setenv("QUEUEHOP_STATE_DIR", str(pytester.path / "state"))
    pytester.makepyfile(shop=APP)
    pytester.makeconftest("pytest_plugins = ['telemetry.testing']")
    return pytester


@pytest.fixture(params=PROVIDERS)
def provider(request: pytest.FixtureRequest, project: pytest.Pytester) -> None:
    """The application's provider, made while the tests are imported."""
    source = PROVIDERS[request.param]
    project.makepyfile(provider=source or "pass")


def run(project: pytest.Pytester, test: str) -> pytest.RunResult:
    project.makepyfile(test)
    return project.runpytest_subprocess("-p", "no:cacheprovider", "-p", "no:randomly", "-r", "N")


@pytest.mark.usefixtures("provider")
def test_a_response_that_nobody_closed_is_none_of_the_next_tests(project: pytest.Pytester) -> None:
    result = run(
        project,
        """
        import gc
        import provider
        from shop import app

        kept = []

        def test_one(spans):
            kept.append(app.test_client().get("/items/1"))
            assert spans == []

        def test_two(spans):
            kept.clear()
            gc.collect()
            with app.test_client().get("/items/2"):
                pass
            assert [span.name for span in spans] == ["GET /items/<id>"]
            assert spans[0].attributes["url.path"] == "/items/2"
        """,
    )
    result.assert_outcomes(passed=2)


@pytest.mark.usefixtures("provider")
def test_a_failure_names_what_is_open(project: pytest.Pytester) -> None:
    result = run(
        project,
        """
        import provider
        from opentelemetry import trace
        from shop import app
        from telemetry.testing import assert_one_trace, assert_path

        def test_one_trace(spans):
            response = app.test_client().get("/items/1")
            assert_one_trace(spans)

        def test_path(spans):
            response = app.test_client().get("/items/1")
            with app.test_client().get("/items/2"):
                assert_path(spans + [], "GET /items/<id>")

        def test_wait(spans):
            trace.get_tracer("shop").start_span("ended").end()
            response = app.test_client().get("/items/1")
            spans.wait_for(lambda spans: len(spans) == 2, timeout=0.01)

        def test_nothing_is_open(spans):
            assert_one_trace(spans)
        """,
    )
    result.assert_outcomes(failed=4)
    output = result.stdout.str()
    assert output.count("\nE       Failed: expected one trace with one root, found 0 traces") == 2
    lines = [line for line in result.outlines if line.startswith("E ") and "still open: " in line]
    assert [line.split("still open: ")[1] for line in lines] == [
        "GET /items/<id>",
        "GET /items/<id>, GET /items/<id>",
        "GET /items/<id>",
    ]
    result.stdout.fnmatch_lines(["*TimeoutError: the condition is still false after 0.01 s:*"])
    assert output.count("close the response of a test client") == 3


def test_the_spans_of_all_processes_are_one_list(project: pytest.Pytester) -> None:
    result = run(
        project,
        """
        import subprocess
        import sys
        import threading

        import telemetry
        from opentelemetry import trace
        from telemetry.testing import assert_one_trace, assert_path

        CHILD = '''
        import os, telemetry
        from opentelemetry import trace
        telemetry.setup("child")
        parent = telemetry.extract({"traceparent": os.environ["PARENT"]})
        with trace.get_tracer("child").start_as_current_span(os.environ["NAME"], parent):
            pass
        assert telemetry.flush(10)
        '''

        def start(env, name):
            carrier = {}
            telemetry.inject(carrier)
            env = {**env, "PARENT": carrier["traceparent"], "NAME": name}
            source = "\\n".join(line.strip() for line in CHILD.splitlines())
            source = source.replace("pass", "    pass")
            subprocess.run([sys.executable, "-c", source], env=env, check=True)

        def test_join(spans, otlp, otlp_env):
            with trace.get_tracer("shop").start_as_current_span("order"):
                start(otlp_env, "before")
                otlp.wait_for(lambda spans: spans)
                assert spans == []
                assert spans.join(otlp) is spans
                assert [span.name for span in spans] == ["before"]
                start(otlp_env, "after")
            spans.wait_for(lambda spans: len(spans) == 3)
            assert_one_trace(spans)
            assert_path(spans, "order", "before")
            assert_path(spans, "order", "after")
            assert {span.service for span in spans} >= {"child"}
        """,
    )
    result.assert_outcomes(passed=1)


@pytest.mark.parametrize(
    "setting",
    [
        "OTEL_TRACES_EXPORTER=none",  # as the README says
        "OTEL_SDK_DISABLED=true",
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=http://127.0.0.1:1",
        "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf",
    ],
)
def test_another_process_reports_whatever_the_tests_use(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, setting: str
) -> None:
    monkeypatch.setenv(*setting.split("="))
    result = run(
        project,
        """
        import subprocess, sys

        CHILD = "import telemetry; from opentelemetry import trace; telemetry.setup('child');"
        CHILD += "trace.get_tracer('child').start_span('theirs').end(); telemetry.flush(10)"

        def test_child(otlp, otlp_env):
            subprocess.run([sys.executable, "-c", CHILD], env=otlp_env, check=True)
            assert [span.name for span in otlp.wait_for(lambda spans: spans)] == ["theirs"]
        """,
    )
    result.assert_outcomes(passed=1)


def test_a_span_that_is_sent_too_is_there_once(project: pytest.Pytester) -> None:
    result = run(
        project,
        """
        import telemetry
        from opentelemetry import trace

        def test_both(otlp, monkeypatch, request):
            monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", otlp.endpoint)
            monkeypatch.setenv("QUEUEHOP_SPOOL", "memory")
            telemetry.setup("shop")
            spans = request.getfixturevalue("spans").join(otlp)
            with trace.get_tracer("shop").start_as_current_span("order"):
                pass
            assert telemetry.flush()
            otlp.wait_for(lambda spans: spans)
            assert [span.name for span in spans] == ["order"]
        """,
    )
    result.assert_outcomes(passed=1)


def test_predicates_that_look_at_the_receiver_too(project: pytest.Pytester) -> None:
    """Each of the two has a lock of its own."""
    result = run(
        project,
        """
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
            ExportTraceServiceRequest,
        )
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub
        import grpc

        def test_both(spans, otlp):
            spans.join(otlp)
            with grpc.insecure_channel(otlp.endpoint.removeprefix("http://")) as channel:
                stub = TraceServiceStub(channel)
                sent = []

                def look(spans):
                    if not sent:
                        sent.append(stub.Export.future(request))
                        otlp.wait_for(lambda spans: spans)
                    return spans and otlp.spans

                request = ExportTraceServiceRequest()
                span = request.resource_spans.add().scope_spans.add().spans.add()
                span.name, span.trace_id, span.span_id = "far", b"1" * 16, b"1" * 8
                assert [span.name for span in spans.wait_for(look)] == ["far"]
        """,
    )
    result.assert_outcomes(passed=1)


def test_a_provider_without_span_processors_is_named(project: pytest.Pytester) -> None:
    result = run(
        project,
        """
        from opentelemetry import trace

        trace.set_tracer_provider(trace.NoOpTracerProvider())

        def test_one(spans):
            pass
        """,
    )
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*cannot see the spans of NoOpTracerProvider*"])
    result.stdout.no_fnmatch_line("*Overriding*")


def test_a_provider_that_stands_before_the_sdks(project: pytest.Pytester) -> None:
    result = run(
        project,
        """
        from dataclasses import dataclass
        from opentelemetry import trace
        from opentelemetry.sdk.trace import TracerProvider

        @dataclass
        class Proxy(trace.TracerProvider):
            provider: TracerProvider

            def get_tracer(self, *args, **kwargs):
                return self.provider.get_tracer(*args, **kwargs)

            def add_span_processor(self, processor):
                self.provider.add_span_processor(processor)

        trace.set_tracer_provider(Proxy(TracerProvider()))

        def test_one(spans):
            trace.get_tracer("shop").start_span("order").end()
            assert [span.name for span in spans] == ["order"]

        def test_two(spans):
            assert spans == []
        """,
    )
    result.assert_outcomes(passed=2)
