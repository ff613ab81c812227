"""The pytest plugin in a project of its own, with a real worker."""

import re

import pytest

from ..conftest import Broker
from ..processes import ROOT

pytest_plugins = ["pytester"]

APP = """
    import os
    from celery import Celery
    from telemetry.celery import instrument_celery

    app = Celery("shop", broker=os.environ.get("BROKER", "memory://"), backend="cache+memory://")
    app.conf.broker_connection_retry_on_startup = True
    instrument_celery(app, "shop-worker")

    @app.task(name="pack")
    def pack():
        return 1
"""


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{pytester.path}")
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # loading them takes most of the time
    pytester.makepyfile(shop=APP)
    pytester.makeconftest("pytest_plugins = ['telemetry.testing', 'celery.contrib.pytest']")
    return pytester


def passed(project: pytest.Pytester, test: str, count: int = 1) -> None:
    project.makepyfile(test)
    project.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=count)


def test_eager(project: pytest.Pytester) -> None:
    passed(
        project,
        """
        from opentelemetry import trace
        from shop import app, pack
        from telemetry.testing import assert_one_trace, assert_path

        def test_path(spans):
            app.conf.task_always_eager = True
            with trace.get_tracer("shop").start_as_current_span("order"):
                pack.delay()
            assert_one_trace(spans)
            assert_path(spans, "order", "process pack")

        def test_nothing_is_left(spans):
            assert spans == []
            assert type(trace.get_tracer_provider().sink).__name__ == "Sink"
        """,
        2,
    )


def test_what_cannot_be_sent_is_replaced_as_in_production(project: pytest.Pytester) -> None:
    passed(
        project,
        """
        from opentelemetry import trace

        def test_text(spans):
            with trace.get_tracer("shop").start_as_current_span("order") as span:
                span.set_attribute("name", "\\ud800")
            (order,) = spans
            assert order.attributes["name"] == "?"
        """,
    )


def test_worker_in_a_thread(project: pytest.Pytester) -> None:
    passed(
        project,
        """
        import pytest
        from shop import app, pack
        from celery.contrib.testing.worker import start_worker
        from telemetry.testing import assert_one_trace, assert_path

        def test_path(spans, monkeypatch):
            monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
            with start_worker(app, perform_ping_check=False):
                pack.delay().get(timeout=60)
            assert_one_trace(spans)
            assert_path(spans, "send …", "process …")
        """,
    )


def test_celerys_own_fixture(project: pytest.Pytester) -> None:
    passed(
        project,
        """
        import pytest
        from shop import app, pack
        from telemetry.testing import assert_one_trace, assert_path

        @pytest.fixture
        def celery_app():
            return app

        @pytest.fixture
        def celery_worker_parameters():
            return {"perform_ping_check": False}

        def test_path(spans, celery_worker):
            pack.delay()
            spans.wait_for(lambda spans: len(spans) == 2)
            assert_one_trace(spans)
            assert_path(spans, "send pack", "process pack")

        def test_in_vain(spans):
            with pytest.raises(TimeoutError, match="no spans"):
                spans.wait_for(len, timeout=0.01)
        """,
        2,
    )


def test_the_example_of_the_readme(
    pytester: pytest.Pytester, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("CELERY_BROKER_URL", broker.url)
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    (example,) = [block for block in blocks if "def test_" in block]
    pytester.makeconftest("pytest_plugins = ['telemetry.testing']")
    passed(pytester, example)


def test_equal_names(project: pytest.Pytester) -> None:
    passed(
        project,
        """
        from opentelemetry import trace
        from telemetry.testing import assert_one_trace, assert_path

        def test_the_last_of_three(spans):
            tracer = trace.get_tracer("shop")
            with tracer.start_as_current_span("order"):
                for items in (0, 0, 1):
                    with tracer.start_as_current_span("pack"):
                        for _ in range(items):
                            tracer.start_span("weigh").end()
            assert_one_trace(spans)
            assert_path(spans, "order", "pack", "weigh")
        """,
    )


def test_real_prefork_worker(
    project: pytest.Pytester, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROKER", broker.url)
    passed(
        project,
        """
        import subprocess, sys
        from shop import pack
        from telemetry.testing import assert_one_trace, assert_path

        def test_path(spans, otlp, otlp_env):
            worker = subprocess.Popen(
                [sys.executable, "-m", "celery", "-A", "shop", "worker", "-c", "1"], env=otlp_env
            )
            try:
                pack.apply_async()
                theirs = otlp.wait_for(lambda spans: spans, timeout=60)
                assert_one_trace(spans + theirs)
                assert_path(spans + theirs, "send pack", "process pack")
                assert theirs[0].service == "shop-worker"
            finally:
                worker.terminate()
                worker.wait()
        """,
    )


def test_a_failure_shows_the_tree(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
        from opentelemetry import trace
        from telemetry.testing import assert_one_trace, assert_path

        def test_apart(spans):
            for name in ("GET /ping", "process ping"):
                trace.get_tracer("shop").start_span(name).end()
            assert_one_trace(spans)

        def test_path(spans):
            trace.get_tracer("shop").start_span("GET /ping").end()
            assert_path(spans, "GET /ping", "send …")

        def test_nothing(spans):
            assert_one_trace(spans)

        def test_link(spans):
            tracer = trace.get_tracer("shop")
            send = tracer.start_span("send pack")
            send.end()
            run = tracer.start_span("process pack", links=[trace.Link(send.get_span_context())])
            run.end()
            assert_path(spans, "send pack", "process pack")

        def test_parent_is_missing(spans):
            tracer = trace.get_tracer("shop")
            with tracer.start_as_current_span("GET /ping"):
                tracer.start_span("send pack").end()
                assert_one_trace(spans)
        """
    )
    result = project.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(failed=5)
    result.stdout.fnmatch_lines(["*0 traces with 0 roots*", "*no spans"])
    result.stdout.fnmatch_lines(["*process pack INTERNAL UNSET (linked to send pack)"])
    result.stdout.fnmatch_lines(["*the root of the trace is missing*", "*close the response*"])
    result.stdout.fnmatch_lines(["*2 traces with 2 roots*", "*GET /ping INTERNAL*UNSET"])
    result.stdout.fnmatch_lines(["*expected the path*", "*found the spans*"])
