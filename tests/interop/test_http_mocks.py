"""A traced session under libraries that mock requests, and the same session afterwards."""

import copy
import pickle
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler

import pytest
import requests
import requests_mock
import responses
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from telemetry.requests import traced_session

from .background import BackgroundServer

MOCKED = "http://shop.test/orders"


class Server(BackgroundServer):
    """An HTTP server that notes which requests carried a trace."""

    def __init__(self) -> None:
        self.traceparents: list[str | None] = []
        noted = self.traceparents

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                noted.append(self.headers.get("traceparent"))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *args: object) -> None:
                pass

        super().__init__(Handler)


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        yield running


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with traced_session() as session:
        yield session


def assert_traced(session: requests.Session, server: Server, memory: InMemorySpanExporter) -> None:
    """Assert that a request of *session* makes one span and carries its context."""
    memory.clear()
    server.traceparents.clear()
    assert session.get(server.url).status_code == 204
    (span,) = memory.get_finished_spans()
    assert span.name == "GET"
    assert span.context is not None
    ids = f"{span.context.trace_id:032x}-{span.context.span_id:016x}"
    (traceparent,) = server.traceparents
    assert traceparent is not None
    assert ids in traceparent


class TestRequestsMock:
    @pytest.mark.interop(
        "requests-mock",
        "`Mocker()` around a traced session",
        "the mock answers; before and after it each request has its span and its header",
    )
    def test_mocker(
        self, session: requests.Session, server: Server, memory: InMemorySpanExporter
    ) -> None:
        assert_traced(session, server, memory)
        with requests_mock.Mocker() as mocker:
            mocker.get(MOCKED, text="mocked")
            assert session.get(MOCKED).text == "mocked"
            assert mocker.called_once
        assert_traced(session, server, memory)

    @pytest.mark.interop(
        "requests-mock",
        "`Mocker()` around a traced session",
        "the mock answers; before and after it each request has its span and its header",
    )
    def test_a_session_made_inside_is_traced_outside(
        self, server: Server, memory: InMemorySpanExporter
    ) -> None:
        with requests_mock.Mocker() as mocker:
            mocker.get(MOCKED, text="mocked")
            session = traced_session()
            assert session.get(MOCKED).text == "mocked"
        assert_traced(session, server, memory)

    @pytest.mark.interop(
        "requests-mock",
        "`Mocker(real_http=True)` around a traced session",
        "requests that are not mocked are traced meanwhile",
    )
    def test_what_is_not_mocked(
        self, session: requests.Session, server: Server, memory: InMemorySpanExporter
    ) -> None:
        with requests_mock.Mocker(real_http=True) as mocker:
            mocker.get(MOCKED, text="mocked")
            assert session.get(MOCKED).text == "mocked"
            assert session.get(server.url).status_code == 204
        assert_traced(session, server, memory)

    @pytest.mark.interop(
        "requests-mock",
        "`Mocker(session=…)` of a traced session",
        "the mock answers; before and after it each request has its span and its header",
    )
    def test_mocker_of_one_session(
        self, session: requests.Session, server: Server, memory: InMemorySpanExporter
    ) -> None:
        with requests_mock.Mocker(session=session) as mocker:
            mocker.get(MOCKED, text="mocked")
            assert session.get(MOCKED).text == "mocked"
            assert mocker.called_once
            with pytest.raises(requests_mock.NoMockAddress):
                session.get(server.url)
        assert server.traceparents == []
        assert_traced(session, server, memory)

    @pytest.mark.interop(
        "requests-mock",
        "`requests_mock.Adapter` mounted on a traced session",
        "the adapter answers, and each request has its span",
    )
    def test_mounted_adapter(
        self, session: requests.Session, server: Server, memory: InMemorySpanExporter
    ) -> None:
        adapter = requests_mock.Adapter()
        adapter.register_uri("GET", "mock://shop.test/", text="mocked")
        session.mount("mock://", adapter)
        assert session.get("mock://shop.test/").text == "mocked"
        (span,) = memory.get_finished_spans()
        assert span.name == "GET"
        assert "traceparent" in adapter.request_history[0].headers
        assert_traced(session, server, memory)

    @pytest.mark.interop(
        "requests-mock",
        "`Mocker()` inside `Mocker()`, around a traced session",
        "each mocker answers while it is the inner one; traced after both",
    )
    def test_nested(
        self, session: requests.Session, server: Server, memory: InMemorySpanExporter
    ) -> None:
        with requests_mock.Mocker() as outer:
            outer.get(MOCKED, text="outer")
            with requests_mock.Mocker() as inner:
                inner.get(MOCKED, text="inner")
                assert session.get(MOCKED).text == "inner"
            assert session.get(MOCKED).text == "outer"
        assert_traced(session, server, memory)


