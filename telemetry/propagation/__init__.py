"""The context in headers: ``inject`` writes it, ``extract`` reads it.

The formats are W3C Trace Context Level 2 and W3C Baggage, unless ``OTEL_PROPAGATORS`` names others.
They are the same over HTTP and through the queue. OpenTelemetry's own propagators do not follow
them fully: they drop a whole ``tracestate`` for keys that Level 2 allows, overlook a second
``traceparent``, lose the properties of baggage and read ``+`` in it as a space.
"""

from collections.abc import Mapping, MutableMapping
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan

from ..tracing.context import NO_CONTEXT, with_span
from ..tracing.faults import log_internal_error
from ..tracing.record import Parent, ParentContext
from ..tracing.tracestate import TRACESTATE
from .baggage import BAGGAGE, IN_CONTEXT, merge_baggage
from .carrier import HEADERS_GETTER, read_headers
from .configured import configured_propagators
from .traceparent import TRACEPARENT, format_traceparent, parse_traceparent


def inject(carrier: MutableMapping[str, Any], context: Context | None = None) -> None:
    """Write *context*, by default the current one, into *carrier*. Never raises."""
    try:
        headers: dict[str, str] = {}
        configured_propagators().inject(headers, context)
        for name, value in headers.items():
            carrier[name] = value
        # In a carrier that is used again, an old tracestate must not stay beside a new traceparent.
        if TRACEPARENT in headers and TRACESTATE not in headers and TRACESTATE in carrier:
            del carrier[TRACESTATE]
    except Exception:
        log_internal_error("write the context into a message")


def extract(carrier: Any, context: Context | None = None) -> Context:
    """Return *context* with the trace in *carrier*, a mapping of headers. Never raises.

    *context* is an empty one by default: the current context is not read. Names match in any case.
    Values are strings, bytes or lists of them; any other value counts as absent.
    """
    context = Context() if context is None else context
    try:
        propagators = configured_propagators()
        headers = read_headers(carrier, propagators.wanted)
        return propagators.extract(headers, context, HEADERS_GETTER)
    except Exception:
        log_internal_error("read the context of a message")
        return context


def extract_parent(
    headers: Mapping[str, Any], context: Context = NO_CONTEXT
) -> tuple[ParentContext | None, Context]:
    """Return the remote span that *headers* name, and *context* with all that they add to it.

    Like ``extract``, but for headers with the names that the propagators write. Never raises.
    """
    if not headers:
        return None, context
    propagators = configured_propagators()
    # Nearly every message: a traceparent, and nothing else to read.
    if propagators.traceparent_suffices and TRACESTATE not in headers and BAGGAGE not in headers:
        return parse_traceparent(headers.get(TRACEPARENT)), context
    if propagators.wanted is not None:
        headers = {name: headers[name] for name in propagators.wanted if name in headers}
    if not headers:
        return None, context
    extracted = extract(headers, context)
    span = trace.get_current_span(extracted)
    if span is trace.get_current_span(context):
        return None, extracted
    return ParentContext.of(span.get_span_context()), extracted


def has_parent(headers: Mapping[str, Any]) -> bool:
    """Return whether *headers* have one that names a span, well-formed or not."""
    return not headers.keys().isdisjoint(configured_propagators().parent_fields)


def inject_parent(headers: MutableMapping[str, Any], parent: Parent, context: Context) -> None:
    """Write *parent*, and the rest of *context*, into *headers*. Replace none that is there."""
    # Nearly every message: a traceparent, and nothing else to write.
    if (
        not parent.trace_state
        and IN_CONTEXT not in context
        and configured_propagators().traceparent_suffices
    ):
        headers.setdefault(TRACEPARENT, format_traceparent(parent))
        return
    written: dict[str, str] = {}
    inject(written, with_span(NonRecordingSpan(parent.span_context()), context))
    for name, value in written.items():
        if name == BAGGAGE and BAGGAGE in headers:
            headers[BAGGAGE] = merge_baggage(headers[BAGGAGE], value)
        else:
            headers.setdefault(name, value)


def headers_in(environ: Mapping[str, Any]) -> dict[str, Any]:
    """Return the headers of a WSGI *environ* that may carry a context."""
    propagators = configured_propagators()
    if propagators.wanted is None:
        return {
            name.removeprefix("HTTP_").replace("_", "-").lower(): value
            for name, value in environ.items()
            if name.startswith("HTTP_")
        }
    return {name: environ[key] for key, name in propagators.in_environ if key in environ}
