"""Hop 1 of 5: CLIENT. An HTTP request leaves, and the trace leaves with it."""

import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import requests
from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE
from opentelemetry.semconv.attributes.http_attributes import (
    HTTP_REQUEST_METHOD,
    HTTP_RESPONSE_STATUS_CODE,
)
from opentelemetry.semconv.attributes.server_attributes import SERVER_ADDRESS, SERVER_PORT
from opentelemetry.semconv.attributes.url_attributes import URL_FULL
from opentelemetry.semconv.metrics.http_metrics import HTTP_CLIENT_REQUEST_DURATION
from opentelemetry.trace import SpanKind, StatusCode
from opentelemetry.util.types import AttributeValue
from requests.adapters import BaseAdapter

from .hop import error_type, hop
from .http import method_attributes
from .propagation import inject
from .setup import measure

__all__ = ["traced_session"]

_MEASURED = (HTTP_REQUEST_METHOD, SERVER_ADDRESS, SERVER_PORT)


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
        method, attributes = _describe(request)
        measured = {key: value for key, value in attributes.items() if key in _MEASURED}
        began = time.perf_counter()
        secrets = _secrets(request)
        with hop(method, SpanKind.CLIENT, attributes=attributes, secrets=secrets) as span:
            try:
                inject(request.headers)
                response = self._adapter.send(request, *args, **kwargs)
                outcome = _outcome(response)
                span.set_attributes(outcome)
                if ERROR_TYPE in outcome:
                    span.set_status(StatusCode.ERROR)
                measured |= outcome
                return response
            except Exception as exc:
                measured[ERROR_TYPE] = error_type(exc)
                raise
            finally:
                seconds = time.perf_counter() - began
                measure({HTTP_CLIENT_REQUEST_DURATION: seconds}, measured, span)

    def close(self) -> None:
        self._adapter.close()


def _secrets(request: requests.PreparedRequest) -> list[str]:
    """Return what an exception may quote of the URL and a span must not."""
    url = urlsplit(request.url or "")
    return [part for part in (url.query, url.password, url.fragment) if part]


def _outcome(response: requests.Response) -> dict[str, AttributeValue]:
    code = response.status_code
    outcome: dict[str, AttributeValue] = {HTTP_RESPONSE_STATUS_CODE: code}
    if code >= 400:
        outcome[ERROR_TYPE] = str(code)
    return outcome


def _describe(request: requests.PreparedRequest) -> tuple[str, Mapping[str, AttributeValue]]:
    method, attributes = method_attributes(request.method or "GET")
    url = urlsplit(request.url or "")
    host = url.hostname or ""
    port = url.port or (443 if url.scheme == "https" else 80)
    netloc = url.netloc.rpartition("@")[2]
    return method, {
        **attributes,
        SERVER_ADDRESS: host,
        SERVER_PORT: port,
        URL_FULL: f"{url.scheme}://{netloc}{url.path}",
    }
