"""Hop 1 in sessions that are copied, mocked, replayed and configured."""

import copy
import pickle
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from unittest import mock

import pytest
import requests
import requests_mock
from opentelemetry import baggage, context
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from requests.adapters import BaseAdapter, HTTPAdapter

import telemetry
from telemetry.requests import traced_session


@dataclass
class Server:
    url: str
    headers: list[dict[str, str]] = field(default_factory=list)

    @property
    def traced(self) -> list[bool]:
        """Whether each request that arrived had a context."""
        return ["traceparent" in headers for headers in self.headers]

    @property
    def baggage(self) -> list[str | None]:
        return [headers.get("baggage") for headers in self.headers]


@pytest.fixture
def server(memory: InMemorySpanExporter) -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.headers.append({name.lower(): value for name, value in self.headers.items()})
            moved = self.path == "/moved"
            self.send_response(302 if moved else 204)
            if moved:
                self.send_header("Location", "/")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever, args=(0.01,))
        thread.start()
        seen = Server(f"http://127.0.0.1:{listening.server_port}/")
        yield seen
        listening.shutdown()
        thread.join()


def names(memory: InMemorySpanExporter) -> list[str]:
    return [span.name for span in memory.get_finished_spans()]


class Canned(BaseAdapter):
    """Answers without a server, and notes the requests."""

    def __init__(self) -> None:
        super().__init__()
        self.headers: list[dict[str, Any]] = []
        self.closed = False

    def send(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> requests.Response:
        self.headers.append(dict(request.headers))
        answer = requests.Response()
        answer.status_code, answer.request, answer.url = 204, request, str(request.url)
        return answer

    def close(self) -> None:
        self.closed = True


class TestMocks:
    def test_after_a_mock_of_all_sessions_a_session_is_traced_again(
        self, server: Server, memory: InMemorySpanExporter
    ) -> None:
        session = traced_session()
        for _ in range(2):
            with requests_mock.Mocker() as mocker:
                mocker.get("http://shop.test/", text="mocked")
                assert session.get("http://shop.test/").text == "mocked"
            session.get(server.url)
        assert server.traced == [True, True]

    def test_a_session_that_is_made_while_all_are_mocked(self, server: Server) -> None:
        with requests_mock.Mocker() as mocker:
            mocker.get("http://shop.test/", text="mocked")
            session = traced_session()
            assert session.get("http://shop.test/").text == "mocked"
        session.get(server.url)
        assert server.traced == [True]

    def test_what_a_mock_lets_through_is_traced(self, server: Server) -> None:
        with requests_mock.Mocker(real_http=True) as mocker:
            mocker.get("http://shop.test/", text="mocked")
            traced_session().get(server.url)
        assert server.traced == [True]

    def test_a_mock_of_one_session(self, server: Server) -> None:
        session = traced_session()
        with requests_mock.Mocker(session=session) as mocker:
            mocker.get("http://shop.test/", text="mocked")
            assert session.get("http://shop.test/").text == "mocked"
        session.get(server.url)
        assert server.traced == [True]

    def test_a_mocks_adapter_that_is_mounted(self, memory: InMemorySpanExporter) -> None:
        session, adapter = traced_session(), requests_mock.Adapter()
        session.mount("mock://", adapter)
        adapter.register_uri("GET", "mock://shop/", text="mocked")
        assert session.get("mock://shop/").text == "mocked"
        assert adapter.called
        assert "traceparent" in adapter.last_request.headers
        assert names(memory) == ["GET"]

    @pytest.mark.parametrize(("scheme", "port"), [("http", 80), ("https", 443)])
    def test_a_url_without_a_port(
        self, memory: InMemorySpanExporter, scheme: str, port: int
    ) -> None:
        session, adapter = traced_session(), requests_mock.Adapter()
        session.mount(f"{scheme}://", adapter)
        adapter.register_uri("GET", f"{scheme}://shop.test/")
        session.get(f"{scheme}://shop.test/")
        (span,) = memory.get_finished_spans()
        assert span.attributes is not None
        assert span.attributes["server.port"] == port

    def test_a_patched_send_of_one_adapter(
        self, server: Server, memory: InMemorySpanExporter
    ) -> None:
        session = traced_session()
        answer = requests.Response()
        answer.status_code = 418
        adapter = session.get_adapter(server.url)
        with mock.patch.object(adapter, "send", return_value=answer) as send:
            assert session.get(server.url).status_code == 418
        assert "traceparent" in send.call_args.args[0].headers
        session.get(server.url)
        assert server.traced == [True]
        assert names(memory) == ["GET", "GET"]

    def test_a_patched_send_of_all_adapters(self, server: Server) -> None:
        """As `responses` does it."""
        session = traced_session()
        answer = requests.Response()
        answer.status_code = 418
        with mock.patch.object(HTTPAdapter, "send", return_value=answer):
            assert session.get(server.url).status_code == 418
        session.get(server.url)
        assert server.traced == [True]

    def test_responses(self, server: Server, memory: InMemorySpanExporter) -> None:
        responses = pytest.importorskip("responses")
        session = traced_session()
        with responses.RequestsMock() as mocked:
            mocked.get("http://shop.test/", body="mocked")
            assert session.get("http://shop.test/").text == "mocked"
            assert "traceparent" in mocked.calls[0].request.headers
        session.get(server.url)
        assert server.traced == [True]
        assert names(memory) == ["GET", "GET"]

    @pytest.mark.parametrize("take", ["copy", "dict"])
    def test_adapters_that_are_taken_away_and_put_back(
        self, server: Server, memory: InMemorySpanExporter, take: str
    ) -> None:
        """As betamax does it."""
        session, canned = traced_session(), Canned()
        kept = session.adapters.copy() if take == "copy" else dict(session.adapters.items())
        for prefix in kept:
            session.mount(prefix, canned)
        session.get(server.url)
        for prefix, adapter in kept.items():
            session.mount(prefix, adapter)
        session.get(server.url)
        assert len(canned.headers) == 1
        assert "traceparent" in canned.headers[0]
        assert server.traced == [True]
        assert names(memory) == ["GET", "GET"]


class TestCopies:
    @pytest.mark.parametrize(
        "duplicate",
        [copy.copy, copy.deepcopy, lambda session: pickle.loads(pickle.dumps(session))],
        ids=["copied", "deep-copied", "pickled"],
    )
    def test_a_copy_is_traced_once_for_each_request(
        self,
        server: Server,
        memory: InMemorySpanExporter,
        duplicate: Callable[[requests.Session], requests.Session],
    ) -> None:
        original = traced_session()
        original.mount(server.url, HTTPAdapter(max_retries=3))
        twin = traced_session(duplicate(duplicate(original)))
        assert type(twin) is requests.Session
        assert list(twin.adapters) == list(original.adapters)
        assert twin.get_adapter(server.url).max_retries.total == 3
        twin.get(server.url)
        assert server.traced == [True]
        assert names(memory) == ["GET"]

    def test_a_session_of_a_class_of_its_own(self, server: Server) -> None:
        class Shop(requests.Session):
            def request(self, method: Any, url: Any, *args: Any, **kwargs: Any) -> Any:
                return super().request(method, server.url + url, *args, **kwargs)

        shop = Shop()
        assert traced_session(shop) is shop
        shop.get("items")
        assert server.traced == [True]

    def test_an_adapter_that_is_mounted_later(self, memory: InMemorySpanExporter) -> None:
        session, canned = traced_session(), Canned()
        session.mount("https://shop.test/", canned)
        session.get("https://shop.test/items")
        assert "traceparent" in canned.headers[0]
        session.close()
        assert canned.closed

    def test_an_adapter_around_a_traced_one(
        self, server: Server, memory: InMemorySpanExporter
    ) -> None:
        class Twice(Canned):
            def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> Any:
                inner.send(request, *args, **kwargs)
                other.get(server.url)
                return inner.send(request, *args, **kwargs)

        session, other = traced_session(), traced_session()
        inner = session.get_adapter(server.url)
        session.mount("http://", Twice())
        session.get(server.url)
        other, outer = memory.get_finished_spans()
        assert other.parent is not None
        assert other.parent.span_id == outer.context.span_id
        assert server.traced == [True] * 3

    def test_adapters_that_replace_all_others(self, memory: InMemorySpanExporter) -> None:
        session, canned = traced_session(), Canned()
        session.adapters.clear()
        session.adapters.update({"https://": canned})
        session.get("https://shop.test/items")
        assert "traceparent" in canned.headers[0]
        with pytest.raises(requests.exceptions.InvalidSchema):
            session.get("http://shop.test/")


def test_what_is_sent_again_by_the_connection_of_a_response(
    server: Server, memory: InMemorySpanExporter
) -> None:
    """``HTTPDigestAuth`` and other hooks do this, with a copy of the request."""

    def authenticate(response: requests.Response, **options: Any) -> requests.Response:
        if "Authorization" in response.request.headers:
            return response
        again = response.request.copy()
        again.headers["Authorization"] = "Digest"
        return response.connection.send(again, **options)

    with traced_session() as session:
        session.get(server.url, hooks={"response": authenticate})
    sent = [headers["traceparent"].split("-")[2] for headers in server.headers]
    spans = [span.context for span in memory.get_finished_spans()]
    assert sent == [f"{context.span_id:016x}" for context in spans if context is not None]
    assert len(set(sent)) == 2


class TestAnAdapterIsWhatItIs:
    def test_settings_reach_it(self, server: Server) -> None:
        session = traced_session()
        session.get_adapter("http://").max_retries = 7
        session.get_adapter("http://").note = "ours"
        assert session.adapters["http://"].max_retries == 7
        assert session.get_adapter("http://").note == "ours"
        del session.get_adapter("http://").note
        assert not hasattr(session.adapters["http://"], "note")

    def test_its_class(self) -> None:
        class Own(HTTPAdapter):
            pass

        session = traced_session()
        session.mount("https://", Own())
        assert isinstance(session.get_adapter("https://"), Own)
        assert isinstance(session.get_adapter("http://"), HTTPAdapter)
        assert not isinstance(session.get_adapter("http://"), Own)

    def test_it_equals_the_one_that_was_mounted(self) -> None:
        session, adapter = traced_session(), HTTPAdapter()
        session.mount("https://", adapter)
        assert session.get_adapter("https://") == adapter
        assert adapter == session.get_adapter("https://")
        assert session.get_adapter("https://") != session.get_adapter("http://")
        assert session.get_adapter("https://") in {adapter}

    @pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy])
    def test_a_copy_of_it(self, duplicate: Callable[[BaseAdapter], BaseAdapter]) -> None:
        session = traced_session()
        twin = duplicate(session.get_adapter("http://"))
        assert isinstance(twin, HTTPAdapter)
        twin.max_retries = 7
        assert session.get_adapter("http://").max_retries.total == 0

    def test_a_plain_table_of_them(self) -> None:
        session = traced_session()
        assert isinstance(session.adapters, OrderedDict)
        assert list(session.adapters) == ["https://", "http://"]


