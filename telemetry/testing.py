"""A pytest plugin: the spans of a test, from its own process and from those that it starts.

``spans`` has the spans that end in this process. ``otlp`` is a receiver for other processes, and
``otlp_env`` their environment. ``spans.join(otlp)`` makes one list of both. The assertions take any
list of spans.
"""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from .config.sdk import (
    ReadableSpan,
    SpanLimits,
    SpanProcessor,
    create_resource,
    remove_span_processor,
    sampling,
)
from .config.settings import Sampler
from .export.outgoing import origin_of, outgoing
from .otlp.decode import ReceivedSpan, decode
from .otlp.encode import encode_request
from .otlp.receiver import Receiver
from .tracing.provider import HopTracerProvider
from .tracing.record import pack, unpack
from .tracing.span import HopSpan

__all__ = ["Spans", "assert_one_trace", "assert_path", "otlp", "otlp_env", "spans", "tree"]


class Spans(list[ReceivedSpan]):
    """A list of spans, in the order in which they ended. It grows while the test runs."""

    def __init__(self) -> None:
        super().__init__()
        self._grown = threading.Condition()
        self._ids: set[tuple[str, str]] = set()

    def add(self, spans: Sequence[ReceivedSpan]) -> None:
        """Add those of *spans* that are not in the list. Any thread may call this."""
        with self._grown:
            for span in spans:
                if (span.trace_id, span.span_id) not in self._ids:
                    self._ids.add((span.trace_id, span.span_id))
                    self.append(span)
            self._grown.notify_all()

    def join(self, receiver: Receiver) -> "Spans":
        """Add the spans that *receiver* has, and will have. Return the list.

        After ``spans.join(otlp)`` the list has the spans of all processes of the test.
        """
        receiver.subscribe(self.add)
        return self

    def wait_for(self, predicate: Callable[["Spans"], object], timeout: float = 10.0) -> "Spans":
        """Wait until *predicate* of the list is true. Return the list.

        Raises TimeoutError after *timeout* seconds, with the tree of the spans and the names of the
        spans that are open.
        """
        with self._grown:
            if not self._grown.wait_for(lambda: predicate(self), timeout):
                raise TimeoutError(
                    f"the condition is still false after {timeout:g} s:\n{_shown(self)}"
                )
        return self


class _Collector(SpanProcessor):
    """Adds to *spans* those that start and end in this process during a test."""

    def __init__(self, spans: Spans) -> None:
        self._spans = spans
        self._open: dict[int, Any] = {}
        self._is_over = False

    def names(self) -> list[str]:
        """Return the names of the spans that are open."""
        return [span.name for span in list(self._open.values())]

    def on_start(self, span: Any, parent_context: Context | None = None) -> None:
        if not self._is_over:
            self._open[span.get_span_context().span_id] = span

    def on_end(self, span: ReadableSpan) -> None:
        context = span.context
        if context is None or (started := self._open.get(context.span_id)) is None:
            return  # of an earlier test
        if context.trace_flags.sampled:
            self._spans.add(decode(_export_of(started, span)))
        self._open.pop(context.span_id, None)

    def shutdown(self) -> None:
        """Forget all spans. If one ends later, it does not belong to the next test."""
        self._is_over = True
        self._open.clear()


def _export_of(started: Any, ended: ReadableSpan) -> ExportTraceServiceRequest:
    """Return the export of a span. That of a hop is encoded as in production."""
    if not isinstance(started, HopSpan):
        return encode_spans([ended])
    origin = origin_of(ended.resource, started.template, instance_is_set=True)
    encoded = outgoing(origin, unpack(pack(started.record))).span
    return ExportTraceServiceRequest.FromString(encode_request([encoded] if encoded else []))


#: The collectors of the tests that run.
_collectors: list[_Collector] = []


@pytest.fixture
def spans() -> Iterator[Spans]:
    """The spans that start and end in this process during the test. ``wait_for`` waits for more.

    The application's provider stays. If there is none, the fixture sets one. OpenTelemetry cannot
    remove it, but after the test it exports nothing.
    """
    collected = Spans()
    provider: Any = trace.get_tracer_provider()
    if isinstance(provider, trace.ProxyTracerProvider):  # no provider is set yet
        always = Sampler(sampling.ALWAYS_ON, True, True, True)
        provider = HopTracerProvider(always, create_resource({}), SpanLimits())
        trace.set_tracer_provider(provider)
    if not hasattr(provider, "add_span_processor"):
        pytest.fail(
            f"the fixture 'spans' cannot see the spans of {type(provider).__qualname__}: the "
            "application's tracer provider has no add_span_processor"
        )
    collector = _Collector(collected)
    provider.add_span_processor(collector)
    _collectors.append(collector)
    yield collected
    _collectors.remove(collector)
    collector.shutdown()
    if isinstance(provider, HopTracerProvider):
        provider.remove_span_processor(collector)
    else:
        remove_span_processor(provider, collector)


