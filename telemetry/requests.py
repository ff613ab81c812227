"""Hop 1 of 5: CLIENT. A client sends an HTTP request with the trace in its headers."""

from collections import OrderedDict
from copy import copy
from functools import cache
from typing import Any, ClassVar
from urllib.parse import SplitResult, urlsplit

import requests
from opentelemetry.context import create_key
from opentelemetry.trace import SpanKind
from requests.adapters import BaseAdapter

from .propagation import inject
from .propagation.baggage import BAGGAGE, merge_baggage
from .tracing.hop import Hop
from .tracing.record import ClientFacts, SpanTemplate
from .tracing.scope import hop_scope

__all__ = ["traced_session"]


def traced_session(session: requests.Session | None = None) -> requests.Session:
    """Return *session*, or a new one, whose requests each make a CLIENT span and carry its context.

    A redirect is a request of its own. The URL is recorded without user, password, query and
    fragment. Copies of the session are traced too. A second call with the same session changes
    nothing.
    """
    session = session if session is not None else requests.Session()
    if not isinstance(session.adapters, _TracedAdapters):
        session.adapters = _TracedAdapters(session.adapters)
    return session


class _TracedAdapters(OrderedDict[str, BaseAdapter]):
    """The adapters of a session, also those that are mounted later.

    ``Session.get_adapter``, which may be replaced by a mock for a while, looks for the adapter of a
    URL among the items. The rest of the session is unchanged.
    """

    def items(self) -> Any:
        """Return the adapters by their prefixes, each one traced."""
        return [(prefix, _traced(adapter)) for prefix, adapter in super().items()]

    def __reduce__(self) -> Any:
        return _TracedAdapters, (), None, None, iter(super().items())


def _traced(adapter: BaseAdapter) -> BaseAdapter:
    return adapter if type(adapter) is _TracedAdapter else _TracedAdapter(adapter)


class _TracedAdapter(BaseAdapter):
    """Send by *adapter* inside a hop. Behave like it otherwise."""

    _adapter: BaseAdapter

    def __init__(self, adapter: BaseAdapter) -> None:
        object.__setattr__(self, "_adapter", adapter)

    def send(
        self, request: requests.PreparedRequest, *args: Any, **kwargs: Any
    ) -> requests.Response:
        outer = _RequestHop.current()
        if outer is not None and outer.request is request:  # an adapter around this one is traced
            return self._adapter.send(request, *args, **kwargs)
        hop = _RequestHop(request)
        with hop:
            theirs = _take_baggage(request)
            inject(request.headers)
            _add_baggage(request, theirs)
            response = self._adapter.send(request, *args, **kwargs)
            if getattr(response, "connection", None) is self._adapter:
                # Digest authentication sends its second request by it.
                response.connection = self  # type: ignore[assignment]
            hop.facts.status = response.status_code
            if response.status_code >= 400:
                hop.facts.error = str(response.status_code)
                hop.set_error()
            return response

    def close(self) -> None:
        self._adapter.close()

    # For isinstance.
    __class__ = property(lambda self: type(self._adapter))

    def __getattr__(self, name: str) -> Any:
        if name == "_adapter":  # in a copy that is being made
            raise AttributeError(name)
        return getattr(self._adapter, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._adapter, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._adapter, name)

    def __eq__(self, other: object) -> bool:
        return self._adapter == (other._adapter if type(other) is _TracedAdapter else other)

    def __hash__(self) -> int:
        return hash(self._adapter)

    def __copy__(self) -> "_TracedAdapter":
        return _TracedAdapter(copy(self._adapter))

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _TracedAdapter, (self._adapter,)


@cache
def _template() -> SpanTemplate:
    return SpanTemplate("HTTP", SpanKind.CLIENT.value, {}, hop_scope())


#: The baggage of a request before it was sent, and the baggage that was sent.
_BAGGAGE = "_queuehop_baggage"


def _take_baggage(request: requests.PreparedRequest) -> Any:
    """Remove the baggage of *request*. Return it if another library wrote it."""
    theirs, sent = getattr(request, _BAGGAGE, (None, None))
    found = request.headers.pop(BAGGAGE, None)
    return theirs if found == sent else found  # equal: the request is sent again


def _add_baggage(request: requests.PreparedRequest, theirs: Any) -> None:
    """Merge *theirs* into the baggage of *request*."""
    ours = request.headers.get(BAGGAGE)
    if theirs is None and ours is None:  # nearly always
        return
    if theirs is not None:
        request.headers[BAGGAGE] = theirs if ours is None else merge_baggage(theirs, ours)
    setattr(request, _BAGGAGE, (theirs, request.headers.get(BAGGAGE)))


class _RequestHop(Hop[ClientFacts]):
    """A request while it is sent."""

    key: ClassVar[str] = create_key("queuehop-request")

    def __init__(self, request: requests.PreparedRequest) -> None:
        url = urlsplit(request.url or "")
        address = url.netloc.rpartition("@")[2]
        public_url = f"{url.scheme}://{address}{url.path}"
        facts = ClientFacts(request.method or "GET", public_url, url.hostname or "", _port(url))
        super().__init__(_template(), facts)
        self.request = request
        self.secrets = _secrets(url)


def _port(url: SplitResult) -> int:
    try:
        port = url.port
    except ValueError:  # an adapter's own scheme, with something else in this place
        port = None
    return port or (443 if url.scheme == "https" else 80)


def _secrets(url: SplitResult) -> list[str]:
    """Return the parts of *url* that an exception may quote and a span must not.

    A short one counts only behind its mark: else "?a" would remove every "a" of a traceback.
    """
    parts = ("?", url.query), (":", url.password), ("#", url.fragment)
    return [part if len(part) > 3 else mark + part for mark, part in parts if part]
