"""Hop 1 of 5: CLIENT. An HTTP request leaves, and the trace leaves with it."""

from functools import lru_cache
from typing import Any
from urllib.parse import SplitResult, urlsplit

import requests
from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE
from opentelemetry.semconv.attributes.http_attributes import (
    HTTP_REQUEST_METHOD_ORIGINAL,
    HTTP_RESPONSE_STATUS_CODE,
)
from opentelemetry.semconv.attributes.server_attributes import SERVER_ADDRESS, SERVER_PORT
from opentelemetry.semconv.attributes.url_attributes import URL_FULL
from opentelemetry.semconv.metrics.http_metrics import HTTP_CLIENT_REQUEST_DURATION
from opentelemetry.trace import SpanKind, StatusCode
from requests.adapters import BaseAdapter

from .hop import Hop
from .http import method_attributes
from .light import Shape
from .propagation import inject
from .series import Measured, Series

__all__ = ["traced_session"]


def traced_session(session: requests.Session | None = None) -> requests.Session:
    """Return *session*, or a new one, whose requests each make a CLIENT span and carry it.

    A redirect is a request of its own. The URL is recorded without user, password, query and
    fragment. Doing it twice to one session does no harm.
    """
    session = session if session is not None else requests.Session()
    if not isinstance(getattr(session, "get_adapter", None), _TracedAdapters):
        session.get_adapter = _TracedAdapters(session.get_adapter)  # type: ignore[method-assign]
    return session


class _TracedAdapters:
    """Stands where ``session.get_adapter`` was: adapters mounted later are traced as well."""

    def __init__(self, get_adapter: Any) -> None:
        self._get_adapter = get_adapter

    def __call__(self, url: str) -> BaseAdapter:
        return _TracedAdapter(self._get_adapter(url))


class _TracedAdapter(BaseAdapter):
    def __init__(self, adapter: BaseAdapter) -> None:
        super().__init__()
        self._adapter = adapter

    def send(
        self, request: requests.PreparedRequest, *args: Any, **kwargs: Any
    ) -> requests.Response:
        hop = _Request(request)
        with hop as span:
            inject(request.headers)
            response = self._adapter.send(request, *args, **kwargs)
            code = hop.code = response.status_code
            span.set_attribute(HTTP_RESPONSE_STATUS_CODE, code)
            if code >= 400:
                hop.error = str(code)
                span.set_attribute(ERROR_TYPE, hop.error)
                span.set_status(StatusCode.ERROR)
            return response

    def close(self) -> None:
        self._adapter.close()

    def __getattr__(self, name: str) -> Any:
        if name == "_adapter":  # in a copy that is being made
            raise AttributeError(name)
        return getattr(self._adapter, name)


class _Request(Hop):
    """The hop around one *request*; *code* is the status that came back, 0 while none has."""

    __slots__ = ("_server", "code")

    def __init__(self, request: requests.PreparedRequest) -> None:
        url = urlsplit(request.url or "")
        port = _port(url)
        self._server = request.method or "GET", url.hostname or "", port
        self.code = 0
        netloc = url.netloc.rpartition("@")[2]
        super().__init__(
            _shape(*self._server),
            attributes={URL_FULL: f"{url.scheme}://{netloc}{url.path}"},
            secrets=_secrets(url),
        )

    def measured(self, seconds: float) -> Measured:
        return _series(*self._server, self.code, self.error), (seconds,)


def _port(url: SplitResult) -> int:
    try:
        port = url.port
    except ValueError:  # a scheme of an adapter's own, with something else in this place
        port = None
    return port or (443 if url.scheme == "https" else 80)


def _secrets(url: SplitResult) -> list[str]:
    """Return what an exception may quote of *url* and a span must not.

    A short one is told by what stands before it: else every "a" of a traceback would go with "?a".
    """
    parts = ("?", url.query), (":", url.password), ("#", url.fragment)
    return [part if len(part) > 3 else mark + part for mark, part in parts if part]


@lru_cache(maxsize=256)
def _shape(method: str, host: str, port: int) -> Shape:
    name, attributes = method_attributes(method)
    return Shape(name, SpanKind.CLIENT, {**attributes, SERVER_ADDRESS: host, SERVER_PORT: port})


@lru_cache(maxsize=256)
def _series(method: str, host: str, port: int, code: int, error: str | None) -> Series:
    said = dict(_shape(method, host, port).attributes)
    said.pop(HTTP_REQUEST_METHOD_ORIGINAL, None)
    if code:
        said[HTTP_RESPONSE_STATUS_CODE] = code
    if error:
        said[ERROR_TYPE] = error
    return Series((HTTP_CLIENT_REQUEST_DURATION,), said)