class TestBaggage:
    @pytest.fixture(autouse=True)
    def ours(self) -> Iterator[None]:
        token = context.attach(baggage.set_baggage("ours", "1"))
        yield
        context.detach(token)

    @pytest.mark.parametrize("theirs", ["theirs=2", b"theirs=2"])
    def test_of_another_tracer_in_the_headers_is_merged(
        self, server: Server, theirs: str | bytes
    ) -> None:
        traced_session().get(server.url, headers={"Baggage": theirs})
        assert server.baggage == ["theirs=2,ours=1"]

    @pytest.mark.parametrize("theirs", ["theirs=2 ;p", b"theirs=2 ;p"])
    def test_of_another_tracer_alone_stays_as_it_is(
        self, server: Server, theirs: str | bytes
    ) -> None:
        token = context.attach(context.Context())
        try:
            traced_session().get(server.url, headers={"baggage": theirs})
        finally:
            context.detach(token)
        assert server.baggage == ["theirs=2 ;p"]

    def test_the_callers_headers_are_not_changed(self, server: Server) -> None:
        headers = {"baggage": "theirs=2"}
        session = traced_session()
        session.headers["baggage"] = "session=3"
        session.get(server.url, headers=headers)
        session.get(server.url)
        assert headers == {"baggage": "theirs=2"}
        assert session.headers["baggage"] == "session=3"
        assert server.baggage == ["theirs=2,ours=1", "session=3,ours=1"]

    def test_through_a_redirect(self, server: Server) -> None:
        traced_session().get(server.url + "moved", headers={"baggage": "theirs=2"})
        assert server.baggage == ["theirs=2,ours=1"] * 2
        first, second = (telemetry.extract(headers) for headers in server.headers)
        assert first != second

    @pytest.mark.parametrize("theirs", [None, "theirs=2"])
    def test_of_a_request_that_is_sent_again_is_what_it_is_then(
        self, server: Server, theirs: str | None
    ) -> None:
        session = traced_session()
        headers = {"baggage": theirs} if theirs else {}
        request = session.prepare_request(requests.Request("GET", server.url, headers=headers))
        session.send(request)
        for now in (baggage.set_baggage("ours", "4"), context.Context()):
            token = context.attach(now)
            session.send(request)
            context.detach(token)
        first = f"{theirs}," if theirs else ""
        assert server.baggage == [f"{first}ours=1", f"{first}ours=4", theirs]