@pytest.fixture
def otlp() -> Iterator[Receiver]:
    """An OTLP/gRPC receiver: ``spans``, ``wait_for(predicate)`` and ``endpoint``."""
    with Receiver() as receiver:
        yield receiver


@pytest.fixture
def otlp_env(otlp: Receiver) -> dict[str, str]:
    """The environment for a process that sends its spans to ``otlp``, whatever the tests use."""
    others = {k: v for k, v in os.environ.items() if not k.startswith("OTEL_EXPORTER_OTLP_")}
    return {
        **others,
        "OTEL_SDK_DISABLED": "false",
        "OTEL_TRACES_EXPORTER": "otlp",
        "OTEL_EXPORTER_OTLP_ENDPOINT": otlp.endpoint,
        "OTEL_BSP_SCHEDULE_DELAY": "100",
    }


def assert_one_trace(spans: Sequence[ReceivedSpan]) -> None:
    """Assert that *spans* are one trace with one root, and that no parent is missing."""
    __tracebackhide__ = True
    known = {span.span_id for span in spans}
    tops = [span for span in spans if span.parent_id not in known]
    traces = {span.trace_id for span in spans}
    if len(traces) != 1 or len(tops) != 1:
        found = f"{len(traces)} traces with {len(tops)} roots"
        pytest.fail(f"expected one trace with one root, found {found}:\n{_shown(spans)}")
    if tops[0].parent_id:
        pytest.fail(f"the root of the trace is missing:\n{_shown(spans)}")


def assert_path(spans: Sequence[ReceivedSpan], *names: str) -> None:
    """Assert that there are spans with these *names*, each the parent of the next.

    A name that ends in ``…`` matches every name that begins with the text before it.
    """
    __tracebackhide__ = True
    by_id = {span.span_id: span for span in spans}
    for span in spans:
        path = [span]
        while len(path) < len(names) and path[0].parent_id in by_id:
            path.insert(0, by_id[path[0].parent_id])
        if len(path) == len(names) and all(map(_is_named, path, names)):
            return
    wanted = "\n".join(f"{'  ' * depth}{name}" for depth, name in enumerate(names))
    pytest.fail(f"expected the path\n{wanted}\nfound the spans\n{_shown(spans)}")


def _is_named(span: ReceivedSpan, name: str) -> bool:
    return span.name.startswith(name[:-1]) if name.endswith("…") else span.name == name


def _shown(spans: Sequence[ReceivedSpan]) -> str:
    lines = [tree(spans)]
    if names := [name for each in _collectors for name in each.names()]:
        lines.append(f"still open: {', '.join(names)}")
    if names or _MISSING in lines[0]:
        lines.append(_HINT)
    return "\n".join(lines)


_MISSING = " (parent missing)"
_HINT = (
    "If a span is open or missing: close the response of a test client (`with client.get(…):`), "
    "`spans.wait_for(…)` if another thread ends it, `spans.join(otlp)` if another process sends it."
)


def tree(spans: Sequence[ReceivedSpan]) -> str:
    """Return *spans* as text: each trace under its id, each span under its parent, by start.

    A span shows its links to other spans than the parent.
    """
    known = {span.span_id: (span.name, span.span_id) for span in spans}
    ordered = sorted(spans, key=lambda span: span.start_ns)
    lines: list[str] = []

    def add(span: ReceivedSpan, depth: int) -> None:
        missing = "" if span.parent_id in known or not span.parent_id else _MISSING
        named = span.service and not span.service.startswith("unknown_service")
        service = f" ({span.service})" if named else ""
        others = [known[link.span_id] for link in span.links if link.span_id in known]
        linked = "".join(f" (linked to {each})" for each, at in others if at != span.parent_id)
        lines.append(
            f"{'  ' * depth}{span.name} {span.kind}{service} {span.status}{missing}{linked}"
        )
        for child in ordered:
            if child.parent_id == span.span_id:
                add(child, depth + 1)

    for trace_id in dict.fromkeys(span.trace_id for span in ordered):
        lines.append(f"trace {trace_id}")
        for span in ordered:
            if span.trace_id == trace_id and span.parent_id not in known:
                add(span, 1)
    return "\n".join(lines) or "no spans"