class TestResponses:
    @pytest.mark.interop(
        "responses",
        "`RequestsMock()` around a traced session",
        "the mock answers inside a span; after it each request has its span and its header",
    )
    def test_requests_mock(
        self, session: requests.Session, server: Server, memory: InMemorySpanExporter
    ) -> None:
        assert_traced(session, server, memory)
        memory.clear()
        with responses.RequestsMock() as mock:
            mock.add(responses.GET, MOCKED, body="mocked", status=503)
            response = session.get(MOCKED)
            assert (response.text, response.status_code) == ("mocked", 503)
            assert "traceparent" in mock.calls[0].request.headers
        (span,) = memory.get_finished_spans()
        assert span.attributes is not None
        assert span.attributes["http.response.status_code"] == 503
        assert_traced(session, server, memory)

    @pytest.mark.interop(
        "responses",
        "`add_passthru` of a traced session's requests",
        "requests that are not mocked are traced meanwhile",
    )
    def test_what_passes_through(
        self, session: requests.Session, server: Server, memory: InMemorySpanExporter
    ) -> None:
        with responses.RequestsMock() as mock:
            mock.add_passthru(server.url)
            assert_traced(session, server, memory)


COPIES: dict[str, Callable[[requests.Session], requests.Session]] = {
    "copied": copy.copy,
    "deep-copied": copy.deepcopy,
    "pickled": lambda session: pickle.loads(pickle.dumps(session)),
}


@pytest.mark.parametrize("how", COPIES)
class TestCopies:
    """A program may make one session and copy it for each thread, process or test."""

    def test_a_copy_is_traced(
        self, session: requests.Session, server: Server, memory: InMemorySpanExporter, how: str
    ) -> None:
        session.headers["X-Tenant"] = "blue"
        other = COPIES[how](session)
        assert other.headers["X-Tenant"] == "blue"
        assert_traced(other, server, memory)
        assert_traced(session, server, memory)

    @pytest.mark.interop(
        "requests-mock",
        "a traced session copied, deep-copied or pickled, then mocked",
        "the mock answers the copy; after it both are traced",
    )
    def test_a_copy_is_mocked(
        self, session: requests.Session, server: Server, memory: InMemorySpanExporter, how: str
    ) -> None:
        other = COPIES[how](session)
        with requests_mock.Mocker() as mocker:
            mocker.get(MOCKED, text="mocked")
            assert other.get(MOCKED).text == "mocked"
        assert_traced(other, server, memory)
        assert_traced(session, server, memory)

    def test_a_copy_made_while_mocked(
        self, session: requests.Session, server: Server, memory: InMemorySpanExporter, how: str
    ) -> None:
        with requests_mock.Mocker() as mocker:
            mocker.get(MOCKED, text="mocked")
            other = COPIES[how](session)
            assert other.get(MOCKED).text == "mocked"
        assert_traced(other, server, memory)

    @pytest.mark.interop(
        "responses",
        "a traced session copied, deep-copied or pickled, then mocked",
        "the mock answers the copy; after it both are traced",
    )
    def test_a_copy_under_responses(
        self, session: requests.Session, server: Server, memory: InMemorySpanExporter, how: str
    ) -> None:
        other = COPIES[how](session)
        with responses.RequestsMock() as mock:
            mock.add(responses.GET, MOCKED, body="mocked")
            assert other.get(MOCKED).text == "mocked"
        assert_traced(other, server, memory)
        assert_traced(session, server, memory)
